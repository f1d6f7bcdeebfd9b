"""What a command may show. The notebook, the terminal and tests each have their own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from swift_jupyter.runs.watch import RunView


class ProgressView(Protocol):
    """A bar or line that shows how far something is."""

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Show the progress; called often, throttles itself. `done` and `total` are bytes."""


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

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
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
