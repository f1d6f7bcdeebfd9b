"""What a pull tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["listing", "waiting", "downloading", "verifying", "converting", "publishing"]
FileState = Literal["waiting", "downloading", "verifying", "done", "failed"]

MAX_SHOWN_FILES = 12


@dataclass(frozen=True)
class FileProgress:
    """How far one file of a pull is.

    Parameters
    ----------
    path : str
        The file's path inside its repository.
    done_bytes : int
        What has arrived.
    total_bytes : int or None
        Its size; None while unknown.
    source : str
        Where its bytes come from at the moment, for people.
    state : {"waiting", "downloading", "verifying", "done", "failed"}
        What is being done with it.
    """

    path: str
    done_bytes: int = 0
    total_bytes: int | None = None
    source: str = ""
    state: FileState = "downloading"


@dataclass(frozen=True)
class PullProgress:
    """One report about a running pull.

    Parameters
    ----------
    source : str
        The sources that are at work, for people.
    repo_id : str
        What is pulled.
    done_bytes : int
        Bytes finished in this phase, those of earlier attempts included.
    total_bytes : int or None
        Bytes of the whole phase; None while unknown.
    file : str or None
        The file at hand.
    phase : {"listing", "waiting", "downloading", "verifying", "converting", "publishing"}
        What is being done. ``waiting``: another process pulls the same.
    bytes_per_second : float or None
        Speed of the network in the last seconds, without what was there already.
    seconds_left : float or None
        Expected time to the end.
    finished_files, total_files : int, int or None
        How many files are complete, and of how many.
    files : tuple of FileProgress
        The active files and the last finished ones, at most `MAX_SHOWN_FILES`.
    notices : tuple of str
        What the user should know, since the beginning of the pull, the oldest first:
        a source was switched, hashes differ.
    """

    source: str
    repo_id: str
    done_bytes: int = 0
    total_bytes: int | None = None
    file: str | None = None
    phase: Phase = "downloading"
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    finished_files: int = 0
    total_files: int | None = None
    files: tuple[FileProgress, ...] = ()
    notices: tuple[str, ...] = ()


Report = Callable[[PullProgress], None]


def ignore_progress(_progress: PullProgress) -> None:
    """Take a report and do nothing."""
