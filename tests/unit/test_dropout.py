"""The cheap dropout is a dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from swift_jupyter.engine.training.dropout import BitDropout, speed_up_dropout


def dropped(p: float, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    result: torch.Tensor = BitDropout(p).train()(values)
    return result


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_rate_and_scale(p: float) -> None:
    ones = torch.ones(400_000)
    result = dropped(p, ones)
    # The share of zeros is p, within five standard deviations
    share = float((result == 0).float().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / ones.numel()) ** 0.5
    # The others are scaled so that the mean stays
    assert torch.allclose(result[result != 0], torch.tensor(1 / (1 - p)))


def test_positions_are_independent() -> None:
    kept = (dropped(0.5, torch.ones(2**18)) != 0).float()
    for distance in (1, 2, 3, 4, 8):
        together = float((kept[:-distance] * kept[distance:]).mean())
        assert abs(together - 0.25) < 0.005


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 7, 33), (0, 4)])
def test_any_shape_and_data_type(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape).to(dtype)
    result = dropped(0.25, values)
    assert result.shape == values.shape
    assert result.dtype == dtype
    kept = result != 0
    expected = values.float() / 0.75
    assert torch.allclose(result.float()[kept], expected[kept], rtol=0.01)


def test_same_seed_same_mask() -> None:
    values = torch.ones(5001)
    assert torch.equal(dropped(0.3, values, seed=4), dropped(0.3, values, seed=4))
    assert not torch.equal(dropped(0.3, values, seed=4), dropped(0.3, values, seed=5))
    # And saving the state of the generator, as a checkpoint does, repeats what follows
    module = BitDropout(0.3).train()
    state = torch.get_rng_state()
    first = [module(values) for _ in range(3)]
    torch.set_rng_state(state)
    assert all(torch.equal(module(values), before) for before in first)


def test_gradient_flows_where_values_were_kept() -> None:
    values = torch.ones(1000, requires_grad=True)
    result = dropped(0.4, values)
    result.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, result.detach())


def test_nothing_is_dropped_in_evaluation_or_at_zero() -> None:
    values = torch.randn(50)
    assert BitDropout(0.5).eval()(values) is values
    assert BitDropout(0.0).train()(values) is values


def test_only_lora_dropouts_are_replaced() -> None:
    from peft import LoraConfig, get_peft_model

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.own = nn.Dropout(0.2)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.own(self.linear(values))

    config = LoraConfig(target_modules=["linear"], lora_dropout=0.1)
    model = get_peft_model(Net(), config)
    speed_up_dropout(model)
    found = [module for module in model.modules() if isinstance(module, BitDropout)]
    assert [module.p for module in found] == [0.1]
    assert any(type(module) is nn.Dropout and module.p == 0.2 for module in model.modules())
