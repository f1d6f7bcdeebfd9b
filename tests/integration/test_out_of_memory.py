"""Out of memory: the run goes on with smaller batches, and its curve is what it would be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import build_tiny_model, write_rows
from torch import nn
from training_jobs import fine_tune

from swift_jupyter.engine.data.packing import single_rows
from swift_jupyter.engine.training.batching import BatchPlan
from swift_jupyter.engine.training.host_memory import available_memory
from swift_jupyter.engine.training.loss import LossParts
from swift_jupyter.engine.training.memory import (
    is_out_of_memory,
    remembered_plan,
    smaller_batches,
)
from swift_jupyter.engine.training.trainer import SwiftTrainer
from swift_jupyter.errors import UserError

STEPS = 6


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {
        "model": str(build_tiny_model(tmp_path / "model")),
        "dataset": [str(write_rows(tmp_path / "rows.jsonl", 40))],
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_steps": STEPS,
        "logging_steps": 1,
        "save_steps": 100,
        "learning_rate": 1e-2,
        "lora_dropout": 0.0,
        "num_threads": 1,
    }


def _allocator_error() -> Exception:
    """Return what torch raises for an allocation that no machine can make."""
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("this machine has an exabyte")


ERRORS: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "host": _allocator_error,
    "python": lambda: MemoryError(),
}


def _fail(
    monkeypatch: pytest.MonkeyPatch, when: Callable[[SwiftTrainer, int], bool], error: str
) -> None:
    """Let forward passes raise a lack of memory, by the trainer and the batch's rows."""
    original = SwiftTrainer._parts

    def parts(self: SwiftTrainer, model: nn.Module, inputs: dict[str, Any]) -> LossParts:
        if when(self, len(single_rows(inputs))):
            raise ERRORS[error]()
        return original(self, model, inputs)

    monkeypatch.setattr(SwiftTrainer, "_parts", parts)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (folder / f"checkpoint-{STEPS}").glob("*model.safetensors")
    return load_file(path)


