"""Files at work and the ranges of them that connections have leased."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer.origins import OriginState, Trouble
from swift_jupyter.hub.transfer.part_file import PartFile
from swift_jupyter.hub.transfer.pieces import Ranges

if TYPE_CHECKING:
    from swift_jupyter.hub.http.client import Response

# Bytes that an earlier transfer left; who sent them is not known.
EARLIER = -1
UNKNOWN_END = 1 << 62
_MARK_SECONDS = 0.25

JobState = Literal["downloading", "verifying", "done", "failed"]


def git_blob_sha1(size: int) -> Any:
    """Return a SHA-1 that has read the head of git's blob object of `size` bytes."""
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % size)
    return digest


@dataclass(slots=True, eq=False)
class SmallTask:
    """A small file that one connection fetches as a whole.

    Attributes
    ----------
    number : int
        Its place among the wanted files.
    received : int
        Bytes that have come and are counted.
    position : int
        Bytes that have come.
    """

    number: int
    file: RemoteFile
    origin: OriginState
    began: float
    received: int = 0
    position: int = 0
    response: Response | None = None


@dataclass(slots=True, eq=False)
class Lease:
    """A range that one connection fetches. Only its owner moves `position`.

    Attributes
    ----------
    end : int
        Exclusive; a thief may lower it at any time.
    position : int
        Up to where bytes have come, written or still in the owner's buffer.
    stored : int
        Up to where they are written.
    stream : bool
        Whether the origin sends the whole file whatever is asked.
    whole_answer : bool
        Whether the answer at hand goes from 0 to the end of the file.
    """

    job: FileJob
    origin: OriginState
    start: int
    end: int
    position: int
    stored: int
    generation: int
    began: float
    trial: bool = False
    stream: bool = False
    whole_answer: bool = False
    answered: float | None = None
    last_byte: float = 0.0
    rate: float = 0.0
    mark: tuple[float, int] = (0.0, 0)
    response: Response | None = None

    @property
    def remaining(self) -> int:
        """Bytes that have not come."""
        return max(0, self.end - self.position)

    def progressed(self, now: float) -> None:
        """Keep the speed up to date after bytes came."""
        self.last_byte = now
        since, position = self.mark
        if now - since >= _MARK_SECONDS:
            speed = (self.position - position) / (now - since)
            self.rate = speed if not self.rate else (self.rate + speed) / 2
            self.mark = (now, self.position)

    def speed(self, now: float, otherwise: float) -> float:
        """Estimate the bytes per second to come."""
        quiet = now - (self.last_byte or self.began)
        known = self.rate or self.origin.speed or otherwise
        return known if quiet < 0.5 else known * 0.25 / quiet


@dataclass(slots=True, eq=False)
class FileJob:
    """A file that is fetched in ranges.

    Attributes
    ----------
    size : int or None
        None as long as it is unknown.
    pending : Ranges
        What no connection has leased.
    providers : dict
        Who gave which bytes, by the index of the origin.
    only : int or None
        The one origin that may go on with it.
    whole : int or None
        The origin whose content may not be mixed with others'.
    resets : bool
        Whether what is there has to go when the present lease is answered.
    targets : dict
        Where an origin redirects to, by its index.
    streams : set of int
        Origins that ignore ranges.
    generation : int
        Grows when bytes that were there are thrown away.
    """

    number: int
    file: RemoteFile
    part: PartFile
    size: int | None
    troubles: dict[int, Trouble]
    pending: Ranges = field(default_factory=Ranges)
    leases: list[Lease] = field(default_factory=list)
    providers: dict[int, Ranges] = field(default_factory=dict)
    only: int | None = None
    whole: int | None = None
    targets: dict[int, str] = field(default_factory=dict)
    streams: set[int] = field(default_factory=set)
    resets: bool = False
    generation: int = 0
    state: JobState = "downloading"
    origin_name: str = ""
    # Of the hasher:
    hashing: bool = False
    hashed: int = 0
    hashed_generation: int = 0
    digests: dict[str, Any] = field(default_factory=dict)

    def trouble(self, origin: OriginState) -> Trouble:
        """Return the record of trouble with `origin`."""
        return self.troubles.setdefault(origin.index, Trouble())

    def note(self, origin: int, start: int, end: int) -> None:
        """Remember who gave bytes."""
        self.providers.setdefault(origin, Ranges()).add(start, end)

    def reset(self, ranges: list[tuple[int, int]] | None = None) -> None:
        """Throw away `ranges`, or all; they have to come again."""
        if ranges is None:
            ranges = [(0, UNKNOWN_END)]
        for start, end in ranges:
            self.part.forget(start, end)
            for provided in self.providers.values():
                provided.remove(start, end)
        self.generation += 1
        self.state = "downloading"
        self.pending = Ranges(self.part.missing(0, self.size or 0))

    @property
    def done(self) -> int:
        """Bytes that are there, those in buffers included."""
        if self.size is None:
            return max((lease.position for lease in self.leases), default=0)
        buffered = sum(max(0, lease.position - lease.stored) for lease in self.leases)
        return min(self.size, self.part.written_bytes + buffered)

    def new_lease(self, origin: OriginState, start: int, end: int) -> Lease:
        """Lease a range to a connection."""
        now = time.monotonic()
        lease = Lease(
            self, origin, start, end, start, start, self.generation, now, mark=(now, start)
        )
        self.leases.append(lease)
        return lease
