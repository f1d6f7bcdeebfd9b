"""A download run in words and in HTML, as `run_text` has it for training."""

from __future__ import annotations

import html

from swift_jupyter.commands.results import duration_text
from swift_jupyter.display import blocks, pull_text
from swift_jupyter.hub.download_progress import DownloadProgress, RepoProgress
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress
from swift_jupyter.runs.record import State

_COLOURS = {
    "done": blocks.GOOD,
    "failed": blocks.BAD,
    "stopped": blocks.WARN,
}
_SHOWN_REPOS = 20


def headline(progress: RunProgress) -> str:
    """Return the download in one line: its name, its state, and how far it is."""
    return " · ".join(part for part in (*_name(progress), *_amounts(progress)) if part)


def _name(progress: RunProgress) -> list[str]:
    return [progress.record.id, progress.record.title, progress.state.value]


def _amounts(progress: RunProgress) -> list[str]:
    known = progress.download
    if known is None:
        return []
    if progress.state.active:
        if known.pull is None:
            return []
        return [pull_text.phase_text(known.pull), *pull_text.amounts(known.pull)]
    parts = [size_text(known.done_bytes)] if known.done_bytes else []
    if _is_one_done(progress) and known.repos[0].source:
        parts.append(_("from {source}", source=known.repos[0].source))
    if known.seconds >= 1:
        parts.append(duration_text(known.seconds))
    return parts


def share(progress: RunProgress) -> float | None:
    """Return how far it is, 0 to 1."""
    known = progress.download
    if known is None:
        return None
    if len(known.repos) == 1 and known.pull is not None and progress.state.active:
        return pull_text.share(known.pull)
    if known.share is not None:
        return known.share
    # Sizes are known only of those that were begun, so each counts the same.
    return sum(_repo_share(repo) for repo in known.repos) / len(known.repos)


def _repo_share(repo: RepoProgress) -> float:
    if repo.state in ("done", "failed"):
        return 1.0
    return min(1.0, repo.done_bytes / repo.total_bytes) if repo.total_bytes else 0.0


def notices(progress: RunProgress, messages: list[str]) -> list[str]:
    """Return what the user should know."""
    known = progress.download
    return [*pull_text.last_notices(known.notices if known else []), *messages]


def text_block(progress: RunProgress, messages: list[str]) -> str:
    """Return the download in a few lines."""
    known = progress.download
    lines = [headline(progress)]
    if known is not None:
        if _lists_repos(progress):
            lines += [f"  {_repo_line(repo)}" for repo in known.repos[:_SHOWN_REPOS]]
        if progress.state.active and known.pull is not None:
            lines += [f"  {pull_text.file_line(file)}" for file in known.pull.files]
    return "\n".join([*lines, *notices(progress, messages)])


def _lists_repos(progress: RunProgress) -> bool:
    """Whether the first line does not say all of every repository."""
    known = progress.download
    if known is None or _is_one_done(progress):
        return False
    return len(known.repos) > 1 or not progress.state.active


def _is_one_done(progress: RunProgress) -> bool:
    known = progress.download
    return progress.state is State.DONE and known is not None and len(known.repos) == 1


def _repo_line(repo: RepoProgress) -> str:
    return "  ".join([repo.name, *_repo_words(repo)])


def _repo_words(repo: RepoProgress) -> list[str]:
    words = [_repo_state(repo)]
    if repo.done_bytes or repo.total_bytes:
        size = size_text(repo.done_bytes)
        if repo.state != "done" and repo.total_bytes is not None:
            size += f"/{size_text(repo.total_bytes)}"
        words.append(size)
    if repo.source and repo.state != "failed":
        words.append(_("from {source}", source=repo.source))
    if repo.path:
        words.append(repo.path)
    if repo.state == "failed":
        words.append(repo.reason.replace("\n", " "))
    return words


def _repo_state(repo: RepoProgress) -> str:
    words = {
        "waiting": _("waiting"),
        "downloading": _("downloading"),
        "done": _("done"),
        "failed": _("failed"),
        "stopped": _("stopped"),
    }
    return words.get(repo.state, repo.state)


def html_block(progress: RunProgress, messages: list[str]) -> str:
    """Return the download as HTML; every foreign text is escaped."""
    known = progress.download
    colour = _run_colour(progress)
    inner = [
        blocks.heading(" · ".join(_name(progress)), colour),
        blocks.bar(share(progress), colour),
        blocks.lines([" · ".join(_amounts(progress))]),
    ]
    if known is not None:
        if _lists_repos(progress):
            inner.append(_repos_html(known))
        if progress.state.active and known.pull is not None:
            inner.append(pull_text.files_html(known.pull.files))
    inner.append(blocks.lines(notices(progress, messages)))
    return f'<div role="status">{"".join(inner)}</div>'


def _run_colour(progress: RunProgress) -> str:
    return {
        State.DONE: blocks.GOOD,
        State.FAILED: blocks.BAD,
        State.LOST: blocks.BAD,
        State.STOPPED: blocks.WARN,
    }.get(progress.state, blocks.BRAND)


def _repos_html(known: DownloadProgress) -> str:
    cell = '<td style="text-align:left;padding:1px 10px 1px 0">'
    rows = []
    for repo in known.repos[:_SHOWN_REPOS]:
        part = 0.0 if repo.state == "failed" else _repo_share(repo)
        small = blocks.bar(part, _COLOURS.get(repo.state, blocks.BRAND), "140px")
        words = html.escape(" · ".join(_repo_words(repo)))
        rows.append(
            f'<tr style="background:none">{cell}<b>{html.escape(repo.name)}</b></td>'
            f'<td style="width:140px;padding:1px 10px 1px 0">{small}</td>{cell}{words}</td></tr>'
        )
    more = len(known.repos) - len(rows)
    note = blocks.lines([_("and {count} more", count=more)]) if more else ""
    return f"{blocks.table(rows)}{note}"
