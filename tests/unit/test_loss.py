"""Our loss is the model's own, without the logits that nobody needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import build_tiny_model

from swift_jupyter.engine.training.loss import IGNORED, accepts_positions, label_loss


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    folder = build_tiny_model(tmp_path_factory.mktemp("loss") / "model", layers=1)
    return AutoModelForCausalLM.from_pretrained(folder)


def batch(share: float, seed: int = 0) -> dict[str, torch.Tensor]:
    """Rows of different lengths with labels on a share of their tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (17, 9, 12)
    ids = torch.randint(0, 400, (3, 17), generator=generator)
    attention = torch.tensor([[1] * n + [0] * (17 - n) for n in lengths])
    wanted = torch.rand(ids.shape, generator=generator) < share
    labels = torch.where(wanted & (attention == 1), ids, IGNORED)
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_loss_and_gradient_are_those_of_the_model(model: Any, sparse: bool, share: float) -> None:
    inputs = batch(share)
    # Given the model's own loss, per labelled token
    model.zero_grad()
    own = model(**inputs, use_cache=False)
    own.loss.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    # When ours is computed
    model.zero_grad()
    parts = label_loss(model, dict(inputs), sparse)
    loss = parts.total / parts.tokens
    loss.backward()
    # Then it is the same, and leads the same way
    assert loss.item() == pytest.approx(own.loss.item(), rel=1e-6)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    # And so are the counts
    targets = inputs["labels"][:, 1:]
    assert int(parts.tokens) == int((targets != IGNORED).sum())
    hits = (own.logits[:, :-1].argmax(-1) == targets) & (targets != IGNORED)
    assert int(parts.correct) == int(hits.sum())


def test_sparse_leaves_out_logits(model: Any) -> None:
    inputs = batch(1.0)
    inputs["labels"][:, :-3] = IGNORED
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda _m, _i, out: shapes.append(out.shape))
    try:
        label_loss(model, dict(inputs), sparse=True)
    finally:
        hook.remove()
    # Three positions predict the last three tokens
    assert shapes[0][1] == 3


def test_label_on_the_first_token_counts_for_nothing(model: Any) -> None:
    inputs = batch(0.0)
    inputs["labels"][:, 0] = inputs["input_ids"][:, 0]
    inputs["labels"][0, 5] = inputs["input_ids"][0, 5]
    assert int(label_loss(model, dict(inputs), sparse=True).tokens) == 1


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_without_labels_have_no_loss(model: Any, sparse: bool) -> None:
    parts = label_loss(model, batch(0.0), sparse)
    assert float(parts.total) == 0.0
    assert int(parts.tokens) == int(parts.correct) == 0


def test_models_that_cannot_leave_out_logits_are_known(model: Any) -> None:
    class Plain(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    assert accepts_positions(model)
    assert not accepts_positions(Plain())
