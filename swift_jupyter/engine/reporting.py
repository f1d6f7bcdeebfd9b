"""How a job tells what it does, and learns that it should stop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Reporter(Protocol):
    """What a job is given. Every method is cheap and never raises."""

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is being done now, and how far it is."""

    def notice(self, text: str) -> None:
        """Say something that the user should know later, too."""

    def metrics(self, row: dict[str, Any]) -> None:
        """Log one row of numbers."""

    def progress(self, state: Mapping[str, Any], *, last: bool = False) -> None:
        """Replace what is known of the progress as a whole; throttles itself."""

    def checkpoint(self, path: Path, step: int) -> None:
        """Say that a checkpoint is complete."""

    def should_stop(self) -> bool:
        """Tell whether the job should save and stop."""
