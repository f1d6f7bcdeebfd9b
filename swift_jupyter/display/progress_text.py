"""The words of a progress bar."""

from __future__ import annotations

from swift_jupyter.commands.results import duration_text, size_text
from swift_jupyter.i18n import translate as _


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
