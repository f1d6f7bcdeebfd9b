"""The loss chart: one private matplotlib figure, reused for every frame."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from swift_jupyter.display.series import smooth, thin
from swift_jupyter.runs.progress import RunProgress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RAW, _SMOOTH, _EVAL, _QUIET = "#9ecae1", "#08519c", "#d94801", "#54278f"


class LossChart:
    """Draws train and evaluation loss, learning rate and speed as a PNG.

    Notes
    -----
    The figure belongs to this object alone and never to pyplot, so that drawing in
    the middle of a user's own plotting cell disturbs nothing. Not for two threads.
    Its words stay English: matplotlib's own font has no Chinese characters.
    """

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure: Figure = Figure(figsize=(8.0, 3.2), dpi=100, layout="constrained")
        self._canvas = FigureCanvasAgg(self.figure)
        grid = self.figure.add_gridspec(2, 2, width_ratios=(2.4, 1))
        self._loss = self.figure.add_subplot(grid[:, 0])
        self._rate = self.figure.add_subplot(grid[0, 1])
        self._speed = self.figure.add_subplot(grid[1, 1], sharex=self._rate)

    def png(self, progress: RunProgress) -> bytes:
        """Return the chart of a run as it stands."""
        self._draw(progress)
        buffer = io.BytesIO()
        self._canvas.print_png(buffer)
        return buffer.getvalue()

    def _draw(self, progress: RunProgress) -> None:
        for axes in (self._loss, self._rate, self._speed):
            axes.clear()
            axes.grid(alpha=0.25)
        self._draw_loss(progress)
        self._line(self._rate, progress, "learning_rate", "learning rate")
        self._line(self._speed, progress, "tokens_per_second", "tokens/s")
        self._rate.tick_params(labelbottom=False)
        self._speed.set_xlabel("step")
        if progress.max_steps:
            for axes in (self._loss, self._rate):
                axes.set_xlim(0, progress.max_steps)

    def _draw_loss(self, progress: RunProgress) -> None:
        axes = self._loss
        steps, losses = progress.series("loss")
        if steps:
            axes.plot(*thin(steps, losses), color=_RAW, lw=1, label="train", **_marks(steps))
            # The more often a loss is logged, the longer the memory of its average.
            weight = 0.3 if len(steps) < 20 else 0.8 if len(steps) < 200 else 0.95
            axes.plot(
                *thin(steps, smooth(losses, weight)), color=_SMOOTH, lw=1.8, label="train, smoothed"
            )
        eval_steps, eval_losses = progress.series("eval_loss")
        if eval_steps:
            axes.plot(
                eval_steps, eval_losses, color=_EVAL, lw=1.4, marker="o", ms=4, label="evaluation"
            )
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        finite = [value for value in losses + eval_losses if math.isfinite(value)]
        if finite and min(finite) >= 0:
            axes.set_ylim(bottom=0, top=1.08 * max(finite) or 1)
        if steps or eval_steps:
            axes.legend(loc="upper right", fontsize=8, framealpha=0.8)

    @staticmethod
    def _line(axes: Axes, progress: RunProgress, key: str, title: str) -> None:
        steps, values = progress.series(key)
        if steps:
            axes.plot(*thin(steps, values), color=_QUIET, lw=1.2, **_marks(steps))
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_ylim(bottom=0)


def _marks(steps: list[int]) -> dict[str, Any]:
    """Mark the points while they are few, since a line of one point is invisible."""
    return {"marker": "o", "ms": 3} if len(steps) < 30 else {}
