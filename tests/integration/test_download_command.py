"""``%swift download`` in real shells and kernels, with real workers and a loopback hub."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_hub import FakeHub, free_dead_url
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from sandbox import wait_for
from shells import isolated_environment, isolated_shell

import swift_jupyter
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.hub.download_progress import read_download_progress
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.process import is_alive
from swift_jupyter.runs.record import State
from swift_jupyter.runs.run import Run
from swift_jupyter.settings import load_settings

ROOT = Path(swift_jupyter.__file__).parents[1]
EVIL = "<img src=x onerror=alert(1)>"


def content(seed: str, size: int) -> bytes:
    block = hashlib.sha256(seed.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


TINY = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": content("tokenizer", 300_000),
    "model.safetensors": content("model", 5_000_000),
}
ROWS = {"train.jsonl": b'{"query": "a", "response": "b"}\n' * 100}
REPOSITORIES = {
    ("model", "lab/tiny"): TINY,
    ("model", "lab/other"): {"config.json": b"{}", "model.safetensors": content("o", 900_000)},
    ("dataset", "lab/rows"): ROWS,
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({key: dict(files) for key, files in REPOSITORIES.items()}) as hub:
        yield hub


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: FakeHub
) -> Iterator[InteractiveShell]:
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("LANG", "C.UTF-8")
    with isolated_shell(tmp_path, monkeypatch) as shell:
        shell.run_cell("%load_ext swift_jupyter")
        shell.run_cell("%config SwiftMagics.display = 'html'")
        yield shell
        for run in RunIndex(load_settings()).active():
            run.kill()


def run(shell: InteractiveShell, line: str) -> Any:
    return shell.run_cell(line).result


def downloads() -> list[Run]:
    return [run for run in RunIndex(load_settings()).all() if run.record().command == "download"]


def assert_complete(folder: Path, files: dict[str, bytes]) -> None:
    for path, expected in files.items():
        assert (folder / path).read_bytes() == expected, path


def interrupt_when(condition: Callable[[], Any], times: int = 1) -> threading.Thread:
    """Interrupt this process, as the stop button does, as soon as `condition` is true."""

    def watch() -> None:
        wait_for(condition)
        for _time in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def frozen_worker() -> bool:
    """Freeze the worker once it is at work, so that it cannot obey a stop."""
    for run in downloads():
        worker = run.record().worker
        if run.state is State.RUNNING and worker is not None:
            os.kill(worker.pid, signal.SIGSTOP)
            return True
    return False


def some_bytes_there(least: int = 100_000) -> bool:
    known = [read_download_progress(run.folder.progress_file) for run in downloads()]
    return any(progress is not None and progress.done_bytes > least for progress in known)


# The whole way


def test_a_download_is_a_run_that_the_cell_watches(shell: InteractiveShell, hub: FakeHub) -> None:
    # Given a hub that takes its time
    hub.faults.chunk_pause = 0.02
    # When a model is downloaded
    with capture_output() as captured:
        facts = run(shell, "%swift download lab/tiny")
    # Then the files are there, and the result is what it always was
    assert_complete(facts.path, TINY)
    assert facts.repo_id == "lab/tiny" and facts.source == "ModelScope"
    assert facts.size_bytes == sum(map(len, TINY.values()))
    # And the run says what was done
    (found,) = downloads()
    assert found.state is State.DONE and found.record().worker is not None
    status = found.status()
    assert status.share == 1.0 and "5.3 MB" in status.detail
    # And a view was drawn, whose last frame tells what is there and stays
    updates = [o.data["text/html"] for o in captured.outputs if "text/html" in o.data]
    assert "done" in updates[-2] + updates[-1] and "lab/tiny" in updates[-2] + updates[-1]
    # And it can be found again exactly
    lock = json.loads((found.path / "swift-jupyter.lock").read_text())
    assert lock["repositories"][0]["repo_id"] == "lab/tiny"
    # When it is asked for again, then the answer comes at once, without a run or a request
    asked = len(hub.requests)
    started = time.monotonic()
    again = run(shell, "%swift download lab/tiny")
    assert time.monotonic() - started < 2
    assert again.path == facts.path and again.source == "cache"
    assert len(downloads()) == 1 and len(hub.requests) == asked


def test_several_names_give_a_table(shell: InteractiveShell) -> None:
    table = run(shell, "%swift download lab/tiny lab/other")
    assert [row["name"] for row in table] == ["lab/tiny", "lab/other"]
    assert_complete(Path(table[0]["folder"]), TINY)
    assert len(downloads()) == 1


def test_a_data_set_and_patterns_and_a_folder(shell: InteractiveShell, tmp_path: Path) -> None:
    facts = run(shell, "%swift download lab/rows --dataset")
    assert_complete(facts.path, ROWS)
    facts = run(shell, "%swift download lab/tiny --include *.json --local_dir here")
    assert facts.path == tmp_path / "here"
    assert sorted(p.name for p in (tmp_path / "here").glob("*.*")) == [
        "config.json",
        "tokenizer.json",
    ]


def test_the_other_names_come_although_one_fails(shell: InteractiveShell) -> None:
    with pytest.raises(UserError) as raised:
        run(shell, "%swift download nobody/nothing lab/tiny")
    assert "nobody/nothing" in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3
    assert "cache" in run(shell, "%swift download lab/tiny --source cache").source
    (failed,) = downloads()
    progress = read_download_progress(failed.folder.progress_file)
    assert progress is not None
    assert [repo.state for repo in progress.repos] == ["failed", "done"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%swift download", "download needs a name"),
        ("%swift download lab/tiny --source nowhere", "There is no source 'nowhere'"),
        ("%swift download lab/tiny --max_connections 0", "max_connections is a whole number"),
        ("%swift download lab/tiny --source cache", "could not be pulled"),
        ("%swift download --lock absent.lock", "There is no lock file"),
        ("%swift download x --dataset", "is not the id of a data set"),
        ("%swift download lab/absent", "could not be pulled"),
    ],
)
def test_what_a_person_can_mend_is_said_in_three_lines(
    shell: InteractiveShell, line: str, words: str
) -> None:
    with pytest.raises(UserError) as raised:
        run(shell, line)
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 3


# Stopping and going on


def test_the_first_interrupt_keeps_everything_and_the_same_command_goes_on(
    shell: InteractiveShell, hub: FakeHub
) -> None:
    # Given a slow download, watched by a cell
    hub.faults.chunk_pause = 0.08
    watcher = interrupt_when(lambda: some_bytes_there(1_000_000))
    # When it is interrupted
    with pytest.raises(Interrupted) as raised:
        run(shell, "%swift download lab/tiny --out mine --max_connections 2")
    watcher.join()
    # Then it has stopped in order, and says how to go on
    (stopped,) = downloads()
    assert stopped.state is State.STOPPED
    assert "What has arrived is kept" in str(raised.value)
    assert f"%swift runs resume {stopped.id}" in str(raised.value)
    worker = stopped.record().worker
    assert worker is not None
    wait_for(lambda: not is_alive(worker))
    known = read_download_progress(stopped.folder.progress_file)
    assert known is not None and known.repos[0].state == "stopped"
    # When the same command is typed again
    hub.faults.chunk_pause = 0.0
    before = sum(hub.sent.values())
    facts = run(shell, "%swift download lab/tiny")
    # Then the files are right, and most was not fetched a second time
    assert_complete(facts.path, TINY)
    total = sum(map(len, TINY.values()))
    assert known.done_bytes > 1_000_000
    assert sum(hub.sent.values()) - before < total - 0.5 * known.done_bytes


def test_a_stopped_download_is_resumed_as_a_run(shell: InteractiveShell, hub: FakeHub) -> None:
    hub.faults.chunk_pause = 0.08
    background = run(shell, "%swift download lab/tiny --background")
    wait_for(some_bytes_there)
    run(shell, "%swift runs stop")
    assert background.wait(30) == "stopped"
    hub.faults.chunk_pause = 0.0
    facts = run(shell, f"%swift runs resume {background.id}")
    assert_complete(facts.path, TINY)
    assert len(downloads()) == 1


def test_a_stop_is_obeyed_while_the_hub_is_silent(shell: InteractiveShell, hub: FakeHub) -> None:
    hub.faults.silent_listing = True
    background = run(shell, "%swift download lab/tiny --background")
    wait_for(lambda: hub.requests)
    started = time.monotonic()
    background.stop()
    assert background.wait(20) == "stopped"
    assert time.monotonic() - started < 8


def test_the_second_interrupt_kills_what_does_not_obey_the_first(
    shell: InteractiveShell, hub: FakeHub
) -> None:
    hub.faults.silent_listing = True
    watcher = interrupt_when(frozen_worker, times=2)
    with pytest.raises(Interrupted, match="was killed"):
        run(shell, "%swift download lab/tiny")
    watcher.join()
    (found,) = downloads()
    worker = found.record().worker
    assert worker is not None
    wait_for(lambda: not is_alive(worker))
    assert found.state is State.STOPPED


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be caught")
def test_a_worker_that_is_asked_to_end_stops_in_order(
    shell: InteractiveShell, hub: FakeHub
) -> None:
    hub.faults.chunk_pause = 0.08
    background = run(shell, "%swift download lab/tiny --background")
    wait_for(some_bytes_there)
    os.kill(downloads()[0].record().worker.pid, signal.SIGTERM)  # type: ignore[union-attr]
    assert background.wait(20) == "stopped"


def test_the_same_command_goes_on_after_the_worker_was_killed(
    shell: InteractiveShell, hub: FakeHub
) -> None:
    # Given a download whose worker is killed, as when the memory is short
    hub.faults.chunk_pause = 0.08
    background = run(shell, "%swift download lab/tiny --background --max_connections 2")
    wait_for(lambda: some_bytes_there(2_000_000))
    (lost,) = downloads()
    worker = lost.record().worker
    assert worker is not None
    children = psutil.Process(worker.pid).children(recursive=True)
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: background.state == "lost")
    # Then its transfer process ends, too
    assert children
    wait_for(lambda: not any(child.is_running() for child in children), 10)
    # And watching it says what can be typed
    with pytest.raises(UserError) as raised:
        run(shell, f"%swift runs attach {lost.id}")
    assert f"%swift runs resume {lost.id}" in str(raised.value)
    # When the same command is given again, it goes on
    hub.faults.chunk_pause = 0.0
    before = sum(hub.sent.values())
    assert_complete(run(shell, "%swift download lab/tiny").path, TINY)
    total = sum(map(len, TINY.values()))
    assert sum(hub.sent.values()) - before < total - 1_000_000


# In the background, and from several kernels


def test_background_returns_at_once_and_the_same_command_watches_it(
    shell: InteractiveShell, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults.chunk_pause = 0.05
    started = time.monotonic()
    background = run(shell, "%swift download lab/tiny --background")
    assert time.monotonic() - started < 3
    assert background.state in ("queued", "starting", "running")
    assert "%swift runs attach" in background.text()
    # When the same command is given without it
    wait_for(lambda: background.state == "running")
    capsys.readouterr()
    facts = run(shell, "%swift download lab/tiny")
    # Then it is the same run that is watched
    assert f"{background.id} is at work on this already" in capsys.readouterr().out
    assert len(downloads()) == 1
    assert background.state == "done"
    assert background.snapshots[0].path == facts.path
    table = run(shell, "%swift runs")
    assert table[0]["state"] == "done" and "MB" in table[0]["progress"]


KERNEL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("%load_ext swift_jupyter")
print("ready", flush=True)
shell.run_cell(sys.argv[1])
print("ended", flush=True)
"""


