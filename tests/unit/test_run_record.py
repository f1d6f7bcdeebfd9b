"""`run.json` and what it means: states, lost workers, other machines and versions."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from swift_jupyter.errors import UserError
from swift_jupyter.runs.folder import RunFolder, create_run_folder
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.launch import resume
from swift_jupyter.runs.process import ProcessIdentity, identify, is_alive, kill
from swift_jupyter.runs.record import RunRecord, State, read_record
from swift_jupyter.runs.run import Run
from swift_jupyter.runs.worker import FolderReporter, explain
from swift_jupyter.settings import Settings

ACTIVE = [State.QUEUED, State.STARTING, State.RUNNING, State.STOPPING]
ENDED = [State.STOPPED, State.DONE, State.FAILED, State.LOST]
GONE = ProcessIdentity(2**22 + 5, "never")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return create_run_folder(tmp_path / "output")


def record(**values: Any) -> RunRecord:
    return RunRecord(**{"id": "sft-1", "command": "sft", **values})


def test_every_state_is_active_or_ended() -> None:
    assert [state for state in State if state.active] == ACTIVE
    assert [state for state in State if not state.active] == ENDED


@pytest.mark.parametrize("state", list(State))
def test_only_active_runs_can_get_lost(state: State) -> None:
    alive, dead = record(state=state, worker=identify()), record(state=state, worker=GONE)
    assert alive.observed_state() is state
    assert dead.observed_state() is (State.LOST if state.active else state)


def test_same_pid_with_another_start_is_another_process() -> None:
    me = identify()
    assert me is not None
    assert is_alive(me)
    recycled = ProcessIdentity(me.pid, "another boot:1")
    assert not is_alive(recycled)
    assert record(state=State.RUNNING, worker=recycled).observed_state() is State.LOST
    # And killing the one that is gone does nothing to the one that has its number
    kill(recycled)
    assert is_alive(me)


def test_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identify(child.pid)
    assert identity is not None
    assert is_alive(identity)
    # Given a process that is dead but was not waited for
    kill_by_number(child.pid)
    end = time.monotonic() + 10
    while is_alive(identity) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(identity)
    assert Path(f"/proc/{child.pid}").exists() or sys.platform != "linux"
    child.communicate()


def kill_by_number(pid: int) -> None:
    import signal

    os.kill(pid, signal.SIGKILL)


def test_kill_ends_the_whole_group() -> None:
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'input()'], "
        "stdin=subprocess.PIPE); print(p.pid, flush=True); input()"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert leader.stdout is not None
    child = identify(int(leader.stdout.readline()))
    parent = identify(leader.pid)
    assert child is not None
    assert parent is not None
    kill(parent)
    leader.communicate()
    end = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not is_alive(child)


def test_before_the_worker_enters_itself_its_process_counts(folder: RunFolder) -> None:
    # Given a queued run whose launcher is alive
    folder.write(record(launcher=identify()))
    assert folder.state() is State.QUEUED
    # When the process that was started is gone before it said anything
    folder.note_spawned(GONE)
    # Then the run is lost, not queued for ever
    assert folder.state() is State.LOST


def test_asking_to_stop_shows_as_stopping(folder: RunFolder) -> None:
    folder.write(record(state=State.RUNNING, worker=identify()))
    folder.request_stop()
    assert folder.state() is State.STOPPING
    folder.clear_requests()
    assert folder.state() is State.RUNNING
    # But what has ended stays as it ended
    folder.write(record(state=State.DONE, worker=GONE))
    folder.request_stop()
    assert folder.state() is State.DONE


def test_run_of_another_machine_is_believed_and_resumed_when_nobody_has_it(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    settings = Settings(state_dir=str(tmp_path / "state"))
    started: list[RunFolder] = []
    monkeypatch.setattr(
        "swift_jupyter.runs.launch._start_worker", lambda folder, *_rest: started.append(folder)
    )
    monkeypatch.setattr("swift_jupyter.runs.launch._LOCK_SECONDS", 0.1)
    # Given a run at work on a machine that cannot be seen from here
    elsewhere = record(state=State.RUNNING, worker=GONE, host="elsewhere")
    folder.write(elsewhere)
    assert folder.state() is State.RUNNING
    # When its worker holds the lock, then it is left alone
    with (
        FileLock(folder.lock_file),
        pytest.raises(UserError, match="still at work"),
    ):
        resume(Run(folder), settings)
    assert folder.read() == elsewhere
    # When nobody does, it is taken up here
    resume(Run(folder), settings)
    assert started == [folder] or [f.path for f in started] == [folder.path]
    assert folder.read().host != "elsewhere"
    assert folder.read().state is State.QUEUED
    assert folder.read().worker is None
    assert folder.read().resumed == 1


def test_record_of_a_newer_version_is_read(folder: RunFolder) -> None:
    content = record(state=State.RUNNING, worker=identify()).to_json()
    content["colour"] = "blue"
    content["worker"]["container"] = "7f3a"
    content["settings"] = {"hub": "huggingface", "unheard_of": True}
    folder.record_file.write_text(json.dumps(content))
    assert folder.read().state is State.RUNNING
    assert folder.state() is State.RUNNING
    assert folder.read().read_settings().hub == "huggingface"


def test_record_survives_a_round_trip(folder: RunFolder) -> None:
    full = record(
        state=State.FAILED,
        reason="数据\nline",
        title="m",
        worker=identify(),
        launcher=identify(),
        options={"dataset": ["a"], "max_length": None},
        settings=dataclasses.asdict(Settings()),
        versions={"torch": "2"},
        created=1.5,
        resumed=2,
    )
    folder.write(full)
    assert folder.read() == full


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"id": 1, "command": "sft", "state": "odd"}',
        '{"id": "a", "command": "sft", "worker": {"pid": "x"}}',
        "\udcff",
    ],
)
def test_broken_record_is_one_clear_error_and_leaves_the_list(
    folder: RunFolder, tmp_path: Path, content: str
) -> None:
    index = RunIndex(Settings(state_dir=str(tmp_path / "state")))
    index.add("sft-1", folder)
    folder.record_file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="not the folder of a run") as error:
        read_record(folder.record_file)
    assert len(error.value.lines) == 3
    assert index.all() == []


def test_index_finds_runs_by_id_beginning_and_folder(folder: RunFolder, tmp_path: Path) -> None:
    index = RunIndex(Settings(state_dir=str(tmp_path / "state")))
    folder.write(record(id="sft-ab12"))
    index.add("sft-ab12", folder)
    for name in ("sft-ab12", "sft-a", str(folder.path)):
        assert index.find(name).id == "sft-ab12"
    index.finish("sft-ab12")
    assert index.active() == []
    assert index.find("sft-ab12").path == folder.path
    for name in ("sft-ab13", "../active/sft-ab12", "", "x\0y", "~nobody-at-all/x"):
        with pytest.raises(UserError, match="no run"):
            index.find(name)
    with pytest.raises(UserError) as error:
        index.find("sft-ab13")
    assert "sft-ab12" in error.value.why


def test_folders_count_up_and_are_never_shared(tmp_path: Path) -> None:
    names = [create_run_folder(tmp_path).path.name for _ in range(3)]
    assert [name.partition("-")[0] for name in names] == ["v0", "v1", "v2"]
    exact = create_run_folder(tmp_path / "exact", add_version=False)
    exact.write(record())
    with pytest.raises(UserError, match="already holds a run"):
        create_run_folder(tmp_path / "exact", add_version=False)


def test_end_is_told_even_when_the_disk_is_full(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk on which nothing can be written while the reserve is there
    folder.reserve_file.write_bytes(b"x" * 1000)
    write = RunFolder.write

    def full(self: RunFolder, value: RunRecord) -> None:
        if self.reserve_file.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, value)

    monkeypatch.setattr(RunFolder, "write", full)
    # Then the end is written all the same
    folder.write_end(record(state=State.FAILED, reason="full"))
    assert folder.read().state is State.FAILED


def test_reporter_keeps_rows_that_could_not_be_written(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swift_jupyter.runs import worker

    reporter = FolderReporter(folder)
    append, full = worker.append_row, True

    def append_unless_full(path: Path, row: dict[str, Any]) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(path, row)

    monkeypatch.setattr(worker, "append_row", append_unless_full)
    # Given a disk that is full for two rows
    reporter.metrics({"step": 1})
    reporter.metrics({"step": 2})
    full = False
    # Then they are written with the third
    reporter.metrics({"step": 3})
    assert [row["step"] for row in Run(folder).metrics()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("CUDA out of memory. Tried"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (Exception("Error while serializing: I/O error: No space left (os error 28)"), "disk is"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (RuntimeError("first\nsecond"), "RuntimeError: first"),
        (ValueError(), "ValueError"),
    ],
)
def test_unexpected_errors_are_explained_in_a_few_lines(
    tmp_path: Path, error: Exception, expected: str
) -> None:
    text = explain(error, tmp_path)
    assert expected in text.splitlines()[0]
    assert len(text.splitlines()) <= 3
