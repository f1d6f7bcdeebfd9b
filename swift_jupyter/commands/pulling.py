"""Pulling in this process with a live view, for every command that needs a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swift_jupyter.commands.frontend import Frontend
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import Source
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
    sources: Sequence[Source] | None = None,
) -> Snapshot:
    """Pull a repository and show how far it is; see `swift_jupyter.hub.pull.pull`."""
    with frontend.pull_view(reference.name) as view:
        return pull(
            reference,
            settings,
            source=source,
            include=include,
            exclude=exclude,
            local_dir=local_dir,
            report=view.update,
            sources=sources,
        )
