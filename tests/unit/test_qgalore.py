"""Q-GaLore: 8-bit weights that are trained, 4-bit projections, an interval that adapts."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from swift_jupyter.engine.training.optimizers.base import ProjectedOptimizer
from swift_jupyter.engine.training.optimizers.build import quantize_layers
from swift_jupyter.engine.training.optimizers.int8_linear import WEIGHT, Int8Linear, store_of
from swift_jupyter.engine.training.optimizers.qgalore import QGaLore

GROUP: dict[str, Any] = {
    "rank": 8,
    "update_proj_gap": 3,
    "scale": 1.0,
    "proj_type": "std",
    "proj_bits": 4,
    "proj_group_size": 256,
    "cos_threshold": 0.4,
    "gamma_proj": 2.0,
    "queue_size": 2,
}


def _net(width: int = 72) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(width, 96), nn.Tanh(), nn.Linear(96, width, bias=False))
    quantize_layers(net, ["0.weight", "2.weight"])
    return net


def _optimizer(net: nn.Module, **kwargs: Any) -> QGaLore:
    matrices = [p for p in net.parameters() if p.ndim == 2]
    rest = [p for p in net.parameters() if p.ndim == 1]
    kwargs = {"lr": 3e-3, "moment_bits": 8, **kwargs}
    return QGaLore([{"params": matrices, **GROUP}, {"params": rest}], **kwargs)


def _weights(net: nn.Module) -> list[Tensor]:
    return [value.clone() for value in net.state_dict().values()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_quantised_layer_computes_with_its_rounded_weight(
    transposed: bool, dtype: torch.dtype
) -> None:
    # Given a layer of either kind and the same one in 8 bits
    torch.manual_seed(0)
    layer: nn.Module = Conv1D(6, 10) if transposed else nn.Linear(10, 6)
    layer.to(dtype)
    quantized = Int8Linear(layer, transposed)
    layer.load_state_dict(quantized.state_dict())
    # When both see the same input
    inputs = torch.randn(2, 3, 10, dtype=dtype)
    ours, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    ours_out, theirs_out = quantized(ours), layer(theirs)
    ours_out.square().sum().backward()
    theirs_out.square().sum().backward()
    # Then outputs and all gradients are equal
    close = {"atol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    assert torch.allclose(ours_out, theirs_out, **close)
    assert torch.allclose(ours.grad, theirs.grad, **close)
    assert torch.allclose(quantized.weight.grad, layer.weight.grad, **close)
    assert torch.allclose(quantized.bias.grad, layer.bias.grad, **close)
    assert quantized.weight.grad.dtype == dtype


def test_a_quantised_layer_works_with_activations_computed_twice() -> None:
    net = _net()
    inputs = torch.randn(4, 72, requires_grad=True)
    net(inputs).square().sum().backward()
    expected = net[0].weight.grad.clone()
    net.zero_grad()
    checkpoint(net, inputs, use_reentrant=False).square().sum().backward()
    assert torch.equal(net[0].weight.grad, expected)


def test_a_layer_that_is_used_twice_is_updated_once() -> None:
    # Given a layer whose output goes through it again, updated in backward
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8))
    quantize_layers(net, ["0.weight"])
    optimizer = _optimizer(net, per_parameter=True)
    # When a step is taken
    net[0](net[0](torch.randn(3, 8))).sum().backward()
    # Then it counts once
    assert optimizer.state[net[0].weight]["step"] == 1


def test_the_state_dict_is_that_of_a_normal_model() -> None:
    # Given a net in 8 bits
    net = _net()
    normal = nn.Sequential(nn.Linear(72, 96), nn.Tanh(), nn.Linear(96, 72, bias=False))
    # Then a normal net takes its weights as they are
    normal.load_state_dict(net.state_dict())
    inputs = torch.randn(2, 72)
    assert torch.allclose(net(inputs), normal(inputs), atol=1e-6)
    # And the other way round they are rounded
    other = _net()
    result = other.load_state_dict(normal.state_dict())
    assert result.missing_keys == []
    assert torch.allclose(other(inputs), normal(inputs), atol=0.02)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict({**normal.state_dict(), "0.weight": torch.ones(2, 2)})


def test_weights_take_one_byte_and_the_stand_in_none() -> None:
    net = _net()
    weight = net[0].weight
    store = store_of(weight)
    assert store is not None
    kept = sum(tensor.nbytes for tensor in store.tensors().values())
    assert kept < 1.05 * weight.numel()
    assert weight.untyped_storage().nbytes() == weight.element_size()
    # Moving keeps it so
    net.to(torch.bfloat16)
    assert net[0].weight.untyped_storage().nbytes() == 2
    assert net(torch.ones(1, 72, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("per_parameter", [False, True])
def test_quantised_weights_move_and_the_loss_falls(per_parameter: bool) -> None:
    # Given a task that the net can learn
    net = _net()
    optimizer = _optimizer(net, per_parameter=per_parameter, lr=8e-3)
    inputs = torch.randn(64, 72)
    goal = torch.tanh(inputs @ torch.randn(72, 72) / 9)
    before = _weights(net)
    losses = []
    # When it is trained
    for _step in range(50):
        loss = (net(inputs) - goal).square().mean()
        loss.backward()
        optimizer.step()
        net.zero_grad()
        losses.append(float(loss.detach()))
    # Then the loss falls, and every weight has moved
    assert losses[-1] < 0.5 * losses[0]
    for old, new in zip(before, _weights(net), strict=True):
        assert float((old - new).abs().mean()) > 1e-3


def test_updates_below_a_step_are_not_lost() -> None:
    # Given a weight whose updates are a hundredth of its 8-bit step
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 64, bias=False))
    quantize_layers(net, ["0.weight"])
    store = store_of(net[0].weight)
    assert store is not None
    step = float(store.tensors()["scale"].mean())
    optimizer = QGaLore(
        [{"params": [net[0].weight], **GROUP, "rank": 64}], lr=step / 100, moment_bits=8
    )
    before = store.read()
    direction = torch.randn(64, 256).sign()
    # When it goes one way for a while
    for _step in range(100):
        net[0].weight.grad = direction.clone()
        optimizer.step()
    # Then it has gone about a step, in that way
    moved = -((store.read() - before) * direction).mean() / step
    assert 0.5 < float(moved) < 1.5


def _copy_through_file(state: Any) -> Any:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


def test_a_restored_state_takes_the_very_same_steps() -> None:
    # Given a net after a few steps
    net = _net()
    optimizer = _optimizer(net)
    batches = torch.randn(12, 16, 72)

    def run(trained: nn.Module, by: ProjectedOptimizer, rows: Tensor) -> float:
        loss = (trained(rows) - rows).square().mean()
        loss.backward()
        by.step()
        trained.zero_grad()
        return float(loss)

    for rows in batches[:7]:
        run(net, optimizer, rows)
    # When model and optimizer go through a checkpoint as a Trainer restores them: the
    # model first, in full precision, then 8 bits, then the optimizer's state
    saved = _copy_through_file([net.state_dict(), optimizer.state_dict()])
    twin = nn.Sequential(nn.Linear(72, 96), nn.Tanh(), nn.Linear(96, 72, bias=False))
    twin.load_state_dict(saved[0])
    quantize_layers(twin, ["0.weight", "2.weight"])
    resumed = _optimizer(twin)
    resumed.load_state_dict(saved[1])
    # Then weights, and all following losses and weights, are equal to the last bit
    for rows in batches[7:]:
        for old, new in zip(_weights(net), _weights(twin), strict=True):
            assert torch.equal(old, new)
        assert run(net, optimizer, rows) == run(twin, resumed, rows)
    assert resumed.state[twin[0].weight][WEIGHT]["codes"].dtype == torch.uint8
    assert resumed.state[twin[0].weight]["exp_avg"].dtype == torch.float32  # Below 4096 entries.


def _steady(net: nn.Sequential, generator: torch.Generator, noise: float) -> Tensor:
    shape = net[0].weight.shape
    left = torch.ones(shape[0], 1) / shape[0]
    right = torch.linspace(1, 2, shape[1])[None]
    return left @ right + noise * torch.randn(shape, generator=generator)


def test_projections_that_hardly_turn_are_found_anew_less_often() -> None:
    # Given one layer whose gradient has a direction, and one whose gradient is noise
    gaps = {}
    for noise in (1e-4, 10.0):
        net = _net()
        optimizer = _optimizer(net)
        generator = torch.Generator().manual_seed(0)
        for _step in range(16):
            net[0].weight.grad = _steady(net, generator, noise)
            optimizer.step()
        gaps[noise] = optimizer._gap(optimizer.state[net[0].weight], optimizer.param_groups[0])
    # Then only the first one's interval has grown
    assert gaps[1e-4] > GROUP["update_proj_gap"]
    assert gaps[10.0] == GROUP["update_proj_gap"]


def test_the_state_is_a_small_part_of_adamws() -> None:
    # Given a weight of 256 x 256 and a quarter of that as the rank
    net = nn.Sequential(nn.Linear(256, 256, bias=False))
    twin = copy.deepcopy(net)
    quantize_layers(net, ["0.weight"])
    group = {**GROUP, "rank": 64}
    ours = QGaLore([{"params": [net[0].weight], **group}], lr=1e-3, moment_bits=8)
    adamw = torch.optim.AdamW(twin.parameters())
    for trained, optimizer in ((net, ours), (twin, adamw)):
        trained(torch.randn(8, 256)).square().sum().backward()
        optimizer.step()
    # Then two moments of a byte in a quarter of the space and half a byte of projection:
    # 5/64 of AdamW's, and a little for the scales
    theirs = 2 * 4 * 256 * 256
    assert 5 / 64 < ours.state_bytes() / theirs < 5.5 / 64
