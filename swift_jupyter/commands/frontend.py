"""What a command may show. The notebook, the terminal and tests each have their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.runs.watch import RunView


class ProgressView(Protocol):
    """A bar or line that shows how far something is."""

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Show the progress; called often, throttles itself. `done` and `total` are bytes."""


class PullView(Protocol):
    """Shows how far a pull is."""

    def update(self, progress: PullProgress) -> None:
        """Show the progress; called often, throttles itself."""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: a label, its length, and what stands beside it."""

    label: str
    value: float
    text: str


class TextView(Protocol):
    """A text that grows."""

    def append(self, text: str) -> None:
        """Add text; called for every token, throttles itself."""

    def finish(self, note: str) -> None:
        """Show the whole text with a note below."""


class Frontend(Protocol):
    """Where a command's words and pictures go."""

    def notice(self, text: str) -> None:
        """Show one line."""

    def progress(self, title: str) -> AbstractContextManager[ProgressView]:
        """Open a progress bar, closed when the context ends."""

    def pull_view(self, title: str) -> AbstractContextManager[PullView]:
        """Open the view of a pull, closed when the context ends."""

    def bars(self, title: str, bars: Sequence[Bar]) -> None:
        """Show a bar chart."""

    def text(self, title: str) -> AbstractContextManager[TextView]:
        """Open a text that grows."""

    def run_view(self) -> RunView:
        """Open the view of a run."""


class SilentFrontend:
    """Shows nothing: for programs that use the commands as functions."""

    def notice(self, text: str) -> None:
        """Show nothing."""

    def progress(self, title: str) -> _Silent:
        """Return a bar that shows nothing."""
        return _Silent()

    def pull_view(self, title: str) -> _Silent:
        """Return a view that shows nothing."""
        return _Silent()

    def bars(self, title: str, bars: Sequence[Bar]) -> None:
        """Show nothing."""

    def text(self, title: str) -> _Silent:
        """Return a text that shows nothing."""
        return _Silent()

    def run_view(self) -> _Silent:
        """Return a view that shows nothing."""
        return _Silent()


class _Silent:
    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None

    def update(self, *_progress: Any) -> None:
        return None

    def append(self, text: str) -> None:
        return None

    def finish(self, note: str) -> None:
        return None

    def draw(self, progress: Any) -> None:
        return None

    def message(self, text: str) -> None:
        return None

    def close(self, progress: Any) -> None:
        return None