def test_a_download_outlives_its_kernel_and_another_one_attaches(
    shell: InteractiveShell, hub: FakeHub, tmp_path: Path
) -> None:
    # Given a kernel of its own that downloads
    hub.faults.chunk_pause = 0.08
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, "%swift download lab/tiny"],
        cwd=tmp_path,
        env={**os.environ, **isolated_environment(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(some_bytes_there)
    # When it is killed in the middle of it
    os.killpg(kernel.pid, signal.SIGKILL)
    kernel.wait()
    (found,) = downloads()
    assert found.state is State.RUNNING
    # Then another one is told of it, and watches it to its end
    hub.faults.chunk_pause = 0.01
    with capture_output() as captured:
        shell.run_cell("%reload_ext swift_jupyter")
    assert found.id in captured.stdout and "MB" in captured.stdout
    facts = run(shell, f"%swift runs attach {found.id}")
    assert_complete(facts.path, TINY)
    assert found.state is State.DONE


# What is seen


def test_the_view_tells_files_speed_and_source_and_escapes_what_the_hub_says(
    shell: InteractiveShell, hub: FakeHub
) -> None:
    # Given a hub with a file whose name is an attack
    name = f"a {EVIL.replace('/', '')}.safetensors"
    hub.repositories["model", "lab/evil"] = {name: content("evil", 3_000_000), "config.json": b"{}"}
    hub.faults.chunk_pause = 0.06
    # When it is downloaded, slowly
    with capture_output() as captured:
        shell.run_cell("%swift download lab/evil --max_connections 2")
    # Then nothing of it has become HTML
    shown = [o.data["text/html"] for o in captured.outputs if "text/html" in o.data]
    assert shown and not any("<img" in html for html in shown)
    (found,) = downloads()
    assert found.state is State.DONE


def test_frames_in_the_middle_tell_how_far_every_file_is(
    shell: InteractiveShell, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[dict[str, str]] = []
    moments: list[float] = []

    def keep(_self: Any, bundle: dict[str, str]) -> None:
        frames.append(bundle)
        moments.append(time.monotonic())

    monkeypatch.setattr("swift_jupyter.display.notebook._Output.update", keep)
    hub.faults.chunk_pause = 0.08
    run(shell, "%swift download lab/tiny lab/other --max_connections 2")
    middle = [f for f in frames if "model.safetensors" in f["text/plain"]]
    assert middle, frames
    assert any(re.search(r"[kM]B/s", frame["text/plain"]) for frame in middle)
    assert any("ModelScope" in frame["text/html"] for frame in middle)
    assert any("left" in frame["text/plain"] for frame in middle)
    # And it is not drawn more often than a person can see
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments[:-1])]
    assert all(gap > 0.2 for gap in gaps), gaps
    # And the last frame is of the end
    assert "done" in frames[-1]["text/plain"] and "lab/other" in frames[-1]["text/plain"]


def test_the_progress_file_is_replaced_not_appended(shell: InteractiveShell, hub: FakeHub) -> None:
    hub.faults.chunk_pause = 0.03
    run(shell, "%swift download lab/tiny --max_connections 2")
    (found,) = downloads()
    sizes = {p.name: p.stat().st_size for p in found.path.iterdir() if p.is_file()}
    assert sizes["progress.json"] < 8000
    assert sum(sizes.values()) < 20_000, sizes


# Tokens, locks, other sources


def test_a_token_reaches_the_hub_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "ms-very-secret-token"
    with FakeHub({("model", "lab/tiny"): dict(TINY)}, token=token) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_ENDPOINT", free_dead_url())
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
        with isolated_shell(tmp_path, monkeypatch) as shell:
            shell.run_cell("%load_ext swift_jupyter")
            # Given no token, then the hub refuses
            with pytest.raises(UserError):
                run(shell, "%swift download lab/tiny")
            # When this session is given one
            shell.run_cell(f"%config SwiftMagics.modelscope_token = '{token}'")
            facts = run(shell, "%swift download lab/tiny")
            # Then the worker had it, too
            assert_complete(facts.path, TINY)
    # And it is in no file
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


def test_a_mirror_of_the_user_is_asked_by_its_name(shell: InteractiveShell) -> None:
    with FakeHub({("model", "lab/private"): dict(TINY)}) as other:
        run(shell, f"%swift mirrors add mine --url {other.url} --hubs huggingface")
        facts = run(shell, "%swift download lab/private --source mine")
        assert_complete(facts.path, TINY)


def test_a_dead_hub_is_noted_and_the_other_one_gives_the_files(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = free_dead_url()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", dead)
    facts = run(shell, "%swift download lab/tiny")
    assert_complete(facts.path, TINY)
    assert "Hugging Face" in facts.source
    table = run(shell, "%swift mirrors")
    row = next(row for row in table if row["url"] == dead)
    assert row["reason"] and not row["last_success"]
    good = next(row for row in table if row["url"] == os.environ["HF_ENDPOINT"])
    assert good["last_success"]


def test_a_lock_file_brings_the_very_same_files_or_says_what_differs(
    shell: InteractiveShell, hub: FakeHub, tmp_path: Path
) -> None:
    # Given a lock file that a download has written
    run(shell, "%swift download lab/tiny --lock my.lock")
    entry = json.loads((tmp_path / "my.lock").read_text())["repositories"][0]
    assert {file["path"] for file in entry["files"]} == set(TINY)
    # When it is all that is given, for another folder, then the same comes
    facts = run(shell, "%swift download --lock my.lock --local_dir again")
    assert_complete(facts.path, TINY)
    # When the hub has other bytes, and nobody has the locked ones any more
    hub.repositories["model", "lab/tiny"]["config.json"] = b'{"model_type": "other"}'
    for name in ("modelscope_cache", "hf_home", "xdg_cache_home", "again"):
        subprocess.run(["rm", "-rf", str(tmp_path / name)], check=True)
    with pytest.raises(UserError) as raised:
        run(shell, "%swift download --lock my.lock")
    # Then that is what it says
    assert "config.json" in str(raised.value)


def test_the_terminal_prints_lines_and_json(hub: FakeHub, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        **isolated_environment(tmp_path),
        "MODELSCOPE_ENDPOINT": hub.url,
        "HF_ENDPOINT": hub.url,
        "PYTHONPATH": str(ROOT),
        "no_proxy": "*",
    }
    command = [sys.executable, "-m", "swift_jupyter", "download", "lab/tiny", "--json"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_complete(Path(json.loads(done.stdout)["path"]), TINY)
    assert "lab/tiny" in done.stderr and "done" in done.stderr
