"""Pulling with a progress bar, for every command that needs a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swift_jupyter.commands.frontend import Frontend
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


def pull_with_progress(
    reference: RepoReference,
    frontend: Frontend,
    settings: Settings,
    *,
    source: str = "auto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    local_dir: Path | None = None,
) -> Snapshot:
    """Pull a repository and show how far it is; see `swift_jupyter.hub.pull.pull`."""
    with frontend.progress(reference.name) as view:

        def report(progress: PullProgress) -> None:
            view.update(_describe(progress), progress.done_bytes, progress.total_bytes)

        return pull(
            reference,
            settings,
            source=source,
            include=include,
            exclude=exclude,
            local_dir=local_dir,
            report=report,
        )


def _describe(progress: PullProgress) -> str:
    words = {
        "listing": _("asking {source}", source=progress.source),
        "downloading": _("from {source}", source=progress.source),
        "verifying": _("verifying"),
        "converting": _("converting to safetensors"),
    }
    text = words[progress.phase]
    return f"{text}: {progress.file}" if progress.file else text
