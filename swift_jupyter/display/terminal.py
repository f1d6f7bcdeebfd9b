"""The frontend in a terminal: lines of text, redrawn in place where that is possible."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from swift_jupyter.commands.frontend import Bar
from swift_jupyter.commands.results import columns_of
from swift_jupyter.display import bars as bar_chart
from swift_jupyter.display import pull_text
from swift_jupyter.display.progress import LivePull, ProgressBar
from swift_jupyter.display.run_text import one_line, text_block
from swift_jupyter.display.throttle import Throttle
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.runs.progress import RunProgress

# Foreign text must not move the cursor or change colours.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class TerminalFrontend:
    """Shows things on a stream.

    Parameters
    ----------
    stream : TextIO, optional
        Where to write; standard output by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def notice(self, text: str) -> None:
        """Show one line."""
        print(printable(text), file=self._stream, flush=True)

    def progress(self, title: str) -> TerminalProgress:
        """Open a progress bar."""
        return TerminalProgress(title, _Line(self._stream))

    def pull_view(self, title: str) -> TerminalPull:
        """Open the view of a pull."""
        return TerminalPull(title, _Line(self._stream))

    def bars(self, title: str, bars: Sequence[Bar]) -> None:
        """Show a bar chart in characters."""
        self.notice(bar_chart.text(title, bars))

    def text(self, title: str) -> TerminalText:
        """Open a text that grows."""
        return TerminalText(title, self._stream)

    def run_view(self) -> TerminalRunView:
        """Open the view of a run."""
        return TerminalRunView(_Line(self._stream))


def printable(text: str) -> str:
    """Return `text` without control characters, newline and tab apart."""
    return _CONTROL.sub("", text)


def fit(text: str, columns: int) -> str:
    """Cut `text` to what fits into `columns` of a terminal."""
    while columns_of(text) > columns:
        text = text[: -max(1, (columns_of(text) - columns) // 2)]
    return text


class _Line:
    """A line that is redrawn in place; without a terminal each state is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._dirty = False
        self.live = bool(getattr(stream, "isatty", lambda: False)())

    def draw(self, text: str) -> None:
        text = printable(text)
        if self.live:
            line = fit(text.partition("\n")[0], shutil.get_terminal_size().columns - 1)
            self._stream.write("\r\x1b[2K" + line)
            self._dirty = True
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def settle(self, text: str) -> None:
        """Replace the line by text that stays."""
        text = printable(text)
        self._stream.write(("\r\x1b[2K" if self._dirty else "") + (text + "\n" if text else ""))
        self._dirty = False
        self._stream.flush()


class TerminalProgress(ProgressBar):
    """How far something is, in one line.

    Parameters
    ----------
    title : str
        What the work is about.
    line : _Line
        Where it is drawn.
    """

    def __init__(self, title: str, line: _Line) -> None:
        super().__init__(title, interval=0.2 if line.live else 5.0)
        self._line = line

    def draw(self, text: str, share: float | None) -> None:
        """Show the line."""
        self._line.draw(f"{self.title} · {text}")

    def close(self, failed: bool, seconds: float) -> None:
        """Take the line away."""
        self._line.settle("")


class TerminalPull(LivePull):
    """A pull in one line; what the user should know gets lines that stay.

    Parameters
    ----------
    title : str
        What is pulled.
    line : _Line
        Where it is drawn.
    """

    def __init__(self, title: str, line: _Line) -> None:
        super().__init__(title, interval=0.2 if line.live else 5.0)
        self._line = line
        self._told = 0

    def draw_state(self, state: PullProgress) -> None:
        """Show the line."""
        self._tell(state)
        self._line.draw(pull_text.headline(self.title, state))

    def close(self, failed: bool, seconds: float) -> None:
        """Take the line away; the notices stay."""
        self._line.settle("")
        if self.last is not None:
            self._tell(self.last)

    def _tell(self, state: PullProgress) -> None:
        for text in state.notices[self._told :]:
            self._line.settle(text)
        self._told = max(self._told, len(state.notices))


class TerminalText:
    """A text that grows."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._stream = stream
        if title:
            self._write(f"[{title}]\n")

    def __enter__(self) -> TerminalText:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None

    def append(self, text: str) -> None:
        """Add a piece of text."""
        self._write(text)

    def finish(self, note: str) -> None:
        """End the text."""
        self._write(f"\n({note})\n")

    def _write(self, text: str) -> None:
        self._stream.write(printable(text))
        self._stream.flush()


class TerminalRunView:
    """A run in one line, and at its end in a few."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._throttle = Throttle(0.3 if line.live else 5.0)
        self._seen: tuple[int, str, int] = (-1, "", 0)

    def message(self, text: str) -> None:
        """Show a line that stays."""
        self._line.settle(text)

    def draw(self, progress: RunProgress) -> None:
        """Redraw the line; without a terminal, add one for each phase and log."""
        known = progress.download
        seen = (len(progress.rows), _phase(progress), len(known.notices) if known else 0)
        news = seen != self._seen
        due = self._throttle.due() and (self._line.live or known is not None)
        if due or (news and not self._line.live):
            self._seen = seen
            self._throttle.run(lambda: self._line.draw(one_line(progress)))

    def close(self, progress: RunProgress) -> None:
        """Show the course of the loss, which stays."""
        self._line.settle(text_block(progress, []))


def _phase(progress: RunProgress) -> str:
    """Return what tells one phase of a run from the next."""
    known = progress.download
    if known is None:
        return progress.phase
    at_work = next((repo.name for repo in known.repos if repo.state == "downloading"), "")
    return f"{at_work} {known.pull.phase if known.pull is not None else ''}"
