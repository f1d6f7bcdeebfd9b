"""Runs with real workers: killed, stopped, resumed, shared, interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox import isolated_session, wait_for
from tiny_models import build_tiny_model, write_rows

import swift_jupyter
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.launch import resume
from swift_jupyter.runs.process import is_alive
from swift_jupyter.runs.record import State

STEPS = 60
KILLED_AT = 10  # The first checkpoint, at a step that is no multiple of 3.


class Lab:
    """A tiny model, its rows, and a session of its own."""

    def __init__(self, folder: Path, context: Any) -> None:
        self.folder = folder
        self.context = context
        self.index = RunIndex(context.settings)
        self.options = {
            "model": str(build_tiny_model(folder / "model", hidden=64, layers=4)),
            "dataset": [str(write_rows(folder / "rows.jsonl", 50))],
            "output_dir": str(folder / "output"),
            "split_dataset_ratio": 0.2,
            "max_steps": STEPS,
            "eval_steps": 7,
            "save_steps": KILLED_AT,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 5e-3,
            "lora_dropout": 0.1,
            "num_threads": 1,
        }

    def sft(self, **options: Any) -> Any:
        return swift_jupyter.sft(**{**self.options, **options})

    def run(self, started: Any) -> Any:
        return self.index.find(started.id)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("runs")
    with isolated_session(folder) as context:
        yield Lab(folder, context)


@pytest.fixture(scope="module")
def undisturbed(lab: Lab) -> Any:
    """A run that nobody touches, with the loss of every step."""
    return lab.sft(logging_steps=1)


def losses(run: Any, key: str = "loss") -> dict[int, float]:
    return {row["step"]: row[key] for row in run.history if key in row}


def weights(checkpoint: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(checkpoint / "adapter_model.safetensors")


def assert_same_weights(first: Path, second: Path, tolerance: float = 1e-5) -> None:
    import torch

    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=0, atol=tolerance), name


def kill_worker(run: Any, after: Path) -> None:
    """Kill the worker as the system does when memory runs out, once `after` exists."""
    wait_for(after.exists)
    os.kill(run.record().worker.pid, signal.SIGKILL)


def test_what_a_finished_run_leaves(lab: Lab, undisturbed: Any) -> None:
    # Given a run that blocked until it was done
    path = undisturbed.path
    # Then its folder tells everything, in ms-swift's words
    assert undisturbed.state == "done"
    assert path.parent == lab.folder / "output"
    assert path.name.startswith("v0-")
    args = json.loads((path / "args.json").read_text())
    assert args["model"] == lab.options["model"]
    assert args["per_device_train_batch_size"] == 2
    assert args["lora_rank"] == 8
    record = json.loads((path / "run.json").read_text())
    assert record["state"] == "done"
    assert record["versions"]["torch"]
    assert (path / "worker.log").is_file()
    assert not (path / ".unpublished").exists()
    assert not list(path.glob(".*.tmp"))
    # And every log has ms-swift's keys
    rows = undisturbed.history
    for row in (row for row in rows if "loss" in row):
        assert {
            "token_acc",
            "grad_norm",
            "learning_rate",
            "epoch",
            "elapsed_time",
            "remaining_time",
            "memory(GiB)",
            "train_speed(s/it)",
            "tokens_per_second",
        } <= row.keys()
        assert row["global_step/max_steps"] == f"{row['step']}/{STEPS}"
    assert list(losses(undisturbed)) == list(range(1, STEPS + 1))
    assert list(losses(undisturbed, "eval_loss")) == [*range(7, STEPS, 7), STEPS]
    # And it learnt something
    assert losses(undisturbed)[STEPS] < losses(undisturbed)[1] - 0.5
    result = undisturbed.metrics
    assert result["global_step"] == STEPS
    assert result["last_model_checkpoint"] == str(undisturbed.checkpoint)
    assert result["data"]["train_rows"] == 40
    assert result["data"]["val_rows"] == 10
    assert result["tokens"] > 0


def test_what_a_checkpoint_holds(lab: Lab, undisturbed: Any) -> None:
    # Given the checkpoints of a finished run
    assert [path.name for path in undisturbed.checkpoints] == [
        f"checkpoint-{step}" for step in range(KILLED_AT, STEPS + 1, KILLED_AT)
    ]
    for path in undisturbed.checkpoints:
        names = {entry.name for entry in path.iterdir()}
        assert {
            "adapter_config.json",
            "adapter_model.safetensors",
            "trainer_state.json",
            "args.json",
            "meter.json",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
        } <= names
        # Then no state names a folder that was never published
        state = json.loads((path / "trainer_state.json").read_text())
        best = state["best_model_checkpoint"]
        assert best is None or Path(best).is_dir()
    # And the best is the one with the least evaluation loss among those evaluated
    assert undisturbed.metrics["best_model_checkpoint"] == str(undisturbed.checkpoint)


def test_plain_peft_loads_the_adapter(lab: Lab, undisturbed: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    # Given a checkpoint and nothing of ours
    base = AutoModelForCausalLM.from_pretrained(lab.options["model"])
    ids = torch.arange(20).unsqueeze(0)
    before = base(ids).logits
    # When plain peft loads it
    model = PeftModel.from_pretrained(base, undisturbed.checkpoint)
    # Then it changes the answers
    assert (model(ids).logits - before).abs().max() > 0.1


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_killed_run_goes_on_as_if_nothing_had_happened(
    lab: Lab, undisturbed: Any, logging_steps: int
) -> None:
    # Given a run whose worker is killed after a checkpoint
    started = lab.sft(logging_steps=logging_steps, background=True)
    run = lab.run(started)
    kill_worker(run, run.path / f"checkpoint-{KILLED_AT}")
    wait_for(lambda: run.state is State.LOST)
    # And a checkpoint that was half written at that moment
    half = run.path / ".unpublished" / "checkpoint-999"
    half.mkdir(parents=True, exist_ok=True)
    (half / "adapter_model.safetensors").write_bytes(b"half")
    # When it is resumed
    found = swift_jupyter.manage_runs(action="resume", run=started.id)
    # Then it is done, and knows no half checkpoint
    assert found.state == "done"
    assert not half.exists()
    assert [p.name for p in found.checkpoints] == [p.name for p in undisturbed.checkpoints]
    # And every logged loss is that of the undisturbed run, each step once
    steps = [row["step"] for row in found.history if "loss" in row]
    assert steps == sorted(set(steps))
    expected = losses(undisturbed)
    previous = 0
    for step, loss in losses(found).items():
        between = [expected[number] for number in range(previous + 1, step + 1)]
        assert loss == pytest.approx(sum(between) / len(between), abs=1e-3), step
        previous = step
    assert previous == STEPS
    assert losses(found, "eval_loss") == pytest.approx(losses(undisturbed, "eval_loss"), abs=1e-3)
    # And so are its weights
    assert_same_weights(found.checkpoint, undisturbed.checkpoint)
    # And the tokens and the speed are those of the whole run
    assert found.metrics["tokens"] == undisturbed.metrics["tokens"]
    record = run.record()
    assert record.resumed == 1


def test_stopped_run_keeps_a_checkpoint_and_goes_on(
    lab: Lab, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given a run in the background, of files that are named as they lie here
    monkeypatch.chdir(lab.folder)
    started = lab.sft(logging_steps=1, background=True, model="model", dataset=["rows.jsonl#50"])
    assert started.state in ("queued", "starting", "running")
    run = lab.run(started)
    wait_for(lambda: run.status().step >= 3)
    # When somebody asks it to stop
    run.request_stop()
    assert run.state in (State.STOPPING, State.STOPPED)
    assert started.wait(60) == "stopped"
    # Then the last step is in a checkpoint
    step = run.status().step
    assert 3 <= step < STEPS
    assert started.checkpoint.name == f"checkpoint-{step}"
    assert started.metrics["stopped"] is True
    # And, resumed from elsewhere, it ends like one that was never stopped
    monkeypatch.chdir(tmp_path)
    resumed = resume(run, lab.context.settings)
    wait_for(lambda: not resumed.state.active)
    assert resumed.state is State.DONE
    assert losses(started) == pytest.approx(losses(undisturbed), abs=1e-3)
    assert_same_weights(started.checkpoint, undisturbed.checkpoint)
    # And a finished run is not resumed
    with pytest.raises(UserError, match="is done"):
        resume(run, lab.context.settings)


def interrupt_when(condition: Any, times: int) -> threading.Thread:
    """Interrupt this process as the notebook does, once the condition holds."""

    def work() -> None:
        wait_for(condition)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # The system merges signals that nobody has taken yet.

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_first_interrupt_stops_in_order_and_second_kills(lab: Lab) -> None:
    output = lab.folder / "interrupted"
    # Given a run that is watched, when it is interrupted once
    once = interrupt_when(lambda: list(output.glob("*/checkpoint-10")), times=1)
    with pytest.raises(Interrupted) as stopped:
        lab.sft(output_dir=str(output), max_steps=400, save_steps=10)
    once.join()
    # Then it saved where it was, and the message says how to go on
    run = stopped.value.result
    assert run.state == "stopped"
    assert int(run.checkpoint.name.rpartition("-")[2]) >= 10
    assert f"%swift runs resume {run.id}" in str(stopped.value)
    assert len(stopped.value.lines) <= 3
    # When it is resumed and interrupted twice in a hurry
    folder = lab.run(run).folder
    pid = folder.read().worker.pid
    twice = interrupt_when(
        lambda: folder.read().state is State.RUNNING and folder.read().worker.pid != pid, times=2
    )
    with pytest.raises(Interrupted) as killed:
        swift_jupyter.manage_runs(action="resume", run=run.id)
    twice.join()
    # Then it was killed at once, and its checkpoint is still there
    assert "killed" in killed.value.what
    assert run.state == "stopped"
    assert not is_alive(folder.read().worker)
    assert run.checkpoint is not None


def test_run_that_is_killed_before_its_worker_has_begun_stays_dead(lab: Lab) -> None:
    # Given a run whose worker has only just been started
    started = lab.sft(background=True)
    run = lab.run(started)
    # When it is killed at once
    run.kill()
    # Then it is stopped, and no process goes on with it
    assert run.state is State.STOPPED
    assert run.folder.spawned() is not None
    assert not is_alive(run.folder.spawned())
    assert not started.checkpoints


def test_two_workers_cannot_share_a_folder(lab: Lab) -> None:
    # Given a run at work
    started = lab.sft(background=True, max_steps=2000)
    run = lab.run(started)
    wait_for(lambda: run.record().worker)
    # When a second worker is started by hand
    program = "from swift_jupyter.runs.worker import main; main()"
    second = subprocess.run(
        [sys.executable, "-c", program, str(run.path)], capture_output=True, text=True, timeout=60
    )
    # Then it refuses, and the run is untouched
    assert second.returncode == 3
    assert "another worker" in second.stderr
    assert run.state.active
    # And nobody can resume it
    with pytest.raises(UserError, match="still at work"):
        resume(run, lab.context.settings)
    # And when the worker is done for, a worker that nobody asked for does nothing either
    run.kill()
    third = subprocess.run(
        [sys.executable, "-c", program, str(run.path)], capture_output=True, text=True, timeout=60
    )
    assert third.returncode == 3
    assert run.state is State.STOPPED


def test_only_the_wanted_checkpoints_stay(lab: Lab) -> None:
    # Given a run that may keep one checkpoint and evaluates
    run = lab.sft(max_steps=30, save_total_limit=1, eval_steps=10)
    # Then the newest stays, which is also the best, and nothing lies beside it
    assert [path.name for path in run.checkpoints] == ["checkpoint-30"]
    assert run.metrics["best_model_checkpoint"] == str(run.checkpoint)
    assert not (run.path / ".unpublished").exists()


PUBLISH_FOREVER = """
import sys
from pathlib import Path
from swift_jupyter.engine.training import checkpoints as c
folder = Path(sys.argv[1])
step = c.step_of(c.last_checkpoint(folder)) if c.last_checkpoint(folder) else 0
c.discard_staging(folder)
while True:
    step += 1
    staged = c.staging_folder(folder) / f"checkpoint-{step}"
    staged.mkdir()
    for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
        (staged / name).write_text(f"{step} " * 2000)
    c.publish(staged, folder)
    c.remove_old(folder, 3, None)
    print(step, flush=True)
"""


def test_whatever_has_a_checkpoints_name_is_complete(tmp_path: Path) -> None:
    # Given a process that publishes checkpoints and removes old ones
    import random

    rng = random.Random(7)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISH_FOREVER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        # When it is killed at any moment
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
        # Then every published one has all its files, whole
        found = sorted(tmp_path.glob("checkpoint-*"))
        assert found
        for path in found:
            step = path.name.rpartition("-")[2]
            assert {entry.name for entry in path.iterdir()} == {
                "adapter_model.safetensors",
                "optimizer.pt",
                "trainer_state.json",
            }
            for entry in path.iterdir():
                assert entry.read_text() == f"{step} " * 2000
