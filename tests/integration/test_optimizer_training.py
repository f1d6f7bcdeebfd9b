"""GaLore, Q-GaLore, APOLLO and LISA through a whole fine-tuning: learning, memory, resume."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import build_tiny_model, write_rows
from training_jobs import fine_tune
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift_jupyter.engine.training.lisa import active_layers
from swift_jupyter.engine.training.optimizers.int8_linear import WEIGHT
from swift_jupyter.errors import UserError

LAYERS, STEPS = 4, 10
GALORE = {"use_galore": True, "galore_rank": 16, "galore_update_proj_gap": 3}
METHODS: dict[str, dict[str, Any]] = {
    "adamw": {"optim": "adamw_torch"},
    "galore": GALORE,
    "galore_full": {**GALORE, "galore_proj_type": "full", "galore_with_embedding": True},
    "galore_per_parameter": {
        **GALORE,
        "galore_optim_per_parameter": True,
        "gradient_accumulation_steps": 2,
    },
    "q_galore": {**GALORE, "galore_quantization": True, "galore_queue_size": 1},
    "apollo": {"optim": "apollo", "apollo_rank": 16, "apollo_update_proj_gap": 3},
    "apollo_mini": {"optim": "apollo_mini", "apollo_update_proj_gap": 3},
    "lisa": {"lisa_activated_layers": 1, "lisa_step_interval": 3},
    "lisa_without_ends": {
        "lisa_activated_layers": 2,
        "lisa_step_interval": 2,
        "lisa_train_embeddings": False,
        "gradient_checkpointing": True,
    },
}
# What is kept of AdamW's state, over the projected or trained weights: at most so much.
SHARES = {
    "galore": 0.40,
    "galore_per_parameter": 0.40,
    "q_galore": 0.32,  # Weights this small keep moments of 32 bits.
    "apollo": 0.30,
    "apollo_mini": 0.03,
    "lisa": 0.26,
    "lisa_without_ends": 0.51,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model of four layers, rows, and options that fit both."""
    root = tmp_path_factory.mktemp("inputs")
    model = build_tiny_model(root / "model", hidden=64, layers=LAYERS)
    return {
        "model": str(model),
        "dataset": [str(write_rows(root / "rows.jsonl", 48))],
        "tuner_type": "full",
        "max_steps": STEPS,
        "logging_steps": 1,
        "learning_rate": 3e-3,
        "save_steps": 4,
        "num_threads": 1,
    }


