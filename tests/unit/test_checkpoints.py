"""Checkpoints under their names: published whole, removed whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift_jupyter.engine.training import checkpoints


def staged(folder: Path, step: int, content: str = "new") -> Path:
    path = checkpoints.staging_folder(folder) / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text(content)
    return path


def publish(folder: Path, *steps: int) -> list[Path]:
    published = [checkpoints.publish(staged(folder, step), folder) for step in steps]
    checkpoints.discard_staging(folder)
    return published


def steps(folder: Path) -> list[int]:
    return [checkpoints.step_of(path) for path in checkpoints.published(folder)]


def test_staged_checkpoints_are_invisible_until_published(tmp_path: Path) -> None:
    path = staged(tmp_path, 5)
    assert checkpoints.last_checkpoint(tmp_path) is None
    published = checkpoints.publish(path, tmp_path)
    assert published == tmp_path / "checkpoint-5" == checkpoints.last_checkpoint(tmp_path)
    assert not path.exists()


def test_steps_are_numbers_not_words(tmp_path: Path) -> None:
    publish(tmp_path, 9, 10, 100)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-999").mkdir()  # Without a state nothing can go on from it.
    assert steps(tmp_path) == [9, 10, 100]
    assert checkpoints.last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_step_that_is_reached_again_replaces_its_twin(tmp_path: Path) -> None:
    publish(tmp_path, 5)
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text("old")
    checkpoints.publish(staged(tmp_path, 5), tmp_path)
    assert (tmp_path / "checkpoint-5" / "trainer_state.json").read_text() == "new"
    checkpoints.discard_staging(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-5"]


@pytest.mark.parametrize(
    ("keep", "best", "expected"),
    [
        (None, None, [1, 2, 3, 4, 5]),
        (2, None, [4, 5]),
        (9, 1, [1, 2, 3, 4, 5]),
        (2, 5, [4, 5]),
        (2, 4, [4, 5]),
        (2, 1, [1, 5]),
        (3, 2, [2, 4, 5]),
        (1, None, [5]),
        (1, 2, [2, 5]),
        (1, 77, [5]),
    ],
)
def test_newest_and_best_stay(
    tmp_path: Path, keep: int | None, best: int | None, expected: list[int]
) -> None:
    publish(tmp_path, 1, 2, 3, 4, 5)
    chosen = tmp_path / f"checkpoint-{best}" if best else None
    checkpoints.remove_old(tmp_path, keep, chosen)
    checkpoints.discard_staging(tmp_path)
    assert steps(tmp_path) == expected
    assert len(list(tmp_path.iterdir())) == len(expected)
