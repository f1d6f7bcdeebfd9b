"""LISA: which layers it finds, freezes and trains, and that they depend on step and seed only."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from swift_jupyter.engine.training.lisa import LisaCallback, active_layers
from swift_jupyter.engine.training.optimizers.options import LisaOptions
from swift_jupyter.engine.training.tuners.layers import decoder_layers
from swift_jupyter.errors import UserError

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _llava(vision_layers: int) -> LlavaConfig:
    vision = CLIPVisionConfig(
        num_hidden_layers=vision_layers,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
    )
    text = LlamaConfig(num_hidden_layers=3, **SMALL)
    return LlavaConfig(text_config=text.to_dict(), vision_config=vision.to_dict())


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=40), "transformer.h"),
        (LlamaConfig(num_hidden_layers=3, **SMALL), "model.layers"),
        (Qwen2Config(num_hidden_layers=3, **SMALL), "model.layers"),
        (GPTNeoXConfig(num_hidden_layers=3, **SMALL), "gpt_neox.layers"),
        (MixtralConfig(num_hidden_layers=3, num_local_experts=3, **SMALL), "model.layers"),
        (_llava(vision_layers=3), "model.language_model.layers"),
        (_llava(vision_layers=9), "model.language_model.layers"),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_decoder_layers_are_found(config: PreTrainedConfig, path: str) -> None:
    kind = AutoModelForImageTextToText if config.model_type == "llava" else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    found, layers = decoder_layers(model)
    assert (found, len(layers)) == (path, 3)


class _Nest(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(count)])


class _ForeignModel(PreTrainedModel):
    """A model with code of its own, nested as ChatGLM is."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.transformer = nn.Module()
        self.transformer.encoder = _Nest(5)
        self.transformer.vision = _Nest(9)


@pytest.mark.parametrize("known", [{"num_layers": 5}, {}])
def test_layers_of_models_with_other_words_are_found(known: dict[str, int]) -> None:
    path, _layers = decoder_layers(_ForeignModel(PreTrainedConfig(**known)))
    assert path == "transformer.encoder.layers"


def test_the_draw_depends_on_seed_and_period_only() -> None:
    # Given whatever state the global generators are in
    first = [active_layers(8, 2, 42, period) for period in range(50)]
    random.seed(1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    # Then the draw is the same, and leaves them as they are
    assert [active_layers(8, 2, 42, period) for period in range(50)] == first
    assert torch.equal(before, torch.get_rng_state())
    # And seeds differ, and every layer has its turn
    assert [active_layers(8, 2, 43, period) for period in range(50)] != first
    assert {layer for drawn in first for layer in drawn} == set(range(8))
    assert all(len(set(drawn)) == 2 for drawn in first)


def _model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, tie_word_embeddings=False, **SMALL))


class _Loop:
    """Calls a callback as the Trainer does, around real steps."""

    def __init__(self, model: LlamaForCausalLM, options: LisaOptions, folder: Any) -> None:
        self.model = model
        self.lisa = LisaCallback(model, options, seed=0)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        self.state = TrainerState()
        self.fixed = (TrainingArguments(output_dir=str(folder)), self.state, TrainerControl())
        self.lisa.on_train_begin(*self.fixed, optimizer=self.optimizer)

    def step(self) -> None:
        self.lisa.on_step_begin(*self.fixed, optimizer=self.optimizer)
        tokens = torch.arange(20).view(2, 10)
        self.model(input_ids=tokens, labels=tokens).loss.backward()
        self.with_gradient = {n for n, p in self.model.named_parameters() if p.grad is not None}
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.state.global_step += 1

    def layers_with(self, names: set[str]) -> set[int]:
        return {int(name.split(".")[2]) for name in names if name.startswith("model.layers.")}

    def with_state(self) -> set[str]:
        return {n for n, p in self.model.named_parameters() if p in self.optimizer.state}


def test_only_the_active_layers_have_gradients_and_state(tmp_path: Any) -> None:
    # Given four layers of which one is trained, another every two steps
    options = LisaOptions(lisa_activated_layers=1, lisa_step_interval=2)
    loop = _Loop(_model(), options, tmp_path)
    first = {n: p.detach().clone() for n, p in loop.model.named_parameters()}
    drawn = [set(active_layers(4, 1, 0, period)) for period in range(6)]
    assert len(set.union(*drawn)) > 2
    for step in range(12):
        before = {n: p.detach().clone() for n, p in loop.model.named_parameters()}
        loop.step()
        moved = {n for n, p in loop.model.named_parameters() if not torch.equal(p, before[n])}
        # Then at every step the drawn layer, and no other, has gradients, moves and has state
        assert loop.layers_with(loop.with_gradient) == drawn[step // 2]
        assert loop.layers_with(moved) == drawn[step // 2]
        assert loop.layers_with(loop.with_state()) == drawn[step // 2]
        # As have the ends, all the time
        assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= moved
    # And layers that were drawn later were trained, the others not
    moved = {n for n, p in loop.model.named_parameters() if not torch.equal(p, first[n])}
    assert loop.layers_with(moved) == set.union(*drawn)
    loop.lisa.on_train_end(*loop.fixed)
    assert all(p.requires_grad for p in loop.model.parameters())


def test_the_ends_can_rest(tmp_path: Any) -> None:
    options = LisaOptions(
        lisa_activated_layers=2, lisa_step_interval=2, lisa_train_embeddings=False
    )
    loop = _Loop(_model(), options, tmp_path)
    loop.step()
    assert not {"model.embed_tokens.weight", "lm_head.weight"} & loop.with_gradient
    assert not {"model.embed_tokens.weight", "lm_head.weight"} & loop.with_state()


def test_the_state_is_a_fraction_of_full_trainings(tmp_path: Any) -> None:
    # Given one of four layers, without the ends
    options = LisaOptions(
        lisa_activated_layers=1, lisa_step_interval=1, lisa_train_embeddings=False
    )
    loop = _Loop(_model(), options, tmp_path)
    # When every layer had its turn
    largest = 0
    for _step in range(8):
        loop.step()
        state = [v for kept in loop.optimizer.state.values() for v in kept.values()]
        largest = max(largest, sum(value.nbytes for value in state))
    # Then there never was more than one layer's state, and the last norm's
    layer = sum(p.numel() for p in loop.model.model.layers[0].parameters())
    steps = 4 * sum(1 for _ in loop.model.model.layers[0].parameters()) + 4
    assert largest == 2 * 4 * (layer + 16) + steps


def test_what_the_tuner_froze_stays_frozen(tmp_path: Any) -> None:
    model = _model()
    model.model.layers[1].requires_grad_(False)
    loop = _Loop(model, LisaOptions(lisa_activated_layers=4, lisa_step_interval=1), tmp_path)
    loop.step()
    assert loop.layers_with(loop.with_gradient) == {0, 2, 3}


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(UserError, match="lisa_activated_layers cannot be 5"):
        LisaCallback(_model(), LisaOptions(lisa_activated_layers=5), seed=0)
