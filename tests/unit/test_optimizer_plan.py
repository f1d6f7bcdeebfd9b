"""When weights are updated, and which of them are projected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
)

from swift_jupyter.engine.training.optimizers.build import (
    plan_optimizer,
    projected_names,
    quantize_layers,
)
from swift_jupyter.engine.training.optimizers.options import OptimizerOptions
from swift_jupyter.errors import UserError

GALORE = OptimizerOptions(use_galore=True)
Q_GALORE = OptimizerOptions(use_galore=True, galore_quantization=True)


def _arguments(**values: Any) -> Any:
    """Return what `plan_optimizer` reads; a world of two cannot be had in one process."""
    usual = {
        "gradient_accumulation_steps": 1,
        "max_grad_norm": 1.0,
        "world_size": 1,
        "deepspeed": None,
        "fsdp": None,
        "fp16": False,
    }
    return SimpleNamespace(**{**usual, **values})


@pytest.mark.parametrize(
    ("options", "passes", "per_parameter", "notices"),
    [
        (GALORE, 1, False, 0),
        (GALORE, 4, False, 0),
        (Q_GALORE, 1, True, 1),
        (Q_GALORE, 4, False, 1),
        (OptimizerOptions(use_galore=True, galore_optim_per_parameter=True), 4, True, 2),
        (OptimizerOptions(optim="apollo"), 1, False, 0),
    ],
)
def test_when_weights_are_updated(
    options: OptimizerOptions, passes: int, per_parameter: bool, notices: int
) -> None:
    arguments = _arguments(gradient_accumulation_steps=passes)
    plan = plan_optimizer(options, arguments, torch.float32)
    assert (plan.per_parameter, len(plan.notices)) == (per_parameter, notices)


@pytest.mark.parametrize(
    ("options", "values", "words"),
    [
        (Q_GALORE, {"world_size": 2}, "galore_quantization works in one process"),
        (
            OptimizerOptions(use_galore=True, galore_optim_per_parameter=True),
            {"world_size": 2},
            "galore_optim_per_parameter works in one process",
        ),
        (
            OptimizerOptions(use_galore=True, galore_optim_per_parameter=True),
            {"fp16": True},
            "does not work with float16",
        ),
        (GALORE, {"deepspeed": "zero2.json"}, "GaLore does not work with DeepSpeed"),
    ],
)
def test_what_cannot_work_is_refused(
    options: OptimizerOptions, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        plan_optimizer(options, _arguments(**values), torch.float32)


def test_scaled_gradients_are_not_used_in_backward() -> None:
    assert not plan_optimizer(Q_GALORE, _arguments(fp16=True), torch.float32).per_parameter


def test_float16_is_refused() -> None:
    with pytest.raises(UserError, match="float16"):
        plan_optimizer(GALORE, _arguments(), torch.float16)


def _model(config: PreTrainedConfig) -> Any:
    return AutoModelForCausalLM.from_config(config)


SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 40,
    "num_hidden_layers": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def test_all_linear_layers_but_the_output_are_projected() -> None:
    model = _model(LlamaConfig(tie_word_embeddings=False, **SMALL))
    names = projected_names(model, [])
    assert len(names) == 2 * 7
    assert all(name.startswith("model.layers.") for name in names)
    more = projected_names(model, [], with_embedding=True)
    assert more - names == {"model.embed_tokens.weight", "lm_head.weight"}


def test_a_tied_output_is_told_once() -> None:
    model = _model(LlamaConfig(tie_word_embeddings=True, **SMALL))
    more = projected_names(model, [], with_embedding=True) - projected_names(model, [])
    assert more == {"model.embed_tokens.weight"}


def test_frozen_layers_do_not_count() -> None:
    model = _model(LlamaConfig(**SMALL))
    model.model.layers[0].requires_grad_(False)
    assert len(projected_names(model, [])) == 7
    model.requires_grad_(False)
    with pytest.raises(UserError, match="no weights that could be projected"):
        projected_names(model, [])


def test_names_that_no_layer_has_are_answered_with_those_there_are() -> None:
    model = _model(LlamaConfig(**SMALL))
    with pytest.raises(UserError, match="q_proj"):
        projected_names(model, ["q_prj"])
    with pytest.raises(UserError, match="There are down_proj"):
        projected_names(model, ["xyzzy"])


def test_layers_of_gpt2_are_projected_and_quantised() -> None:
    # Given GPT-2, whose layers are transposed
    model = _model(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=40)).eval()
    names = projected_names(model, [])
    assert len(names) == 2 * 4
    tokens = torch.arange(10)[None]
    before = model(tokens).logits
    # When they are quantised
    quantize_layers(model, names)
    # Then the model computes what it did, and gradients reach them
    after = model(tokens).logits
    assert torch.allclose(before, after, atol=0.02)
    after.sum().backward()
    assert all(model.get_parameter(name).grad is not None for name in names)


def test_experts_are_projected() -> None:
    # Given a mixture whose experts share one tensor
    model = _model(MixtralConfig(num_local_experts=3, **SMALL))
    names = projected_names(model, [])
    # Then they are among the projected, and quantising leaves them whole
    experts = {name for name in names if "experts" in name}
    assert len(experts) == 2 * 2
    assert all(model.get_parameter(name).ndim == 3 for name in experts)
    quantize_layers(model, names)
    assert all(type(model.get_parameter(name)) is nn.Parameter for name in experts)
