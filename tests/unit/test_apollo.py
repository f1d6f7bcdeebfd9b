"""APOLLO: a factor for each channel from a random projection that nobody stores."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from swift_jupyter.engine.training.optimizers.apollo import Apollo

CHANNEL: dict[str, Any] = {"rank": 4, "update_proj_gap": 3, "scale": 1.0, "scale_type": "channel"}
MINI: dict[str, Any] = {
    "rank": 1,
    "update_proj_gap": 3,
    "scale": 128**0.5,
    "scale_type": "tensor",
}


def _step(optimizer: Apollo, weight: nn.Parameter, gradient: Tensor) -> None:
    weight.grad = gradient.clone()
    optimizer.step()


@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_the_first_step_scales_each_channel_as_adam_would(shape: tuple[int, int]) -> None:
    # Given a weight; in its first step Adam makes every entry as large as the rate
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = Apollo([{"params": [weight], **CHANNEL}], lr=0.01, eps=0.0)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    # When it is made
    _step(optimizer, weight, gradient)
    # Then the update is the gradient times one factor a channel of the longer side,
    factor = -weight.detach() / gradient
    spread = factor.std(dim=1 if shape[0] > shape[1] else 0) / factor.mean()
    assert float(spread.abs().max()) < 1e-4
    # which makes a projected channel of 4 entries as long as Adam's: 0.01 * sqrt(4).
    axes = torch.randn(
        (16, 4) if shape[0] < shape[1] else (4, 16),
        generator=optimizer.generator(weight, 0),
    ).div(2.0)
    low = axes.T @ gradient if shape[0] < shape[1] else gradient @ axes.T
    lengths = low.norm(dim=0 if shape[0] < shape[1] else 1)
    expected = 0.01 * 2.0 / lengths
    assert torch.allclose(factor.mean(dim=0 if shape[0] < shape[1] else 1), expected, rtol=1e-3)


def test_mini_has_one_factor_a_weight() -> None:
    weight = nn.Parameter(torch.zeros(16, 24))
    optimizer = Apollo([{"params": [weight], **MINI}], lr=0.01)
    gradient = torch.randn(16, 24)
    _step(optimizer, weight, gradient)
    factor = -weight.detach() / gradient
    assert float(factor.std() / factor.mean()) < 1e-4
    assert bool((factor > 0).all())


def test_updates_grow_by_a_hundredth_a_step_at_most() -> None:
    # Given gradients that suddenly turn a thousand times as large
    weight = nn.Parameter(torch.zeros(16, 24))
    optimizer = Apollo([{"params": [weight], **CHANNEL}], lr=0.01)
    generator = torch.Generator().manual_seed(0)
    norms = []
    for number in range(6):
        before = weight.detach().clone()
        size = 1e3 if number > 2 else 1.0
        _step(optimizer, weight, size * torch.randn(16, 24, generator=generator))
        norms.append(float((weight - before).norm()))
    # Then no update is more than a hundredth larger than the one before
    assert all(now <= 1.0101 * then for then, now in itertools.pairwise(norms))


def test_a_restored_state_takes_the_very_same_steps() -> None:
    # Given an optimizer after a few steps
    parameters = [nn.Parameter(torch.randn(12, 20)), nn.Parameter(torch.randn(12, 20))]
    optimizer = Apollo([{"params": parameters, **CHANNEL}], lr=0.01, seed=3)
    generator = torch.Generator().manual_seed(0)
    for _number in range(4):
        for parameter in parameters:
            parameter.grad = torch.randn(12, 20, generator=generator)
        optimizer.step()
    # When its state goes through a file
    stream = io.BytesIO()
    torch.save(optimizer.state_dict(), stream)
    stream.seek(0)
    twins = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    resumed = Apollo([{"params": twins, **CHANNEL}], lr=0.01, seed=3)
    resumed.load_state_dict(torch.load(stream, weights_only=True))
    # Then later steps, a new projection among them, are equal to the last bit
    for _number in range(4):
        for parameter, twin in zip(parameters, twins, strict=True):
            parameter.grad = torch.randn(12, 20, generator=generator)
            twin.grad = parameter.grad.clone()
        optimizer.step()
        resumed.step()
        for parameter, twin in zip(parameters, twins, strict=True):
            assert torch.equal(parameter, twin)
    # And the two weights do not share a projection
    first, second = (optimizer.generator(p, 0) for p in parameters)
    assert not torch.equal(torch.randn(5, generator=first), torch.randn(5, generator=second))


@pytest.mark.parametrize(("group", "share"), [(CHANNEL | {"rank": 16}, 1 / 4), (MINI, 1 / 64)])
def test_the_state_is_a_small_part_of_adamws(group: dict[str, Any], share: float) -> None:
    # Given a square weight of 64
    weight = nn.Parameter(torch.randn(64, 64))
    optimizer = Apollo([{"params": [weight], **group}], lr=0.01)
    # When a step was made
    _step(optimizer, weight, torch.randn(64, 64))
    # Then only the moments in the projected space are kept
    assert optimizer.state_bytes() == share * 2 * 4 * 64 * 64


@pytest.mark.parametrize("group", [CHANNEL, MINI | {"scale": 1.0}])
def test_it_learns(group: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 48), nn.Tanh(), nn.Linear(48, 24))
    matrices = [p for p in net.parameters() if p.ndim == 2]
    rest = [p for p in net.parameters() if p.ndim == 1]
    optimizer = Apollo([{"params": matrices, **group}, {"params": rest}], lr=0.01)
    inputs = torch.randn(64, 24)
    goal = torch.tanh(inputs @ torch.randn(24, 24) / 5)
    losses = []
    for _number in range(60):
        loss = (net(inputs) - goal).square().mean()
        loss.backward()
        optimizer.step()
        net.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert math.isfinite(losses[-1])
