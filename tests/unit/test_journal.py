"""Journals: nothing lost, nothing twice, whatever a crash leaves."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from swift_jupyter.journal import JournalReader, append_row, keep_rows, read_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.dictionaries(st.text(st.characters(), max_size=8), VALUES, max_size=4)
PLAIN = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def strict(value: Any) -> Any:
    """What strict JSON makes of a value."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, list) else value


@PLAIN
@given(rows=st.lists(ROWS, max_size=6))
def test_every_row_comes_back(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == strict(rows)


def test_text_that_utf8_has_not_comes_back(tmp_path: Path) -> None:
    # Given a file name that could not be decoded
    row = {"path": "caf\udce9\\\udce9", "\ud800": "\u2028\x85\n"}
    append_row(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl") == [row]


def test_not_a_number_becomes_null(tmp_path: Path) -> None:
    append_row(tmp_path / "r", {"loss": math.nan, "all": [math.inf, {"x": -math.inf}]})
    text = (tmp_path / "r").read_text()
    assert json.loads(text, parse_constant=lambda name: 1 / 0) == {
        "loss": None,
        "all": [None, {"x": None}],
    }


@PLAIN
@given(before=ROWS, torn=ROWS, after=ROWS, data=st.data())
def test_torn_line_costs_only_itself(
    tmp_path: Path, before: Any, torn: Any, after: Any, data: st.DataObject
) -> None:
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    append_row(path, before)
    size = path.stat().st_size
    append_row(path, torn)
    # Given a crash in the middle of a line
    whole = path.stat().st_size
    cut = data.draw(st.integers(size, whole - 1))
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    assert read_rows(path) == [strict(before)]
    # When the next row is appended
    append_row(path, after)
    # Then only the torn one is missing, unless just its line end was
    kept = [torn] if cut == whole - 1 else []
    assert read_rows(path) == strict([before, *kept, after])


def test_absent_and_broken_files_have_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none") == []
    (tmp_path / "broken").write_bytes(b'\xff\xfe\n[1]\n"text"\n{"a": 1}\n{"b"')
    assert read_rows(tmp_path / "broken") == [{"a": 1}]


APPEND = """
import sys
from pathlib import Path
from swift_jupyter.journal import append_row
for number in range(200):
    row = {"who": sys.argv[2], "number": number, "fill": "x" * (number % 97)}
    append_row(Path(sys.argv[1]), row)
"""


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    # Given two processes that append to one journal, and a reader
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(path), who]) for who in ("a", "b")
    ]
    reader = JournalReader(path)
    seen: list[dict[str, Any]] = []
    while any(writer.poll() is None for writer in writers):
        seen += reader.new_rows()
    seen += reader.new_rows()
    # Then the reader saw every row once, each writer's in its order
    for who in ("a", "b"):
        assert [row["number"] for row in seen if row["who"] == who] == list(range(200))
    assert len(seen) == 400


class FollowedJournal(RuleBasedStateMachine):
    """A writer, a crash, a rewrite, and one reader that looks now and then."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "rows.jsonl"
        self.reader = JournalReader(self.path)
        self.expected: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []
        self.number = 0

    @rule()
    def append(self) -> None:
        self.number += 1
        row = {"step": self.number, "text": "x" * (self.number % 7)}
        append_row(self.path, row)
        self.expected.append(row)

    @rule()
    def crash_in_a_line(self) -> None:
        with self.path.open("ab") as stream:
            stream.write(b'{"step": 1, "te')

    @rule(kept=st.integers(0, 40))
    def resume_from_a_step(self, kept: int) -> None:
        keep_rows(self.path, lambda row: row["step"] <= kept)
        self.expected = [row for row in self.expected if row["step"] <= kept]
        # A watcher looks far more often than runs are resumed.
        self.look()

    @rule()
    def look(self) -> None:
        rows = self.reader.new_rows()
        if self.reader.restarted:
            self.seen.clear()
        self.seen += rows
        assert self.seen == self.expected

    @invariant()
    def never_more_than_was_written(self) -> None:
        if hasattr(self, "path"):
            assert read_rows(self.path) == self.expected

    def teardown(self) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


FollowedJournal.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestFollowedJournal = FollowedJournal.TestCase


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    # Given the usual umask
    import os

    before = os.umask(0o022)
    try:
        append_row(tmp_path / "rows", {"a": 1})
        keep_rows(tmp_path / "rows", lambda row: True)
    finally:
        os.umask(before)
    # Then a rewritten journal is as readable as a new one
    assert (tmp_path / "rows").stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows"]
