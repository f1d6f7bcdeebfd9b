"""ReFT: which hidden states it changes, and that generation sees what training saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import build_tiny_model
from transformers import AutoModelForCausalLM
from tuning import a_batch, fit, logits, loss_of, prepare

from swift_jupyter.engine.export.merge import merge
from swift_jupyter.engine.inference.adapter_stack import AdapterStack
from swift_jupyter.engine.inference.adapters import locate_adapter
from swift_jupyter.engine.training.job import SftJob
from swift_jupyter.engine.training.tuners.interventions import FORMS, Intervention
from swift_jupyter.engine.training.tuners.names import REFT_KINDS
from swift_jupyter.engine.training.tuners.positions import Positions
from swift_jupyter.engine.training.tuners.reft import ReftTuner, prompt_mask
from swift_jupyter.errors import OptionError, UserError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("reft") / "model", layers=3)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def reft(base: Path, **options: Any) -> tuple[Any, ReftTuner]:
    tuner = ReftTuner(SftJob(tuner_type="reft", **options))
    return prepare(load(base), tuner), tuner


def trained(base: Path, **options: Any) -> tuple[Any, ReftTuner]:
    model, tuner = reft(base, **options)
    fit(model, tuner, rate=0.1)
    return model, tuner


@pytest.mark.parametrize("kind", REFT_KINDS)
def test_every_kind_does_what_its_formula_says(kind: str) -> None:
    # Given an intervention and hidden states
    torch.manual_seed(0)
    change = Intervention(16, 4, FORMS[kind])
    hidden = torch.randn(2, 3, 16)
    projection = change.basis()
    # Then its rows are orthonormal where the kind says so
    orthonormal = torch.allclose(projection @ projection.T, torch.eye(4), atol=1e-5)
    assert orthonormal == (kind not in ("noreft", "nodireft"))
    # And the result is the formula's
    source = change.source(hidden) if change.source is not None else change.constant
    taken = hidden @ projection.T if kind in ("loreft", "noreft", "consreft") else 0
    expected = hidden + (source - taken) @ projection
    assert torch.allclose(change(hidden), expected, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.1, 1.0])
def test_projection_stays_orthonormal_in_training_and_under_weight_decay(
    decay: float, base: Path
) -> None:
    # Given a model in training
    model, tuner = reft(base)
    before = [change.basis().detach().clone() for change in model.interventions.values()]
    optimizer = torch.optim.AdamW(model.interventions.parameters(), lr=0.05, weight_decay=decay)
    loss = loss_of(model, tuner)
    for _step in range(8):
        batch = tuner.inputs(a_batch())
        labels = batch.pop("labels")
        model(**batch, labels=labels, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # Then the projections have moved, and their rows are still orthonormal
    for change, start in zip(model.interventions.values(), before, strict=True):
        basis = change.basis()
        assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-5)
        assert not torch.allclose(basis, start, atol=1e-3)
    assert loss_of(model, tuner) < loss - 0.01


@pytest.mark.parametrize("kind", REFT_KINDS)
def test_every_kind_learns_and_is_loaded_again(kind: str, base: Path, tmp_path: Path) -> None:
    model, tuner = reft(base, reft_intervention_type=kind, reft_positions="f2+l2")
    before = loss_of(model, tuner)
    fit(model, tuner, steps=10, rate=0.1)
    assert loss_of(model, tuner) < before - 0.01
    tuner.save(model, tmp_path, None)
    stack = AdapterStack(load(base), "base")
    stack.add(locate_adapter(f"mine={tmp_path}"))
    with stack.only("mine"):
        assert torch.equal(logits(stack.model), logits(model))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    first=st.integers(0, 5),
    last=st.integers(0, 5),
    left=st.booleans(),
)
def test_positions_are_the_prompts_ends_wherever_padding_is(
    lengths: list[int], first: int, last: int, left: bool
) -> None:
    # Given prompts of several lengths, padded on either side
    width = max(lengths) + 2
    prompt = torch.zeros(len(lengths), width, dtype=torch.bool)
    starts = [width - length if left else 0 for length in lengths]
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        prompt[row, start : start + length] = True
    # Then the mask has the first and the last tokens of each
    mask = Positions(first, last).mask(prompt)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        wanted = {*range(min(first, length)), *range(max(0, length - last), length)}
        assert {int(place) - start for place in mask[row].nonzero()} == wanted
    assert torch.equal(Positions().mask(prompt), prompt)


@pytest.mark.parametrize("text", ["", "f", "7", "f0+l0", "l3+f3", "f-1+l2", "all+l1"])
def test_positions_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="reft_positions"):
        Positions.parse(text)


def test_prompt_ends_where_the_last_answer_begins() -> None:
    ignored = -100
    labels = torch.tensor(
        [
            [ignored, ignored, ignored, 5, 6, ignored],  # One answer.
            [ignored, 5, ignored, ignored, 6, 7],  # Two answers.
            [ignored, ignored, ignored, 5, 6, 7],  # Padded on the left.
            [ignored] * 6,  # None.
        ]
    )
    attended = torch.ones_like(labels)
    attended[0, 5] = 0
    attended[2, :2] = 0
    mask = prompt_mask(labels, attended)
    assert mask.long().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
    ]


def test_only_the_prompt_is_changed_in_training(base: Path) -> None:
    # Given the hidden states behind the first layer, with and without interventions
    model, tuner = trained(base, reft_layers=["0"], reft_positions="f1+l2")
    batch = a_batch()
    states: list[Any] = []
    layer = model.get_base_model().model.layers[0]
    handle = layer.register_forward_hook(lambda _m, _a, output: states.append(output))
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        model(**inputs, prompt_mask=tuner.inputs(batch)["prompt_mask"])
        model(**inputs, prompt_mask=torch.zeros(4, 12, dtype=torch.bool))
    handle.remove()
    # Then they differ at the first and the last two tokens before the labels
    places = (states[0] != states[1]).any(dim=-1)
    assert [row.nonzero().flatten().tolist() for row in places] == [[0, 4, 5]] * 4


@pytest.mark.parametrize("positions", ["all", "f2+l3"])
def test_generation_with_a_cache_says_what_training_saw(base: Path, positions: str) -> None:
    # Given a trained model and prompts of two lengths, padded on the left
    model, _tuner = trained(base, reft_positions=positions)
    batch = a_batch(padded_left=True)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    # When it generates with a cache
    answer = model.generate(**inputs, max_new_tokens=5, do_sample=False, pad_token_id=0,
                            eos_token_id=None)  # fmt: skip
    # Then each token is the likeliest when all is read at once, as in training
    for row in range(len(answer)):
        tokens = answer[row][batch["attention_mask"][row].argmax() :].unsqueeze(0)
        prompt = torch.zeros_like(tokens, dtype=torch.bool)
        prompt[:, :-5] = True
        with torch.no_grad():
            at_once = model(tokens, prompt_mask=prompt).logits
        assert at_once[0, -6:-1].argmax(dim=-1).tolist() == tokens[0, -5:].tolist()
    # And without interventions the answers are others
    bare = load(base).generate(**inputs, max_new_tokens=5, do_sample=False, pad_token_id=0,
                               eos_token_id=None)  # fmt: skip
    assert not torch.equal(bare, answer)


def test_padding_changes_no_logits(base: Path) -> None:
    model, _tuner = trained(base, reft_positions="f2+l2")
    tokens = torch.arange(3, 12).unsqueeze(0)
    padded = torch.nn.functional.pad(tokens, (3, 0))
    attended = (torch.arange(12) >= 3).long().unsqueeze(0)
    with torch.no_grad():
        plain = model(tokens).logits
        left = model(input_ids=padded, attention_mask=attended,
                     position_ids=(attended.cumsum(1) - 1).clamp(min=0)).logits  # fmt: skip
    assert torch.allclose(plain, left[:, 3:], atol=1e-5)


def test_gradients_are_the_same_when_activations_are_computed_twice(base: Path) -> None:
    gradients = []
    for twice in (False, True):
        model, tuner = reft(base, reft_positions="f2+l2")
        model.train()
        if twice:
            model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        batch = tuner.inputs(a_batch())
        labels = batch.pop("labels")
        loss = model(**batch, labels=labels, use_cache=False).loss
        # Another pass before the backward one must not disturb what is computed again.
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients[0])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_rows_without_prompts_are_refused(base: Path) -> None:
    model, tuner = reft(base)
    batch = a_batch()
    batch["labels"] = batch["input_ids"]
    with pytest.raises(UserError, match="these rows have none"):
        for _number in range(20):
            tuner.inputs(batch)
    assert model.interventions


def test_model_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    model, tuner = reft(base)
    tuner.save(model, tmp_path / "r", None) if (tmp_path / "r").mkdir() is None else None
    other = load(build_tiny_model(tmp_path / "other", layers=2))
    bare = logits(other)
    stack = AdapterStack(other, "other")
    with pytest.raises(UserError, match="does not fit other") as error:
        stack.add(locate_adapter(str(tmp_path / "r")))
    assert "3 layers" in error.value.why
    assert torch.equal(logits(stack.model), bare)


def test_layers_are_chosen_and_merging_is_refused(base: Path, tmp_path: Path) -> None:
    # Given interventions behind two of three layers
    model, tuner = reft(base, reft_layers=["0", "-1:"], reft_rank=2)
    assert list(model.interventions) == ["0", "2"]
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    tuner.save(model, folder, None)
    assert json.loads((folder / "reft_config.json").read_text())["layers"] == [0, 2]
    # Then merging says that there are no weights to change
    with pytest.raises(UserError, match="cannot be merged") as error:
        merge(locate_adapter(str(folder)), base, tmp_path / "merged")
    assert "hidden states" in error.value.why
    assert not (tmp_path / "merged").exists()
