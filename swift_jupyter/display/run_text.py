"""A run in words: the facts that the chart does not show, and the chart's text form."""

from __future__ import annotations

from swift_jupyter.commands.results import duration_text
from swift_jupyter.display import blocks, download_text
from swift_jupyter.display.series import sparkline
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress
from swift_jupyter.runs.record import State

_BAR_WIDTH = 24
_COLOURS = {
    State.DONE: blocks.GOOD,
    State.FAILED: blocks.BAD,
    State.LOST: blocks.BAD,
    State.STOPPED: blocks.WARN,
}


def facts(progress: RunProgress) -> list[tuple[str, str]]:
    """Return what is known, as pairs of label and text."""
    found: list[tuple[str, str]] = []
    loss, eval_loss = progress.latest("loss"), progress.latest("eval_loss")
    if loss is not None:
        found.append((_("loss"), f"{loss:.4f}"))
    if eval_loss is not None:
        found.append((_("eval loss"), f"{eval_loss:.4f}"))
    accuracy = progress.latest("token_acc")
    if accuracy is not None:
        found.append((_("token accuracy"), f"{accuracy:.1%}"))
    rate = progress.latest("learning_rate")
    if rate is not None:
        found.append((_("learning rate"), f"{rate:.2e}"))
    speed = progress.latest("tokens_per_second")
    if speed is not None:
        found.append((_("tokens/s"), f"{speed:.0f}"))
    memory = progress.latest("memory(GiB)")
    if memory is not None:
        found.append((_("memory"), f"{memory:.2f} GiB"))
    seconds = progress.latest("seconds")
    if seconds is not None:
        found.append((_("elapsed"), duration_text(seconds)))
    remaining = progress.latest("remaining_seconds")
    if remaining is not None and progress.state.active:
        found.append((_("left"), duration_text(remaining)))
    return found


def headline(progress: RunProgress) -> str:
    """Return the run's name, state, phase and step."""
    record = progress.record
    if record.command == "download":
        return download_text.headline(progress)
    parts = [f"{record.id} · {progress.state.value}"]
    if progress.state.active and progress.phase:
        parts.append(_phase(progress))
    elif progress.max_steps:
        parts.append(_("step {step}/{total}", step=progress.step, total=progress.max_steps))
    return " · ".join(parts)


def _phase(progress: RunProgress) -> str:
    done, total = progress.phase_done, progress.phase_total
    if done is None or not total:
        return progress.phase
    if total > 1_000_000:  # Rows and steps are never that many; bytes are.
        return f"{progress.phase} {size_text(done)}/{size_text(total)}"
    return f"{progress.phase} {done}/{total}"


def fraction(progress: RunProgress) -> float | None:
    """Return how far the current phase is, 0 to 1, or None when that is not known."""
    if progress.record.command == "download":
        return download_text.share(progress)
    if not progress.state.active:
        return progress.step / progress.max_steps if progress.max_steps else None
    if progress.phase_done is None or not progress.phase_total:
        return None
    return min(1.0, progress.phase_done / progress.phase_total)


def one_line(progress: RunProgress) -> str:
    """Return the run as one line for a terminal."""
    share = fraction(progress)
    bar = ""
    if share is not None:
        filled = round(share * _BAR_WIDTH)
        bar = f"[{'#' * filled}{'-' * (_BAR_WIDTH - filled)}] "
    return bar + "  ".join([headline(progress), *(f"{k} {v}" for k, v in facts(progress))])


def text_block(progress: RunProgress, messages: list[str]) -> str:
    """Return the run as a few lines, with the course of the loss."""
    if progress.record.command == "download":
        return download_text.text_block(progress, messages)
    lines = [one_line(progress)]
    for key, label in (("loss", _("loss")), ("eval_loss", _("eval loss"))):
        _steps, values = progress.series(key)
        if len(values) > 1:
            lines.append(f"{label} {values[0]:.3f} {sparkline(values)} {values[-1]:.3f}")
    return "\n".join([*lines, *progress.notices, *messages])


def html_block(progress: RunProgress, messages: list[str]) -> str:
    """Return the run's bar, facts and notices as HTML; every text is escaped."""
    if progress.record.command == "download":
        return download_text.html_block(progress, messages)
    colour = _COLOURS.get(progress.state, blocks.BRAND)
    return (
        f'<div role="status">{blocks.heading(headline(progress), colour)}'
        f"{blocks.bar(fraction(progress), colour)}"
        f"<div>{blocks.labelled(facts(progress))}</div>"
        f"{blocks.lines([*progress.notices, *messages])}</div>"
    )
