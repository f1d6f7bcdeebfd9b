"""What a pull tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["listing", "downloading", "verifying", "converting"]


@dataclass(frozen=True)
class PullProgress:
    """One report about a running pull.

    Parameters
    ----------
    source : str
        The source that is at work, for people.
    repo_id : str
        What is pulled.
    done_bytes : int
        Bytes finished in this phase.
    total_bytes : int or None
        Bytes of the whole phase; None while unknown.
    file : str or None
        The file at hand.
    phase : {"listing", "downloading", "verifying", "converting"}
        What is being done.
    """

    source: str
    repo_id: str
    done_bytes: int = 0
    total_bytes: int | None = None
    file: str | None = None
    phase: Phase = "downloading"


Report = Callable[[PullProgress], None]


def ignore_progress(_progress: PullProgress) -> None:
    """Take a report and do nothing."""
