"""The interface of a place to pull from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from swift_jupyter.hub.progress import Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.settings import Settings

Trouble = Literal[
    "not_found", "incomplete", "denied", "unreachable", "corrupt", "offline", "failed"
]


class SourceUnavailable(Exception):
    """A source cannot give a repository; the next source may.

    Parameters
    ----------
    reason : str
        Why, for people.
    trouble : str
        The sort of reason, for programs: not_found, incomplete, denied,
        unreachable, corrupt, offline or failed.
    """

    def __init__(self, reason: str, trouble: Trouble = "failed") -> None:
        super().__init__(reason)
        self.reason = reason
        self.trouble = trouble


@dataclass(frozen=True)
class PullRequest:
    """How a repository is to be pulled.

    Parameters
    ----------
    settings : Settings
        The preferences in force.
    environ : mapping
        The environment variables that count.
    include, exclude : tuple of str
        Glob patterns of repository paths; with no `include`, a model's
        redundant weight formats are left out.
    local_dir : Path, optional
        A folder that shall hold the files instead of the cache.
    """

    settings: Settings
    environ: Mapping[str, str]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    local_dir: Path | None = None


class Source(Protocol):
    """A place that can give repositories."""

    @property
    def name(self) -> str:
        """The name for people."""

    def offers(self, reference: RepoReference) -> bool:
        """Tell, without any I/O over a network, whether asking makes sense."""

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Return a complete, verified copy.

        Raises
        ------
        SourceUnavailable
            When this source cannot give it but another one may.
        UserError
            When no other source would help, such as a full disk.
        """
