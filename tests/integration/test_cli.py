"""The program in a terminal: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shells import isolated_environment

ROOT = Path(__file__).parents[2]


class Terminal:
    """Runs the program in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SWIFT_JUPYTER_")}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            **kept,
            **isolated_environment(folder),
            "PYTHONPATH": os.pathsep.join(paths),
            "COLUMNS": "100",
        }

    def run(self, *words: str, module: str = "swift_jupyter") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.mark.parametrize("module", ["swift_jupyter", "swift_jupyter.cli"])
def test_the_overview_and_the_version(terminal: Terminal, module: str) -> None:
    overview = terminal.run(module=module)
    assert overview.returncode == 0 and overview.stderr == ""
    assert "swift-jupyter sft" in overview.stdout and "%swift" not in overview.stdout
    assert terminal.run("--help", module=module).stdout == overview.stdout
    assert terminal.run("--version", module=module).stdout.strip()[0].isdigit()


@pytest.mark.parametrize("words", [("sft", "--help"), ("help", "sft")])
def test_help_for_a_command(terminal: Terminal, words: tuple[str, ...]) -> None:
    done = terminal.run(*words)
    assert done.returncode == 0
    for part in ("--lora_rank", "--json", "--config", "swift-jupyter sft: "):
        assert part in done.stdout
    assert "--out" not in done.stdout.replace("--output_dir", "")
    assert "%swift sft" not in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        (("modles",), 2, ["'swift-jupyter modles'", "Did you mean models?"]),
        (("help", "modles"), 2, ["Did you mean models?"]),
        (("models", "--limt", "2"), 2, ["Did you mean --limit?", "swift-jupyter models --help"]),
        (("models", "--limit", "two"), 2, ["--limit takes a whole number, not 'two'."]),
        (("models", "--limit", "-1"), 2, ["limit must be above 0"]),
        (("models", "--out", "x"), 2, ["--json"]),
        (("models", "--config"), 2, ["--config takes a YAML file."]),
        (("models", "--config", "absent.yaml"), 1, ["absent.yaml", "No such file"]),
        (("runs", "show", "sft-0000"), 1, ["There is no run 'sft-0000'."]),
        (("infer", "Hello"), 1, ["infer needs a model."]),
        (("config", "set", "hub", "x"), 1, ["modelscope, huggingface"]),
    ],
)
def test_errors_are_short_and_have_their_exit_code(
    terminal: Terminal, words: tuple[str, ...], code: int, parts: list[str]
) -> None:
    done = terminal.run(*words)
    assert done.returncode == code
    assert done.stdout == "" and "Traceback" not in done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 3
    assert "%swift" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_json_is_the_only_thing_on_standard_output(terminal: Terminal) -> None:
    done = terminal.run("models", "qwen", "--limit", "3", "--json")
    assert done.returncode == 0
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 3 and all("qwen" in row["name"].lower() for row in rows)


def test_settings_are_stored_and_shown(terminal: Terminal) -> None:
    assert terminal.run("config", "set", "hub", "huggingface").returncode == 0
    rows = json.loads(terminal.run("config", "--json").stdout)["rows"]
    (hub,) = [row for row in rows if row["name"] == "hub"]
    assert hub["value"] == "huggingface" and hub["from"].endswith("config.json")
    shown = terminal.run("config").stdout
    assert "huggingface" in shown and "default_model" in shown


@pytest.mark.parametrize("form", [["--config", "few.yaml"], ["--config=few.yaml"]])
def test_options_can_come_from_a_file(terminal: Terminal, form: list[str]) -> None:
    # Given options in a file, one of them also on the line
    (terminal.folder / "few.yaml").write_text("limit: 5\nquery: qwen2.5\n", encoding="utf-8")
    done = terminal.run("models", *form, "--limit", "2", "--json")
    # Then the line wins
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 2 and all("qwen2.5" in row["name"].lower() for row in rows)


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"limit: 5\nlimt: 2\n", "Line 2: models has no option 'limt'."), (b"\xff\xfe", "utf-8")],
)
def test_a_wrong_file_is_named_by_its_line(terminal: Terminal, content: bytes, part: str) -> None:
    (terminal.folder / "few.yaml").write_bytes(content)
    done = terminal.run("models", "--config", "few.yaml")
    assert done.returncode in (1, 2) and part in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(terminal: Terminal) -> None:
    # Given a pipe whose reader is gone before anything is written
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "swift_jupyter", "models", "--limit", "2000"],
        env=terminal.environment,
        cwd=terminal.folder,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    _output, errors = process.communicate(timeout=60)
    assert errors == "" and process.returncode == 141
