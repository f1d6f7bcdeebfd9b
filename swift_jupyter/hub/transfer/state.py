"""What a transfer tells while it works and when it is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

FileState = Literal["waiting", "downloading", "verifying", "done", "failed"]


@dataclass(frozen=True)
class FileTransfer:
    """How far one file is.

    Parameters
    ----------
    path : str
    done, total : int, int or None
        Bytes that have arrived, and of how many.
    origin : str
        Who gives it, for people.
    state : {"waiting", "downloading", "verifying", "done", "failed"}
    frontier : int
        Bytes from the beginning on that are in the part file without a hole.
    part : Path or None
        The part file, while there is one.
    restarts : int
        Grows when bytes that had arrived are thrown away.
    """

    path: str
    done: int
    total: int | None
    origin: str = ""
    state: FileState = "downloading"
    frontier: int = 0
    part: Path | None = None
    restarts: int = 0


@dataclass(frozen=True)
class TransferState:
    """How far a transfer is.

    Parameters
    ----------
    done_bytes, total_bytes : int, int or None
        What is there, earlier transfers included, and what there will be.
    finished_files, total_files : int
        Files that are verified and delivered.
    fetched_bytes : int
        What came over the network, wrong and repeated bytes included.
    fetched_from : dict of str to int
        The same by the name of the origin.
    files : tuple of FileTransfer
        All that are at work, and those that were finished since the last report, at most 100.
    """

    done_bytes: int
    total_bytes: int | None
    finished_files: int
    total_files: int
    fetched_bytes: int
    fetched_from: dict[str, int]
    files: tuple[FileTransfer, ...]


class Observer(Protocol):
    """Is told by the thread that called `fetch`, about ten times a second."""

    def progress(self, state: TransferState) -> None:
        """Take a report."""

    def notice(self, text: str) -> None:
        """Take a sentence that the user should know."""

    def check(self) -> None:
        """Raise `TransferCancelled` when the transfer is no longer wanted."""


class QuietObserver:
    """Takes all reports and does nothing with them."""

    def progress(self, state: TransferState) -> None:
        """Do nothing."""

    def notice(self, text: str) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Go on."""


@dataclass(frozen=True)
class TransferSummary:
    """What a transfer did.

    Parameters
    ----------
    files : int
        Files delivered, or found to have arrived by other hands.
    total_bytes : int
        Their size.
    fetched_bytes : int
        What came over the network.
    fetched_from : dict of str to int
        The same by the name of the origin.
    seconds : float
        How long it took.
    notices : tuple of str
    """

    files: int
    total_bytes: int
    fetched_bytes: int
    fetched_from: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    notices: tuple[str, ...] = ()
