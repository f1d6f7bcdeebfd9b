"""The frontend in a notebook: plain HTML and PNG that stay in the saved file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

from IPython.display import DisplayHandle, display

from swift_jupyter.commands.frontend import Bar
from swift_jupyter.commands.results import duration_text
from swift_jupyter.display import bars as bar_chart
from swift_jupyter.display import blocks, pull_text
from swift_jupyter.display.chart import LossChart
from swift_jupyter.display.progress import LivePull, ProgressBar
from swift_jupyter.display.run_text import headline, html_block, text_block
from swift_jupyter.display.throttle import Throttle
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress

# Drawing may cost at most this share of the time that passes.
_CHART_SHARE = 0.01


class NotebookFrontend:
    """Shows things below the running cell."""

    def notice(self, text: str) -> None:
        """Show one line."""
        print(text)

    def progress(self, title: str) -> NotebookProgress:
        """Open a progress bar."""
        return NotebookProgress(title)

    def pull_view(self, title: str) -> NotebookPull:
        """Open the view of a pull."""
        return NotebookPull(title)

    def bars(self, title: str, bars: Sequence[Bar]) -> None:
        """Show a bar chart, which stays in the saved notebook."""
        plain = bar_chart.text(title, bars)
        display({"image/svg+xml": bar_chart.svg(title, bars), "text/plain": plain}, raw=True)

    def text(self, title: str) -> NotebookText:
        """Open a text that grows."""
        return NotebookText(title)

    def run_view(self) -> NotebookRunView:
        """Open the view of a run."""
        return NotebookRunView()


class _Output:
    """One output of the cell, made at its first update."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None

    @property
    def made(self) -> bool:
        return self._handle is not None

    def update(self, bundle: dict[str, Any]) -> None:
        if self._handle is None:
            self._handle = DisplayHandle()
            display(bundle, raw=True, display_id=self._handle.display_id)
        else:
            self._handle.update(bundle, raw=True)


class NotebookProgress(ProgressBar):
    """A bar that appears only when the work takes a moment.

    Parameters
    ----------
    title : str
        What the work is about.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title, interval=0.2)
        self._output = _Output()

    def close(self, failed: bool, seconds: float) -> None:
        """Say how it ended, if a bar was shown at all."""
        if self._output.made:
            ending = _("failed") if failed else _("done")
            self.draw(f"{ending}, {duration_text(seconds)}", None if failed else 1.0)

    def draw(self, text: str, share: float | None) -> None:
        """Show the bar."""
        line = f"{self.title} · {text}"
        self._output.update(
            {
                "text/plain": line,
                "text/html": f'<div role="status">{html.escape(line)}'
                f"{blocks.bar(share, max_width='500px')}</div>",
            }
        )


class NotebookPull(LivePull):
    """A pull in this process: bar, files and notices; appears only when it takes a moment.

    Parameters
    ----------
    title : str
        What is pulled.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title, interval=0.25)
        self._output = _Output()

    def draw_state(self, state: PullProgress) -> None:
        """Show the pull."""
        self._output.update(
            {
                "text/plain": pull_text.pull_text(self.title, state),
                "text/html": pull_text.pull_html(self.title, state),
            }
        )

    def close(self, failed: bool, seconds: float) -> None:
        """Say how it ended, if anything was shown at all."""
        if not self._output.made or self.last is None:
            return
        line = pull_text.pull_end(self.title, self.last, seconds, failed)
        notices = pull_text.last_notices(self.last.notices)
        share = pull_text.share(self.last) if failed else 1.0
        colour = blocks.WARN if failed else blocks.GOOD
        self._output.update(
            {
                "text/plain": "\n".join([line, *notices]),
                "text/html": f'<div role="status">{blocks.heading(line, colour)}'
                f"{blocks.bar(share, colour)}{blocks.lines(notices)}</div>",
            }
        )


class NotebookText:
    """A text that grows in the cell.

    Parameters
    ----------
    title : str
        A heading, or an empty string.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._text = ""
        self._pending = False
        self._output = _Output()
        self._throttle = Throttle(0.08, share=0.2)

    def __enter__(self) -> NotebookText:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._pending:  # An error came before `finish`; what was said stays.
            self._draw("")

    def append(self, text: str) -> None:
        """Add a piece of text."""
        self._text += text
        self._pending = True
        if self._throttle.due():
            self._throttle.run(lambda: self._draw(""))

    def finish(self, note: str) -> None:
        """Draw the whole text, always."""
        self._draw(note)

    def _draw(self, note: str) -> None:
        self._pending = False
        title = f"<div><strong>{html.escape(self._title)}</strong></div>" if self._title else ""
        small = f'<div style="opacity:.6;font-size:85%">{html.escape(note)}</div>' if note else ""
        body = f'<div style="white-space:pre-wrap">{html.escape(self._text)}</div>'
        plain = f"[{self._title}]\n{self._text}" if self._title else self._text
        self._output.update({"text/plain": plain, "text/html": f"{title}{body}{small}"})


class NotebookRunView:
    """A bar with facts, and the loss chart as an image of its own below it."""

    def __init__(self) -> None:
        self._status = _Output()
        self._image = _Output()
        self._chart: LossChart | None = None
        self._status_throttle = Throttle(0.5)
        self._chart_throttle = Throttle(1.0, share=_CHART_SHARE)
        self._messages: list[str] = []
        self._drawn_rows = 0

    def message(self, text: str) -> None:
        """Show a line below the facts at the next drawing."""
        self._messages.append(text)

    def draw(self, progress: RunProgress) -> None:
        """Bring the view up to date when it is time."""
        if self._status_throttle.due():
            self._status_throttle.run(lambda: self._draw_status(progress))
        # A resumed run may have fewer rows than before.
        if progress.rows and len(progress.rows) != self._drawn_rows and self._chart_throttle.due():
            if self._chart is None:
                self._chart = LossChart()  # Its import does not count as drawing.
            self._chart_throttle.run(lambda: self._draw_chart(progress))

    def close(self, progress: RunProgress) -> None:
        """Draw the last state, always."""
        self._draw_status(progress)
        if progress.rows:
            self._draw_chart(progress)

    def _draw_status(self, progress: RunProgress) -> None:
        self._status.update(
            {
                "text/plain": text_block(progress, self._messages),
                "text/html": html_block(progress, self._messages),
            }
        )

    def _draw_chart(self, progress: RunProgress) -> None:
        if self._chart is None:
            self._chart = LossChart()
        self._drawn_rows = len(progress.rows)
        image = base64.b64encode(self._chart.png(progress)).decode("ascii")
        self._image.update({"image/png": image, "text/plain": headline(progress)})
