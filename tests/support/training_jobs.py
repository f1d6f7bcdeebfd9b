"""Fine-tuning in this process, with a reporter that remembers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift_jupyter.engine.training.sft import METRICS_FILE, train
from swift_jupyter.settings import Settings


class RememberingReporter:
    """Remembers what a job tells, and writes its rows where a worker would.

    Parameters
    ----------
    folder : Path
        The run's folder.
    stop_after : int, optional
        Ask the job to stop once this step is logged.
    """

    def __init__(self, folder: Path, stop_after: int | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self.checkpoints: list[int] = []
        self._folder = folder
        self._stop_after = stop_after

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Nothing is remembered."""

    def progress(self, state: Mapping[str, Any], *, last: bool = False) -> None:
        """Nothing is remembered."""

    def notice(self, text: str) -> None:
        """Remember it."""
        self.notices.append(text)

    def metrics(self, row: dict[str, Any]) -> None:
        """Remember and write a row."""
        self.rows.append(row)
        with (self._folder / METRICS_FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def checkpoint(self, path: Path, step: int) -> None:
        """Remember the step."""
        self.checkpoints.append(step)

    def should_stop(self) -> bool:
        """Tell whether the step to stop after was logged."""
        return self._stop_after is not None and any(
            row["step"] >= self._stop_after for row in self.rows
        )

    @property
    def losses(self) -> list[float]:
        """The losses of training that were told."""
        return [row["loss"] for row in self.rows if "loss" in row]


def fine_tune(
    folder: Path, stop_after: int | None = None, **options: Any
) -> tuple[dict[str, Any], RememberingReporter]:
    """Train in `folder`, made when absent, and return the result and what was told."""
    folder.mkdir(parents=True, exist_ok=True)
    reporter = RememberingReporter(folder, stop_after)
    return train(options, folder, Settings(), reporter), reporter
