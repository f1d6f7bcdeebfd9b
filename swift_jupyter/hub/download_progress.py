"""How far a download of several repositories is, in memory and as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from swift_jupyter.hub.progress import FileProgress, PullProgress

RepoState = Literal["waiting", "downloading", "done", "failed", "stopped"]


@dataclass(frozen=True)
class RepoProgress:
    """How one of the repositories stands.

    Parameters
    ----------
    name : str
        The name that was asked for.
    state : {"waiting", "downloading", "done", "failed", "stopped"}
        How it stands.
    done_bytes : int
        What is there.
    total_bytes : int or None
        Its size; None while unknown.
    source : str
        Where it comes from, for people.
    path : str
        Where its files are, once it is done.
    reason : str
        Why it failed.
    """

    name: str
    state: RepoState = "waiting"
    done_bytes: int = 0
    total_bytes: int | None = None
    source: str = ""
    path: str = ""
    reason: str = ""


@dataclass(frozen=True)
class DownloadProgress:
    """How a download stands.

    Parameters
    ----------
    repos : tuple of RepoProgress
        All repositories, in the order asked for.
    pull : PullProgress or None
        The last report about the repository at work.
    notices : tuple of str
        What the user should know, the oldest first.
    seconds : float
        The time since the work began.
    """

    repos: tuple[RepoProgress, ...]
    pull: PullProgress | None = None
    notices: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def done_bytes(self) -> int:
        """What is there, of all repositories."""
        return sum(repo.done_bytes for repo in self.repos)

    @property
    def total_bytes(self) -> int | None:
        """The size of all repositories; None while one of them is unknown."""
        sizes = [repo.total_bytes for repo in self.repos]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def share(self) -> float | None:
        """How far it is, 0 to 1; None while that is unknown."""
        total = self.total_bytes
        if all(repo.state == "done" for repo in self.repos):
            return 1.0
        return min(1.0, self.done_bytes / total) if total else None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DownloadProgress:
        """Build it from JSON values.

        Raises
        ------
        KeyError, TypeError, ValueError, AttributeError
            When they are something else.
        """
        repos = tuple(RepoProgress(**_known(RepoProgress, repo)) for repo in value["repos"])
        pull = value.get("pull")
        return cls(
            repos,
            _pull_from_json(pull) if pull else None,
            tuple(str(text) for text in value.get("notices", ())),
            float(value.get("seconds", 0.0)),
        )


def _pull_from_json(value: dict[str, Any]) -> PullProgress:
    values = _known(PullProgress, value)
    files = values.get("files", ())
    values["files"] = tuple(FileProgress(**_known(FileProgress, file)) for file in files)
    values["notices"] = tuple(str(text) for text in values.get("notices", ()))
    return PullProgress(**values)


def _known(kind: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Leave out fields that a newer version may have added."""
    names = {spec.name for spec in dataclasses.fields(kind)}
    return {name: item for name, item in value.items() if name in names}


def read_download_progress(path: Path) -> DownloadProgress | None:
    """Read what `DownloadProgress.to_json` gave; None when it is absent or broken."""
    try:
        return DownloadProgress.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
