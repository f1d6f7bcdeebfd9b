"""How far something is: the words of a bar, and when it is drawn."""

from __future__ import annotations

import contextvars
import threading
import time
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.results import duration_text
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from typing_extensions import Self

# What is over sooner needs no bar.
PATIENCE = 0.4


class LiveView:
    """Base of what shows work in this process; a thread of its own draws the newest state.

    So `note` costs nothing however often it is called, and what the work said
    last is drawn even when it then says nothing for a long time.

    Parameters
    ----------
    title : str
        What the work is about.
    interval : float
        At least this many seconds between two drawings.
    """

    def __init__(self, title: str, interval: float) -> None:
        self.title = title
        self._interval = interval
        self._started = time.monotonic()
        self._newest: Any = None
        self._ended = threading.Event()
        # The context says to which cell the output of a thread belongs.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._draw_until_ended,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_rest: object) -> None:
        self._ended.set()
        self._thread.join()
        self.close(failed=kind is not None, seconds=self.seconds)

    @property
    def seconds(self) -> float:
        """The time since the beginning."""
        return time.monotonic() - self._started

    def note(self, state: Any) -> None:
        """Note the newest state."""
        self._newest = state

    def draw_state(self, state: Any) -> None:
        """Show a state."""
        raise NotImplementedError

    def close(self, failed: bool, seconds: float) -> None:
        """Show the end, if anything was drawn."""
        raise NotImplementedError

    def _draw_until_ended(self) -> None:
        drawn = None
        pause = PATIENCE
        while not self._ended.wait(pause):
            newest, pause = self._newest, self._interval
            if newest is not None and newest != drawn:
                drawn = newest
                self.draw_state(newest)


class ProgressBar(LiveView):
    """Base of progress bars: a line, and a share of the whole."""

    def update(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """Note how far it is; `done` and `total` are bytes."""
        self.note((text, done, total))

    def draw_state(self, state: Any) -> None:
        """Show the line and the share."""
        text, done, total = state
        self.draw(*describe(text, done, total, self.seconds))

    def draw(self, text: str, share: float | None) -> None:
        """Show a line and a share, 0 to 1."""
        raise NotImplementedError


class LivePull(LiveView):
    """Base of views of a pull."""

    def __init__(self, title: str, interval: float) -> None:
        super().__init__(title, interval)
        self.last: PullProgress | None = None

    def update(self, progress: PullProgress) -> None:
        """Note how far it is."""
        self.last = progress
        self.note(progress)


def describe(
    text: str, done: float | None, total: float | None, passed: float
) -> tuple[str, float | None]:
    """Return the line of a progress bar and its share, 0 to 1."""
    if not done:
        return text, None
    speed = done / max(passed, 1e-9)
    if not total:
        return f"{text} · {size_text(done)} · {size_text(speed)}/s", None
    left = duration_text((total - done) / max(speed, 1e-9))
    share = min(1.0, done / total)
    line = f"{text} · {share:.0%} · {size_text(done)}/{size_text(total)} · {size_text(speed)}/s"
    return (f"{line} · {_('{time} left', time=left)}" if share < 1 else line), share
