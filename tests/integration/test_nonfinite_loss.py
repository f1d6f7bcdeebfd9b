"""Losses that are no numbers: the run stops before they reach a weight, and says where."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import build_tiny_model, write_rows
from torch import nn
from training_jobs import fine_tune

from swift_jupyter.engine.training.loss import LossParts
from swift_jupyter.engine.training.trainer import SwiftTrainer
from swift_jupyter.errors import UserError

POISON = "Poisoned row."


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """A run over 24 rows, of which the sixth has a mark in its question."""
    rows = write_rows(tmp_path / "rows.jsonl", 24)
    lines = rows.read_text(encoding="utf-8").splitlines()
    lines[5] = json.dumps({"query": POISON, "response": "No."})
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "model": str(build_tiny_model(tmp_path / "model")),
        "dataset": [str(rows)],
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_steps": 9,
        "logging_steps": 1,
        "save_steps": 100,
        "num_threads": 1,
    }


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the loss of every batch with the marked row NaN, gradients included.

    A model that overflows at one row would do the same; how it does is not the point.
    """
    original = SwiftTrainer._parts

    def parts(self: SwiftTrainer, model: nn.Module, inputs: dict[str, Any]) -> LossParts:
        tokenizer: Any = self.processing_class
        texts = tokenizer.batch_decode(inputs["input_ids"])
        found = original(self, model, inputs)
        if not any(POISON in text for text in texts):
            return found
        return LossParts(found.total * math.nan, found.tokens, found.correct)

    monkeypatch.setattr(SwiftTrainer, "_parts", parts)


def _finite(folder: Path) -> bool:
    weights = load_file(folder / "adapter_model.safetensors")
    return all(bool(weight.isfinite().all()) for weight in weights.values())


@pytest.mark.usefixtures("poisoned")
def test_the_run_stops_with_the_batch_saved(options: dict[str, Any], tmp_path: Path) -> None:
    # Given a row whose loss is no number, when the run comes to it
    with pytest.raises(UserError) as caught:
        fine_tune(tmp_path / "run", **options)
    # Then the error names step, row and file
    message = str(caught.value)
    (saved,) = (tmp_path / "run").glob("nan-batch-*.jsonl")
    step = int(saved.stem.rpartition("-")[2])
    assert f"The loss is nan at step {step}." in message
    assert "rows.jsonl, line 6" in message
    assert str(saved) in message
    assert "--on_nan continue" in message
    # And what was trained before is kept
    kept = tmp_path / "run" / f"checkpoint-{step - 1}"
    assert kept.is_dir() == (step > 1)
    assert step == 1 or _finite(kept)
    # And the file has the batch: all its rows, with text, tokens, labels and losses
    records = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    assert len(records) == 4
    (guilty,) = [record for record in records if record["loss"] == "nan"]
    assert POISON in guilty["text"]
    assert guilty["trained_text"].startswith("No.")
    assert len(guilty["input_ids"]) == len(guilty["labels"])
    assert guilty["origins"] == [f"{options['dataset'][0]}, line 6"]
    assert all(math.isfinite(r["loss"]) and r["origins"] for r in records if r is not guilty)


@pytest.mark.usefixtures("poisoned")
def test_the_batch_can_be_left_out(options: dict[str, Any], tmp_path: Path) -> None:
    # Given the same rows and a user who wants to go on
    result, told = fine_tune(tmp_path / "run", **options, on_nan="continue")
    # Then all steps are made, the user is told once in three epochs, and weights are numbers
    assert result["global_step"] == 9
    assert len([notice for notice in told.notices if "The loss is nan" in notice]) == 1
    assert len(list((tmp_path / "run").glob("nan-batch-*.jsonl"))) == 1
    assert _finite(tmp_path / "run" / "checkpoint-9")
    assert all(math.isfinite(loss) for loss in told.losses)


class _BrokenBackward(torch.autograd.Function):
    """Passes values on, and gradients as infinities."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * math.inf


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"tuner_type": "full", "use_galore": True, "galore_optim_per_parameter": True},
    ],
    ids=["lora", "galore_per_parameter"],
)
@pytest.mark.parametrize("on_nan", ["stop", "continue"])
def test_gradients_that_are_no_numbers_reach_no_weight(
    method: dict[str, Any],
    on_nan: str,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a loss that is a number while its gradient is none, in the third step
    original = SwiftTrainer._parts

    def parts(self: SwiftTrainer, model: nn.Module, inputs: dict[str, Any]) -> LossParts:
        found = original(self, model, inputs)
        if self.state.global_step != 2:
            return found
        return LossParts(_BrokenBackward.apply(found.total), found.tokens, found.correct)

    monkeypatch.setattr(SwiftTrainer, "_parts", parts)
    options = {**options, **method, "on_nan": on_nan, "max_steps": 5}
    # When the run comes to it
    if on_nan == "stop":
        with pytest.raises(UserError, match=r"The gradient is (nan|inf) at step 3"):
            fine_tune(tmp_path / "run", **options)
        # Then the rows of the whole step are saved
        saved = tmp_path / "run" / "nan-batch-3.jsonl"
        assert len(saved.read_text(encoding="utf-8").splitlines()) == 8
        return
    # Or goes on, and the step changes nothing
    _result, told = fine_tune(tmp_path / "run", **options)
    assert len(told.losses) == 5
    assert all(math.isfinite(loss) for loss in told.losses)
    checkpoint = tmp_path / "run" / "checkpoint-5"
    name = "model.safetensors" if method else "adapter_model.safetensors"
    assert all(bool(w.isfinite().all()) for w in load_file(checkpoint / name).values())


def test_weights_that_are_no_numbers_are_named(options: dict[str, Any], tmp_path: Path) -> None:
    # Given a model that is broken from the start
    from safetensors.torch import save_file

    path = Path(options["model"], "model.safetensors")
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    # Then the error says so
    with pytest.raises(UserError, match="The weights are not finite themselves") as caught:
        fine_tune(tmp_path / "run", **options)
    assert "layers.1.mlp.up_proj" in str(caught.value)
