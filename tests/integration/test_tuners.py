"""Every tuner: it learns, moves what it names and nothing else, is saved, loaded and merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build_tiny_model
from transformers import AutoModelForCausalLM
from tuning import SMALL, fit, logits, loss_of, prepare

from swift_jupyter.engine.export.merge import check_mergeable
from swift_jupyter.engine.inference.adapter_stack import AdapterStack
from swift_jupyter.engine.inference.adapters import load_adapter, locate_adapter, unwrap
from swift_jupyter.engine.training.job import SftJob
from swift_jupyter.engine.training.tuners.names import TUNER_TYPES, WHOLE_MODEL_TUNERS
from swift_jupyter.engine.training.tuners.peft_tuners import PEFT_TUNERS
from swift_jupyter.engine.training.tuners.registry import build_tuner
from swift_jupyter.errors import UserError

ADAPTERS = [name for name in TUNER_TYPES if name not in WHOLE_MODEL_TUNERS]
# They begin with small steps.
RATES = {
    **dict.fromkeys(("ia3", "unilora", "vera", "pvera", "beft"), 0.1),
    **dict.fromkeys(("cpt", "llama_adapter", "prompt_tuning"), 0.5),
}
# Parameters that nothing reads at this place: the shadow behind the last layer, and a
# bias's scale where there is no bias.
IDLE = {"shadow": "layers.1.shadow_update_", "glora": "glora_D"}
# What treats biases, or knows architectures, in ways of its own.
ON_QWEN = (
    "lora", "full", "freeze", "reft", "dora", "pissa", "adalora", "vera", "ia3", "boft", "beft",
    "llama_adapter", "ln_tuning", "prefix_tuning", "prompt_tuning", "shadow",
)  # fmt: skip
# peft knows it for Llama, Mistral and GPT-2 only.
ONLY_LLAMA = ("llama_adapter",)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tuners") / "llama")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tuners") / "qwen", family="qwen2")


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def job(tuner_type: str, **options: Any) -> SftJob:
    chosen = {"lora_dropout": 0.0, "num_virtual_tokens": 4, **SMALL.get(tuner_type, {}), **options}
    return SftJob(tuner_type=tuner_type, **chosen)


def tuner_of(tuner_type: str, **options: Any) -> Any:
    return build_tuner(job(tuner_type, **options), total_steps=6)


def need_package(tuner_type: str) -> None:
    kind = PEFT_TUNERS.get(tuner_type)
    if kind is not None and kind.package:
        pytest.importorskip(kind.package)


@pytest.mark.parametrize(
    ("tuner_type", "family"),
    [*((name, "llama") for name in TUNER_TYPES), *((name, "qwen") for name in ON_QWEN)],
)
def test_learns_and_moves_only_what_it_names(
    tuner_type: str, family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    need_package(tuner_type)
    base = request.getfixturevalue(family)
    # Given a model, prepared
    model = load(base)
    tuner = tuner_of(tuner_type)
    own = {id(parameter) for parameter in model.parameters()}
    if family == "qwen" and tuner_type in ONLY_LLAMA:
        with pytest.raises(UserError, match="cannot be applied"):
            prepare(model, tuner)
        return
    prepared = prepare(model, tuner)
    start = {name: p.detach().clone() for name, p in prepared.named_parameters()}
    loss = loss_of(prepared, tuner)
    # When it is trained
    fit(prepared, tuner, rate=RATES.get(tuner_type, 0.02))
    # Then the loss has fallen
    assert loss_of(prepared, tuner) < loss - 0.003
    # And what is frozen is as it was, bit by bit, while the rest has moved
    trained = {name for name, p in prepared.named_parameters() if p.requires_grad}
    moved = {n for n, p in prepared.named_parameters() if not torch.equal(p, start[n])}
    assert moved <= trained
    idle = IDLE.get(tuner_type)
    assert {name for name in trained - moved if not idle or idle not in name} == set()
    # And only training of the weights themselves touches the model's own
    touched = {n for n, p in prepared.named_parameters() if n in trained and id(p) in own}
    assert bool(touched) == (tuner_type in WHOLE_MODEL_TUNERS)


@pytest.mark.parametrize("tuner_type", ADAPTERS)
def test_is_saved_loaded_taken_off_and_merged(tuner_type: str, llama: Path, tmp_path: Path) -> None:
    need_package(tuner_type)
    # Given a trained adapter, saved
    tuner = tuner_of(tuner_type)
    prepared = prepare(load(llama), tuner)
    fit(prepared, tuner, rate=RATES.get(tuner_type, 0.02))
    expected = logits(prepared)
    tuner.save(prepared, tmp_path, None)
    adapter = locate_adapter(f"mine={tmp_path}")
    # When it is put on a fresh base, it says what it said in training
    base = load(llama)
    bare = logits(base)
    stack = AdapterStack(base, "base")
    stack.add(adapter)
    with stack.only("mine"):
        assert (logits(stack.model) - expected).abs().max() < 1e-5
        assert (logits(stack.model) - bare).abs().max() > 1e-4
    # And the base under it is as it was, also when it is taken off
    with stack.only(""):
        assert (logits(stack.model) - bare).abs().max() < 1e-6
    stack.remove("mine")
    assert torch.equal(logits(stack.model), bare)
    # And where a merge is defined, the merged weights say the same
    try:
        check_mergeable(adapter)
    except UserError as error:
        assert "cannot be merged" in error.what
        assert not hasattr(unwrap(stack.model), "peft_config")
        return
    wrapped = load_adapter(load(llama), adapter, "mine", "base")
    if tuner_type in ("beft",):
        return
    if tuner_type == "beft":
        with pytest.raises(ValueError, match="no bias"):
            wrapped.merge_and_unload(safe_merge=True)
        return
    merged = wrapped.merge_and_unload(safe_merge=True)
    assert (logits(merged) - expected).abs().max() < 1e-4
