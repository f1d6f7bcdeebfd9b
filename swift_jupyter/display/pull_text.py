"""A pull in words and in HTML: the whole, each file at work, and what the user should know."""

from __future__ import annotations

import html
from collections.abc import Sequence

from swift_jupyter.commands.results import duration_text
from swift_jupyter.display import blocks
from swift_jupyter.hub.progress import FileProgress, PullProgress
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _

_SHOWN_NOTICES = 6
_PATH_CHARACTERS = 60


def phase_text(progress: PullProgress) -> str:
    """Return what is being done, and from where."""
    source = progress.source
    words = {
        "listing": _("asking {source}", source=source),
        "waiting": _("waiting for another process that pulls the same"),
        "downloading": _("from {source}", source=source) if source else _("downloading"),
        "verifying": _("verifying"),
        "converting": _("converting to safetensors"),
        "publishing": _("putting the files in place"),
    }
    return words.get(progress.phase, progress.phase)


def share(progress: PullProgress) -> float | None:
    """Return how far the phase is, 0 to 1; None while that is unknown."""
    if not progress.total_bytes:
        return None
    return min(1.0, progress.done_bytes / progress.total_bytes)


def amounts(progress: PullProgress) -> list[str]:
    """Return how much is there, how fast it comes, and how long it will take."""
    parts: list[str] = []
    part = share(progress)
    if part is not None and progress.total_bytes:
        parts.append(f"{part:.0%}")
        parts.append(f"{size_text(progress.done_bytes)}/{size_text(progress.total_bytes)}")
    elif progress.done_bytes:
        parts.append(size_text(progress.done_bytes))
    if progress.bytes_per_second and progress.phase == "downloading":
        parts.append(f"{size_text(progress.bytes_per_second)}/s")
    if progress.seconds_left is not None and (part is None or part < 1):
        parts.append(_("{time} left", time=duration_text(progress.seconds_left)))
    if progress.total_files and progress.total_files > 1:
        parts.append(
            _("{done}/{total} files", done=progress.finished_files, total=progress.total_files)
        )
    return parts


def headline(title: str, progress: PullProgress) -> str:
    """Return a pull in one line."""
    parts = [title, phase_text(progress)]
    if progress.file and not progress.files:
        parts[-1] += f": {progress.file}"
    return " · ".join([part for part in parts if part] + amounts(progress))


def file_line(file: FileProgress) -> str:
    """Return one file in words."""
    size = size_text(file.done_bytes)
    if file.total_bytes is not None and file.state != "done":
        size += f"/{size_text(file.total_bytes)}"
    return "  ".join([part for part in (short_path(file.path), size, file_state(file)) if part])


def file_state(file: FileProgress) -> str:
    """Return how a file stands, and where its bytes come from."""
    words = {
        "waiting": _("waiting"),
        "downloading": file.source,
        "verifying": _("verifying"),
        "done": _("done"),
        "failed": _("failed"),
    }
    return words.get(file.state, file.state)


def short_path(path: str) -> str:
    """Return a path whose middle is left out when it is long; its end tells most."""
    if len(path) <= _PATH_CHARACTERS:
        return path
    head = _PATH_CHARACTERS // 3
    return f"{path[:head]}…{path[head + 1 - _PATH_CHARACTERS :]}"


def last_notices(notices: Sequence[str]) -> list[str]:
    """Return the last notices, and how many came before them."""
    shown = list(notices[-_SHOWN_NOTICES:])
    if len(notices) > len(shown):
        shown.insert(0, _("({count} earlier notices)", count=len(notices) - len(shown)))
    return shown


def files_html(files: Sequence[FileProgress]) -> str:
    """Return the files as a small table: name, bar, bytes, and where they come from."""
    if not files:
        return ""
    return blocks.table(_file_row(file) for file in files)


def _file_row(file: FileProgress) -> str:
    colour = {"done": blocks.GOOD, "failed": blocks.BAD, "verifying": blocks.WARN}.get(
        file.state, blocks.BRAND
    )
    part = 1.0 if file.state == "done" else None
    if part is None and file.total_bytes:
        part = file.done_bytes / file.total_bytes
    size = size_text(file.done_bytes)
    if file.total_bytes is not None and file.state != "done":
        size += f" / {size_text(file.total_bytes)}"
    cell = '<td style="text-align:left;padding:1px 10px 1px 0">'
    return (
        f'<tr style="background:none">{cell}<code title="{html.escape(file.path)}">'
        f"{html.escape(short_path(file.path))}</code></td>"
        f'<td style="width:140px;padding:1px 10px 1px 0">{blocks.bar(part, colour, "140px")}</td>'
        f"{cell}{html.escape(size)}</td>{cell}{html.escape(file_state(file))}</td></tr>"
    )


def pull_text(title: str, progress: PullProgress) -> str:
    """Return a pull in a few lines."""
    lines = [headline(title, progress), *(f"  {file_line(file)}" for file in progress.files)]
    return "\n".join([*lines, *last_notices(progress.notices)])


def pull_html(title: str, progress: PullProgress) -> str:
    """Return a pull as HTML; every foreign text is escaped."""
    words = phase_text(progress)
    if progress.file and not progress.files:
        words += f": {progress.file}"
    return (
        f'<div role="status">{blocks.heading(title)}{blocks.bar(share(progress))}'
        f"{blocks.lines([' · '.join([words, *amounts(progress)])])}{files_html(progress.files)}"
        f"{blocks.lines(last_notices(progress.notices))}</div>"
    )


def pull_end(title: str, progress: PullProgress, seconds: float, failed: bool) -> str:
    """Return how a pull ended, in one line."""
    if failed:
        return " · ".join([title, _("ended after {time}", time=duration_text(seconds))])
    parts = [title, _("done, {time}", time=duration_text(seconds))]
    if progress.done_bytes:
        parts.append(size_text(progress.done_bytes))
    if progress.source:
        parts.append(_("from {source}", source=progress.source))
    return " · ".join(parts)
