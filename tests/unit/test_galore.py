"""GaLore: equal to its definition, exact over a checkpoint, and small."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from swift_jupyter.engine.training.optimizers.galore import GaLore
from swift_jupyter.engine.training.optimizers.projection import side_of

SHAPES = [(24, 16), (16, 24), (16, 16)]
TYPES = ["std", "reverse_std", "left", "right", "full"]
GROUP: dict[str, Any] = {"rank": 4, "update_proj_gap": 3, "scale": 0.7}
ADAM: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def _gradients(shape: tuple[int, ...], count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def _by_definition(weight: Tensor, gradients: list[Tensor], kind: str, eps: float) -> Tensor:
    """GaLore as the paper writes it, in double precision."""
    weight = weight.double()
    first = second = None
    left = right = None
    for step, gradient in enumerate(g.double() for g in gradients):
        if step % GROUP["update_proj_gap"] == 0:
            u, _s, vh = torch.linalg.svd(gradient, full_matrices=False)
            left, right = u[:, : GROUP["rank"]], vh[: GROUP["rank"]]
        assert left is not None
        assert right is not None
        tall = weight.shape[0] >= weight.shape[1]
        sides = {"left": [left, None], "right": [None, right], "full": [left, right]}
        sides["std"] = sides["right" if tall else "left"]
        sides["reverse_std"] = sides["left" if tall else "right"]
        p, q = sides[kind]
        low = gradient if p is None else p.T @ gradient
        low = low if q is None else low @ q.T
        first = torch.zeros_like(low) if first is None else first
        second = torch.zeros_like(low) if second is None else second
        first = 0.9 * first + 0.1 * low
        second = 0.95 * second + 0.05 * low**2
        rate = 1e-2 * math.sqrt(1 - 0.95 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        update = first / (second.sqrt() + eps)
        update = update if p is None else p @ update
        update = update if q is None else update @ q
        weight = (weight - rate * 0.7 * update) * (1 - 1e-2 * 0.1)
    return weight


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_equal_the_definition(shape: tuple[int, int], kind: str) -> None:
    # Given a weight and gradients over two changes of the projection
    gradients = _gradients(shape, 8)
    weight = _gradients(shape, 1, seed=9)[0]
    parameter = nn.Parameter(weight.clone())
    # Projected on both sides, a gradient is diagonal but for rounding, which Adam would
    # make as large as the rest were it not for epsilon.
    adam = {**ADAM, "eps": 1e-3 if kind == "full" else 1e-8}
    optimizer = GaLore([{"params": [parameter], "proj_type": kind, **GROUP}], **adam)
    # When the optimizer takes them
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    # Then the weight is where the formulas lead, and it has moved
    expected = _by_definition(weight, gradients, kind, adam["eps"])
    assert (parameter.double() - expected).abs().max() < 5e-6
    assert (parameter - weight).abs().max() > 1e-3


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_equal_the_authors_package(shape: tuple[int, int], kind: str) -> None:
    package = pytest.importorskip("galore_torch")
    # Given the same weight for both
    weight = _gradients(shape, 1, seed=9)[0]
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    group = {"proj_type": kind, **GROUP}
    mine = GaLore([{"params": [ours], **group}], **ADAM)
    other = package.GaLoreAdamW([{"params": [theirs], **group}], **ADAM)
    # When both take the same gradients, over two changes of the projection
    for gradient in _gradients(shape, 8):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    # Then the weights are equal within float error
    assert (ours - theirs).abs().max() < 3e-6


def test_a_group_without_rank_is_adamw() -> None:
    # Given a bias, which has nothing to project
    bias, other = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))
    ours = GaLore([{"params": [bias]}], lr=1e-2, eps=0.0, betas=(0.9, 0.95))
    adamw = torch.optim.AdamW([other], lr=1e-2, eps=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    # When both take the same gradients
    for gradient in _gradients((8,), 5):
        bias.grad, other.grad = gradient.clone(), gradient.clone()
        ours.step()
        adamw.step()
    # Then they are equal
    assert torch.allclose(bias, other, atol=1e-6)


def _copy_through_file(state: Any) -> Any:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["std", "full"])
def test_a_restored_state_takes_the_very_same_steps(kind: str, dtype: torch.dtype) -> None:
    # Given an optimizer in the middle of a projection's life
    weight = _gradients((12, 20), 1)[0].to(dtype)
    parameter = nn.Parameter(weight.clone())
    optimizer = GaLore([{"params": [parameter], "proj_type": kind, **GROUP}], **ADAM)
    gradients = _gradients((12, 20), 9)
    for gradient in gradients[:4]:
        parameter.grad = gradient.to(dtype)
        optimizer.step()
    # When its state goes through a checkpoint, into an optimizer of the same weight
    twin = nn.Parameter(parameter.detach().clone())
    resumed = GaLore([{"params": [twin], "proj_type": kind, **GROUP}], **ADAM)
    resumed.load_state_dict(_copy_through_file(optimizer.state_dict()))
    # Then all following steps are equal to the last bit
    for gradient in gradients[4:]:
        parameter.grad, twin.grad = gradient.to(dtype), gradient.to(dtype)
        optimizer.step()
        resumed.step()
        assert torch.equal(parameter, twin)


def test_a_restored_optimizer_follows_the_schedule() -> None:
    # Given an optimizer that updates in backward, whose state was loaded
    parameter = nn.Parameter(torch.randn(8, 8))
    optimizer = GaLore(
        [{"params": [parameter], "proj_type": "std", **GROUP}], per_parameter=True, **ADAM
    )
    optimizer.load_state_dict(_copy_through_file(optimizer.state_dict()))
    # When the rate is set to zero afterwards
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = parameter.detach().clone()
    (parameter**2).sum().backward()
    # Then nothing moves
    assert torch.equal(parameter, before)


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4))


def _optimizer(net: nn.Module, **kwargs: Any) -> GaLore:
    matrices = [p for p in net.parameters() if p.ndim == 2]
    rest = [p for p in net.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "proj_type": "std", **GROUP}, {"params": rest}]
    return GaLore(groups, **ADAM, **kwargs)


def test_updating_in_backward_gives_the_same_weights_and_leaves_no_gradient() -> None:
    # Given the same net twice, one updated in backward
    nets = [_net(), _net()]
    optimizers = [_optimizer(nets[0]), _optimizer(nets[1], per_parameter=True)]
    for inputs in _gradients((5, 12), 6):
        for net, optimizer in zip(nets, optimizers, strict=True):
            net(inputs).square().mean().backward()
            optimizer.step()
            if optimizer.per_parameter:
                assert all(p.grad is None for p in net.parameters())
                assert optimizer.take_gradient_norm() > 0
            net.zero_grad()
    # Then both are where the other is
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_updating_in_backward_waits_for_the_last_pass_of_a_step() -> None:
    # Given a step of two passes
    nets = [_net(), _net()]
    whole, fused = _optimizer(nets[0]), _optimizer(nets[1], per_parameter=True)
    first, second = _gradients((5, 12), 2)
    # When only the second is the last
    before = [p.detach().clone() for p in nets[1].parameters()]
    fused.accumulating = True
    nets[1](first).square().mean().backward()
    assert all(torch.equal(p, b) for p, b in zip(nets[1].parameters(), before, strict=True))
    fused.accumulating = False
    nets[1](second).square().mean().backward()
    for inputs in (first, second):
        nets[0](inputs).square().mean().backward()
    whole.step()
    # Then the update is that of both together
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_that_are_no_numbers_are_not_used_in_backward() -> None:
    net = _net()
    optimizer = _optimizer(net, per_parameter=True)
    before = [p.detach().clone() for p in net.parameters()]
    (net(torch.ones(1, 12)) * math.inf).sum().backward()
    assert all(torch.equal(p, b) for p, b in zip(net.parameters(), before, strict=True))
    assert not math.isfinite(optimizer.take_gradient_norm())
    assert optimizer.take_gradient_norm() == 0


def test_the_state_is_smaller_than_adamws() -> None:
    # Given a square weight and a quarter of its size as the rank
    weights = [nn.Parameter(torch.randn(64, 64)) for _ in range(2)]
    group = {"rank": 16, "update_proj_gap": 9, "scale": 1.0, "proj_type": "std"}
    ours = GaLore([{"params": [weights[0]], **group}], **ADAM)
    adamw = torch.optim.AdamW([weights[1]])
    for weight, optimizer in zip(weights, (ours, adamw), strict=True):
        weight.grad = torch.randn(64, 64)
        optimizer.step()
    # Then the moments are a quarter, and the projection an eighth of AdamW's state
    theirs = sum(t.nbytes for t in adamw.state[weights[1]].values() if t.ndim == 2)
    assert ours.state_bytes() == theirs * 3 / 8


def test_experts_are_projected_each_on_its_own() -> None:
    # Given the weights of two experts, in one tensor and apart
    together = nn.Parameter(torch.randn(2, 10, 6))
    apart = [nn.Parameter(together[number].detach().clone()) for number in range(2)]
    group = {"proj_type": "std", **GROUP}
    one, two = (
        GaLore([{"params": [together], **group}], **ADAM),
        GaLore([{"params": apart, **group}], **ADAM),
    )
    # When they take the same gradients
    for gradient in _gradients((2, 10, 6), 5):
        together.grad = gradient.clone()
        for number, weight in enumerate(apart):
            weight.grad = gradient[number].clone()
        one.step()
        two.step()
    # Then they go the same way
    for number, weight in enumerate(apart):
        assert torch.allclose(together[number], weight, atol=1e-6)


def test_sides() -> None:
    tall, wide = torch.Size((9, 2)), torch.Size((2, 9))
    assert [side_of(tall, kind) for kind in TYPES] == ["right", "left", "left", "right", "full"]
    assert [side_of(wide, kind) for kind in TYPES] == ["left", "right", "left", "right", "full"]
    with pytest.raises(ValueError, match="sideways"):
        side_of(tall, "sideways")