@pytest.mark.parametrize("error", ERRORS)
def test_the_run_goes_on_from_the_last_step(
    error: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given what an undisturbed run does
    _result, calm = fine_tune(tmp_path / "calm", **options)
    # When from the fourth step on more than two rows do not fit
    _fail(monkeypatch, lambda t, rows: t.state.global_step >= 3 and rows > 2, error)
    result, told = fine_tune(tmp_path / "run", **options)
    # Then the run ends all the same, having halved twice, from the third step's checkpoint
    assert result["global_step"] == STEPS
    assert told.checkpoints == [3, STEPS]
    said = [notice for notice in told.notices if "Out of memory in step 4" in notice]
    assert "2 forward passes of 4 rows" in said[0]
    assert "4 forward passes of 2 rows" in said[1]
    # And its curve and weights are those of the undisturbed one
    assert [row["step"] for row in told.rows] == [1, 2, 3, 4, 5, 6]
    assert told.losses == pytest.approx(calm.losses, abs=1e-4)
    for name, weight in _weights(tmp_path / "calm").items():
        assert torch.allclose(_weights(tmp_path / "run")[name], weight, atol=1e-4)
    # And the checkpoint remembers, so that a resumed run does not fail again
    kept = json.loads((tmp_path / "run" / "checkpoint-6" / "args.json").read_text("utf-8"))
    assert kept["per_device_train_batch_size"] == 2
    assert kept["gradient_accumulation_steps"] == 4
    told.notices.clear()
    _again, later = fine_tune(tmp_path / "run", **{**options, "max_steps": STEPS + 1})
    assert later.losses
    assert not [notice for notice in later.notices if "Out of memory" in notice]


def test_an_error_in_the_first_step_starts_anew(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(monkeypatch, lambda trainer, rows: rows > 4, "host")
    result, told = fine_tune(tmp_path / "run", **options)
    assert result["global_step"] == STEPS
    assert told.checkpoints == [STEPS]


def test_an_error_within_an_update_goes_back_to_the_last_checkpoint(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a run that saves every two steps, and what it does undisturbed
    options = {**options, "save_steps": 2, "tuner_type": "full", "optim": "adamw_torch"}
    _result, calm = fine_tune(tmp_path / "calm", **options)
    # When the optimizer itself lacks memory in the fourth step, half of it done
    original = torch.optim.AdamW.step
    left = {"failures": 1}

    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        (first, *_rest) = self.state.values()
        if int(first["step"]) == 4 and left["failures"]:
            left["failures"] -= 1
            raise _allocator_error()
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    _result, told = fine_tune(tmp_path / "run", **options)
    # Then nothing of that update is kept: the run repeats the third step and is as the other
    assert [row["step"] for row in told.rows] == [1, 2, 3, 3, 4, 5, 6]
    assert told.losses[3:] == pytest.approx(calm.losses[2:], abs=1e-4)


def test_an_error_within_a_backward_that_updates_goes_back_as_well(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given weights that are updated during backward, and a checkpoint every two steps
    options = {
        **options,
        "save_steps": 2,
        "tuner_type": "full",
        "use_galore": True,
        "galore_rank": 8,
        "galore_optim_per_parameter": True,
    }
    _result, calm = fine_tune(tmp_path / "calm", **options)
    # When the memory gives out in the fourth step's backward, with the last layers updated
    original = SwiftTrainer._parts
    left = {"failures": 1}

    def fail(gradient: torch.Tensor) -> None:
        raise _allocator_error()

    def watch(module: nn.Module, given: Any, output: torch.Tensor) -> None:
        output.register_hook(fail)

    def parts(self: SwiftTrainer, model: Any, inputs: dict[str, Any]) -> LossParts:
        if self.state.global_step == 3 and left["failures"]:
            left["failures"] -= 1
            embedding = model.get_input_embeddings()
            handle = embedding.register_forward_hook(watch)
            try:
                return original(self, model, inputs)
            finally:
                handle.remove()
        return original(self, model, inputs)

    monkeypatch.setattr(SwiftTrainer, "_parts", parts)
    _result, told = fine_tune(tmp_path / "run", **options)
    # Then the half-updated weights are not kept: the third step is made again
    assert [row["step"] for row in told.rows] == [1, 2, 3, 3, 4, 5, 6]
    assert told.losses[3:] == pytest.approx(calm.losses[2:], abs=1e-4)


def test_evaluation_shrinks_as_well(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an evaluation of more rows than fit
    options |= {"split_dataset_ratio": 0.2, "per_device_eval_batch_size": 8, "eval_steps": 2}
    _fail(monkeypatch, lambda t, rows: not t.model.training and rows > 4, "cuda")  # type: ignore[union-attr]
    # When it is run
    result, told = fine_tune(tmp_path / "run", **options)
    # Then it ends, from the step before the evaluation on, evaluated
    assert result["global_step"] == STEPS
    assert told.checkpoints[0] == 2
    assert [row["step"] for row in told.rows if "eval_loss" in row][-1] == STEPS


def test_a_single_row_that_does_not_fit_ends_the_run(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given memory for nothing from the third step on
    _fail(monkeypatch, lambda trainer, rows: trainer.state.global_step >= 2, "cuda")
    # Then the run ends with advice, and what was trained is kept
    with pytest.raises(UserError, match="single row") as caught:
        fine_tune(tmp_path / "run", **options)
    assert "--max_length" in str(caught.value)
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_other_errors_are_not_taken_for_it(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts(self: SwiftTrainer, model: nn.Module, inputs: dict[str, Any]) -> LossParts:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(SwiftTrainer, "_parts", parts)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fine_tune(tmp_path / "run", **options)


def test_errors_are_told_apart() -> None:
    assert all(is_out_of_memory(make()) for make in ERRORS.values())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    outer = ValueError("outer")
    outer.__cause__ = MemoryError()
    assert is_out_of_memory(outer)
    assert not is_out_of_memory(RuntimeError("expected scalar type Float"))
    assert not is_out_of_memory(OSError(28, "No space left on device"))


@pytest.mark.parametrize(
    ("before", "after"),
    [((8, 1), (4, 2)), ((6, 2), (3, 4)), ((9, 1), (3, 3)), ((7, 2), (1, 14)), ((2, 8), (1, 16))],
)
def test_batches_shrink_and_steps_do_not(before: tuple[int, int], after: tuple[int, int]) -> None:
    smaller = smaller_batches(BatchPlan(*before))
    assert smaller == BatchPlan(*after)
    assert smaller.rows_per_step == BatchPlan(*before).rows_per_step


def test_a_plan_is_remembered_only_for_the_same_steps(tmp_path: Path) -> None:
    values = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    (tmp_path / "args.json").write_text(json.dumps(values), encoding="utf-8")
    assert remembered_plan(BatchPlan(8, 2), tmp_path) == BatchPlan(2, 8)
    assert remembered_plan(BatchPlan(8, 4), tmp_path) == BatchPlan(8, 4)
    assert remembered_plan(BatchPlan(1, 16), tmp_path) == BatchPlan(1, 16)
    assert remembered_plan(BatchPlan(8, 2), None) == BatchPlan(8, 2)


LIMITED = """
import sys
from pathlib import Path
from training_jobs import RememberingReporter
from swift_jupyter.engine.training import host_memory
from swift_jupyter.engine.training.sft import train
from swift_jupyter.settings import Settings

# What the machine has left, were it a small one.
growth = int(sys.argv[4]) * 2**20
host_memory.available_memory = lambda: growth + host_memory._RESERVE
folder = Path(sys.argv[3])
folder.mkdir()
reporter = RememberingReporter(folder)
result = train(
    {
        "model": sys.argv[1], "dataset": [sys.argv[2]], "tuner_type": "full",
        "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
        "max_steps": 1, "logging_steps": 1, "num_threads": 1, "attn_impl": "eager",
    },
    folder, Settings(), reporter,
)
print("STEPS", result["global_step"])
print("NOTICES", reporter.notices)
print("LOSSES", reporter.losses)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process so")
def test_a_real_limit_of_the_host_is_survived(tmp_path: Path) -> None:
    # Given long rows, 16 of which need far more than the machine has left
    model = build_tiny_model(tmp_path / "model", positions=1024)
    rows = tmp_path / "rows.jsonl"
    row = json.dumps({"query": "Say it. " * 60, "response": "It. " * 40})
    rows.write_text("\n".join([row] * 16) + "\n", encoding="utf-8")
    # When they are trained on in a process of its own
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(model), str(rows), str(tmp_path / "run"), "200"],
        capture_output=True,
        text=True,
        timeout=200,
        env=_environment(),
        check=False,
    )
    # Then it gets through with smaller batches
    assert done.returncode == 0, done.stderr[-3000:]
    assert "STEPS 1" in done.stdout
    assert "Out of memory in step 1" in done.stdout


def test_a_container_with_less_than_the_host_counts(tmp_path: Path) -> None:
    # Given a container that has used all but 5 MiB of its memory
    (tmp_path / "memory.max").write_text(str(100 * 2**20))
    (tmp_path / "memory.current").write_text(str(95 * 2**20))
    assert available_memory(tmp_path) == 5 * 2**20
    # Cached files are not used up
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 2097152\nactive_file 1048576\n")
    assert available_memory(tmp_path) == 8 * 2**20
    # And one without a limit, and none at all
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 5 * 2**20
    assert available_memory(tmp_path / "absent") > 5 * 2**20


def _environment() -> dict[str, str]:
    import os

    paths = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
