"""Numbers in 4 and 8 bits: how exact they are, and that nothing is lost on average."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.engine.training.optimizers import moments, quantization
from swift_jupyter.engine.training.optimizers.quantization import (
    dequantize,
    dequantize_moment,
    quantize,
    quantize_moment,
    round_stochastically,
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([1, 5, 16, 256]),
    size=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_every_entry_is_within_half_a_step(
    rows: int, columns: int, bits: int, block: int, size: float, seed: int
) -> None:
    # Given a matrix of any shape and size
    values = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    # When it is quantised and read again
    blocks = quantize(values, bits, block)
    again = dequantize(blocks, bits, values.shape)
    # Then each entry is off by at most half of its block's step
    off = (values - again).abs().flatten()
    step = blocks.scale.flatten().repeat_interleave(block)[: off.numel()]
    assert bool((off <= step * 0.501 + 1e-6 * size).all())
    # And four bits take half the room of eight
    padded = -(-values.numel() // block) * block
    assert blocks.codes.numel() == (padded if bits == 8 else -(-padded // 2))


def test_extremes_and_constants_are_exact() -> None:
    for values in (torch.full((3, 7), 0.25), torch.tensor([[-2.0, 5.0, 1.5]])):
        again = dequantize(quantize(values, 4, 256), 4, values.shape)
        assert again.amin() == values.amin()
        assert torch.isclose(again.amax(), values.amax())


def test_random_rounding_keeps_the_value_on_average() -> None:
    # Given values between two steps
    values = torch.linspace(-1, 1, 256).repeat(400, 1)
    values[:, 1:-1] += 0.003
    # When every row is rounded at random on its own
    generator = torch.Generator().manual_seed(0)
    again = dequantize(quantize(values, 8, 256, generator), 8, values.shape)
    # Then the mean is far nearer than a step, while rounding to the nearest is off
    step = 2 / 255
    assert (again.mean(0) - values[0]).abs().max() < 0.2 * step
    nearest = dequantize(quantize(values, 8, 256), 8, values.shape)
    assert (nearest.mean(0) - values[0]).abs().max() > 0.3 * step


def test_bfloat16_keeps_small_updates_on_average() -> None:
    # Given a weight whose last digit is larger than the update
    weight = torch.ones(20_000)
    generator = torch.Generator().manual_seed(1)
    # When the update is made
    moved = round_stochastically(weight + 0.0005, generator)
    # Then it is not lost, as it would be by rounding to the nearest
    assert moved.dtype == torch.bfloat16
    assert moved.float().mean().item() == pytest.approx(1.0005, abs=1e-4)
    assert bool(((weight + 0.0005).bfloat16() == 1).all())


@pytest.mark.parametrize("signed", [True, False])
def test_moments_keep_their_order_of_magnitude(signed: bool) -> None:
    # Given entries over five powers of ten in one block
    values = torch.logspace(-5, 0, 300)
    if signed:
        values = torch.cat([values, -values])
    # When they are quantised
    codes, largest = quantize_moment(values, signed)
    again = dequantize_moment(codes, largest, signed)
    # Then they take one byte, the largest is exact and the small ones are not lost
    assert codes.dtype == torch.uint8
    assert again.abs().amax() == values.abs().amax()
    ratio = again / values
    assert bool((ratio > 0.3).all())
    assert bool((ratio < 3.0).all())
    large = values.abs() > 0.1
    assert bool((ratio[large] - 1).abs().max() < 0.08)


def test_a_second_moment_is_zero_only_where_it_was() -> None:
    # Given entries that are tiny beside the largest
    values = torch.full((512,), 1e-12)
    values[::256] = 1.0
    values[3] = 0.0
    # When they are quantised
    again = dequantize_moment(*quantize_moment(values, signed=False), signed=False)
    # Then none becomes zero, by which a first moment would be divided
    assert again[3] == 0
    assert int((again == 0).sum()) == 1


def test_large_tensors_are_worked_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given moments of a tensor of many blocks, the last of them short
    gradients = torch.randn(3, 101, 67, generator=torch.Generator().manual_seed(0))
    states: list[dict[str, torch.Tensor]] = [{}, {}]
    directions: list[list[torch.Tensor]] = [[], []]
    # When they advance at once, and two blocks at a time
    for state, told, piece in zip(states, directions, (1 << 20, 512), strict=True):
        monkeypatch.setattr(moments, "PIECE", piece)
        kept = moments.Moments(8)
        told += [kept.direction(state, g, (0.9, 0.95), 1e-8) for g in gradients]
    # Then it is the same
    assert all(map(torch.equal, *directions))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert states[0]["exp_avg"].dtype == torch.uint8
    # And the first step is Adam's: every entry the same size, within the codes' error
    assert torch.allclose(directions[0][0].abs(), torch.tensor(0.1 / 0.05**0.5), rtol=1e-3)


def test_quantising_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(37, 50)
    whole = quantize(values, 4, 64)
    monkeypatch.setattr(quantization, "PIECE", 128)
    pieces = quantize(values, 4, 64)
    assert torch.equal(whole.codes, pieces.codes)
    assert torch.equal(whole.scale, pieces.scale)
