"""A run that goes on from a checkpoint ends as the one that nobody disturbed, with every tuner."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import build_tiny_model, write_rows
from tuning import SMALL, ListReporter

from swift_jupyter.engine.training.sft import train
from swift_jupyter.errors import OptionError
from swift_jupyter.settings import Settings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    build_tiny_model(folder / "model")
    # Four-bit kernels want wider rows.
    build_tiny_model(folder / "wide", hidden=128)
    write_rows(folder / "rows.jsonl", 16)
    return folder


def run(place: Path, folder: Path, **options: Any) -> tuple[dict[str, Any], ListReporter]:
    folder.mkdir(parents=True, exist_ok=True)
    reporter = ListReporter()
    values = {
        "model": str(place / "model"),
        "dataset": [str(place / "rows.jsonl")],
        "split_dataset_ratio": 0.2,
        "max_steps": 6,
        "save_steps": 3,
        "eval_steps": 2,
        "logging_steps": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 5e-3,
        "num_threads": 1,
        "num_virtual_tokens": 4,
        **options,
    }
    return train(values, folder, Settings(), reporter), reporter


def assert_resumes(place: Path, folder: Path, **options: Any) -> dict[str, Any]:
    # Given a run that nobody disturbed
    result, whole = run(place, folder / "whole", **options)
    last = folder / "whole" / "checkpoint-6"
    # And one of which only the third step is left
    half = folder / "half"
    shutil.copytree(folder / "whole" / "checkpoint-3", half / "checkpoint-3")
    # When it goes on
    _result, rest = run(place, half, **options)
    # Then every loss and every number saved is the same, bit by bit
    assert rest.losses() == {step: loss for step, loss in whole.losses().items() if step > 3}
    assert rest.losses("eval_loss")[6] == whole.losses("eval_loss")[6]
    files = list(last.glob("*.safetensors"))
    assert files
    for file in files:
        one, other = load_file(file), load_file(half / "checkpoint-6" / file.name)
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    return result


# One of each way to keep what is trained; the others save as LoRA does.
DISTINCT = (
    "lora", "full", "freeze", "reft", "dora", "lora+", "pissa", "adalora", "vera", "boft",
    "p_tuning", "prompt_tuning", "cpt", "llama_adapter", "osf", "shira", "vblora",
)  # fmt: skip


@pytest.mark.parametrize("tuner_type", DISTINCT)
def test_resumed_run_is_the_undisturbed_one(tuner_type: str, place: Path, tmp_path: Path) -> None:
    result = assert_resumes(place, tmp_path, tuner_type=tuner_type, **SMALL.get(tuner_type, {}))
    # And the run knows how much it trains
    assert 0 < result["trainable_parameters"] <= result["parameters"]
    assert (result["trainable_parameters"] == result["parameters"]) == (tuner_type == "full")


def test_wrong_tuner_args_are_answered_before_anything_is_read(place: Path, tmp_path: Path) -> None:
    options = {"tuner_type": "lokr", "tuner_args": {"decompose_bath": "true"}}
    with pytest.raises(OptionError, match="decompose_bath") as error:
        run(place, tmp_path, dataset=[str(place / "absent.jsonl")], **options)
    assert "decompose_both" in error.value.why


def test_optimizer_of_lora_plus_has_two_rates(place: Path, tmp_path: Path) -> None:
    options = {"lr_scheduler_type": "constant", "learning_rate": 1e-3}
    run(place, tmp_path, tuner_type="lora+", lorap_lr_ratio=4.0, max_steps=1, **options)
    state = torch.load(tmp_path / "checkpoint-1" / "optimizer.pt", weights_only=True)
    rates = [group["lr"] for group in state["param_groups"] for _each in group["params"]]
    assert sorted(set(rates)) == [1e-3, 4e-3]
    assert rates.count(1e-3) == rates.count(4e-3)


@pytest.mark.parametrize("tuner_type", ["lora", "full", "reft"])
def test_resumed_run_with_checkpointing(tuner_type: str, place: Path, tmp_path: Path) -> None:
    assert_resumes(place, tmp_path, tuner_type=tuner_type, gradient_checkpointing=True)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("tuner_type", ["lora", "reft"])
def test_resumed_run_on_few_bits(tuner_type: str, bits: int, place: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    assert_resumes(
        place,
        tmp_path,
        model=str(place / "wide"),
        tuner_type=tuner_type,
        quant_method="bnb",
        quant_bits=bits,
    )
