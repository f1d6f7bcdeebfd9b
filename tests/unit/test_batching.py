"""Portions and order of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.engine.training.arguments import choose_learning_rate
from swift_jupyter.engine.training.batching import BatchPlan, StepSampler, plan_batches

LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=80)


@given(lengths=LENGTHS, device=st.sampled_from(["cpu", "mps", "cuda", "other"]))
def test_a_step_has_sixteen_rows_and_a_pass_fits_the_budget(
    lengths: list[int], device: str
) -> None:
    plan = plan_batches(lengths, device, None, None)
    assert plan.rows_per_step == 16
    assert plan.batch_size == 1 or plan.batch_size * max(lengths) <= 8192


@pytest.mark.parametrize(
    ("longest", "device", "expected"),
    [
        (64, "cpu", BatchPlan(16, 1)),
        (200, "cpu", BatchPlan(4, 4)),
        (5000, "cpu", BatchPlan(1, 16)),
        (1000, "cuda", BatchPlan(8, 2)),
    ],
)
def test_long_rows_go_in_smaller_portions(longest: int, device: str, expected: BatchPlan) -> None:
    assert plan_batches([8, longest], device, None, None) == expected


def test_what_the_user_says_counts() -> None:
    assert plan_batches([10], "cpu", 3, None) == BatchPlan(3, 6)
    assert plan_batches([10], "cpu", None, 2) == BatchPlan(16, 2)
    assert plan_batches([10], "cpu", 5, 7) == BatchPlan(5, 7)
    assert plan_batches([10], "cpu", 32, None) == BatchPlan(32, 1)
    assert plan_batches([10], "cuda", 2, None, world_size=4) == BatchPlan(2, 2)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 2**31), st.integers(0, 9))
def test_every_row_comes_once_and_steps_are_sorted(
    lengths: list[int], rows: int, seed: int, epoch: int
) -> None:
    sampler = StepSampler(lengths, rows, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths))) and len(sampler) == len(lengths)
    for start in range(0, len(order), rows):
        found = [lengths[row] for row in order[start : start + rows]]
        assert found == sorted(found)
    # And a resumed run sees the same order
    again = StepSampler(lengths, rows, seed)
    again.set_epoch(epoch)
    assert list(again) == order


def test_epochs_and_seeds_mix_differently() -> None:
    lengths = list(range(100))
    orders = set()
    for seed in (1, 2):
        for epoch in (0, 1):
            sampler = StepSampler(lengths, 4, seed)
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 4
    # Which rows make up a step is not decided by their length
    first = next(iter(orders))[:4]
    assert max(first) - min(first) > 4


def test_without_shuffling_the_order_stays() -> None:
    assert list(StepSampler([9, 1, 5], 2, 0, shuffle=False)) == [0, 1, 2]


def test_narrow_models_learn_faster() -> None:
    assert choose_learning_rate(4096) == pytest.approx(1e-4)
    assert choose_learning_rate(8192) == pytest.approx(1e-4)
    assert choose_learning_rate(2048) == pytest.approx(2e-4)
    assert choose_learning_rate(64) == pytest.approx(5e-4)
    assert choose_learning_rate(None) == pytest.approx(1e-4)
