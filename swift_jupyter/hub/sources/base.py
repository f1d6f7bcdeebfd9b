"""The interface of a place to pull from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from swift_jupyter.hub.reference import RepoReference

if TYPE_CHECKING:
    from swift_jupyter.hub.lock_file import LockEntry
    from swift_jupyter.hub.progress import Report
    from swift_jupyter.hub.snapshot import Snapshot
    from swift_jupyter.settings import Settings

Trouble = Literal[
    "not_found", "incomplete", "denied", "unreachable", "corrupt", "offline", "changed", "failed"
]


class SourceUnavailable(Exception):
    """A source cannot give a repository; the next source may.

    Parameters
    ----------
    reason : str
        Why, for people.
    trouble : str
        The sort of reason, for programs: not_found, incomplete, denied,
        unreachable, corrupt, offline, changed or failed.
    answers : sequence of (str, SourceUnavailable), optional
        When it asked several places: the name of each, and what it said.
    """

    def __init__(
        self,
        reason: str,
        trouble: Trouble = "failed",
        answers: Sequence[tuple[str, SourceUnavailable]] = (),
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.trouble = trouble
        self.answers = tuple(answers)


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
    max_connections : int
        How many connections are used at once.
    locked : LockEntry, optional
        The exact files that are wanted.
    """

    settings: Settings
    environ: Mapping[str, str]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    local_dir: Path | None = None
    max_connections: int = 16
    locked: LockEntry | None = None


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