def _state(checkpoint: Path) -> dict[int, dict[str, Any]]:
    loaded = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    state: dict[int, dict[str, Any]] = loaded["state"]
    return state


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for key, item in value.items() if key != WEIGHT for t in _tensors(item)]
    if isinstance(value, list):
        return [t for item in value for t in _tensors(item)]
    return []


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _layer_bytes(checkpoint: Path) -> int:
    """Bytes of the optimizer's state of the layers' matrices, or of all that was trained."""
    saved = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    groups = [group for group in saved["param_groups"] if "rank" in group]
    numbers = {n for group in groups or saved["param_groups"] for n in group["params"]}
    states = [state for number, state in saved["state"].items() if number in numbers]
    matrices = [s for s in states if groups or max(t.ndim for t in _tensors(s)) == 2]
    return sum(tensor.nbytes for tensor in _tensors(matrices))


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_saves_and_resumes_exactly(
    method: str, inputs: dict[str, Any], tmp_path: Path
) -> None:
    # Given a run of ten steps
    options = {**inputs, **METHODS[method]}
    result, told = fine_tune(tmp_path / "whole", **options)
    # Then it learned
    losses = told.losses
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] - 0.15
    # And weights moved: each that the method trains, and no other
    before = load_file(Path(inputs["model"], "model.safetensors"))
    last = tmp_path / "whole" / f"checkpoint-{STEPS}"
    after = load_file(last / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(before) - _resting(method, options, set(before))
    # And the checkpoint is a model like any other
    model = AutoModelForCausalLM.from_pretrained(last)
    tokens = AutoTokenizer.from_pretrained(last)("Hello", return_tensors="pt")
    assert bool(model(**tokens).logits.isfinite().all())
    # And the state is as small as the method promises
    if method in SHARES:
        adamw = 2 * 4 * sum(v.numel() for n, v in before.items() if _is_matrix(n))
        share = _layer_bytes(last) / adamw
        if method == "lisa":  # Its ends are trained all the time.
            ends = 2 * 4 * before["model.embed_tokens.weight"].numel()
            share = (_layer_bytes(last) - ends) / adamw
        print(f"{method:22s} {share:7.1%} of AdamW's state")
        assert 0 < share < SHARES[method]
    # When a run of the same goes on from an earlier checkpoint
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", resumed / "checkpoint-4")
    _again, heard = fine_tune(resumed, **options)
    # Then curve, weights and optimizer are equal to the last bit
    assert heard.losses == losses[4:]
    twin = resumed / f"checkpoint-{STEPS}"
    assert _equal(load_file(twin / "model.safetensors"), after)
    assert _equal(_state(twin), _state(last))
    assert result["global_step"] == STEPS


def _is_matrix(name: str) -> bool:
    return "_proj." in name


def _resting(method: str, options: dict[str, Any], names: set[str]) -> set[str]:
    if not method.startswith("lisa"):
        return set()
    periods = range(-(-STEPS // options["lisa_step_interval"]))
    count = options["lisa_activated_layers"]
    drawn = {n for period in periods for n in active_layers(LAYERS, count, 42, period)}
    assert drawn > set(active_layers(LAYERS, count, 42, 0))
    resting = {
        name
        for name in names
        if name.startswith("model.layers.") and int(name.split(".")[2]) not in drawn
    }
    return resting | ({"model.embed_tokens.weight"} if method == "lisa_without_ends" else set())


def test_q_galore_keeps_weights_in_8_bits_and_widens_intervals(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    # Given a run whose threshold every projection reaches
    options = {**inputs, **METHODS["q_galore"], "galore_cos_threshold": 0.0}
    _result, told = fine_tune(tmp_path, **options)
    # Then projected weights are in 8 bits, projections in 4, and intervals doubled
    states = [s for s in _state(tmp_path / f"checkpoint-{STEPS}").values() if WEIGHT in s]
    assert len(states) == LAYERS * 7
    for state in states:
        assert state[WEIGHT]["codes"].dtype == torch.uint8
        assert state["axes"][0]["codes"].numel() <= 64 * 16 // 2 + 128
        assert state["gap"] == 12  # Found anew in steps 0, 3 and 9.
    # And the user was told what becomes of clipping
    assert any("max_grad_norm" in notice for notice in told.notices)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_galore": True, "tuner_type": "lora"}, "needs --tuner_type full"),
        ({"optim": "apollo", "tuner_type": "lora"}, "APOLLO needs"),
        ({"lisa_activated_layers": 2, "tuner_type": "lora"}, "LISA needs"),
        ({"lisa_activated_layers": 2, "use_galore": True}, "exclude each other"),
        ({"optim": "apollo", "use_galore": True}, "exclude each other"),
        ({"galore_quantization": True}, "--use_galore true"),
        ({"use_galore": True, "galore_target_modules": ["q_prj"]}, "q_proj"),
        ({"use_galore": True, "galore_proj_bits": 5}, "4 or 8"),
        ({"lisa_activated_layers": 9}, "has 4 layers"),
        ({"lisa_step_interval": 0, "lisa_activated_layers": 1}, "at least 1"),
        ({"galore_rank": 0, "use_galore": True}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], words: str, inputs: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        fine_tune(tmp_path, **{**inputs, **options})
    assert words in str(caught.value)
    assert len(caught.value.lines) <= 3


def test_only_named_modules_are_projected(inputs: dict[str, Any], tmp_path: Path) -> None:
    options = {**inputs, **GALORE, "galore_target_modules": ["q_proj", "mlp.up_proj"]}
    fine_tune(tmp_path, **{**options, "max_steps": 1})
    states = _state(tmp_path / "checkpoint-1").values()
    assert sum("axes" in state for state in states) == 2 * LAYERS
