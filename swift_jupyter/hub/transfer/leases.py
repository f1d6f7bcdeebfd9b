"""Makes leases of the files at work and takes them back."""

from __future__ import annotations

import time
from collections.abc import Callable

from swift_jupyter.hub.transfer import leasing
from swift_jupyter.hub.transfer.jobs import FileJob, Lease
from swift_jupyter.hub.transfer.origins import Choice, Chooser, OriginState
from swift_jupyter.hub.transfer.pieces import Ranges
from swift_jupyter.hub.transfer.supply import EQUAL, WHOLE

# After so long without a byte, content without a common hash is better than none.
GONE_SECONDS = 5.0


class Leases:
    """The leases of one transfer. The scheduler calls it with its lock held.

    Parameters
    ----------
    jobs : list of FileJob
        The files at work; shared with the scheduler.
    chooser : Chooser
        Chooses among the origins.
    connections : int
        How many there are.
    queued : callable
        Returns the bytes of files that are not at work yet.
    """

    def __init__(
        self,
        jobs: list[FileJob],
        chooser: Chooser,
        connections: int,
        queued: Callable[[], int],
    ) -> None:
        self._jobs = jobs
        self._chooser = chooser
        self._connections = connections
        self._queued = queued

    def unleased(self) -> int:
        """Return the bytes that no connection has leased."""
        return self._queued() + sum(j.pending.total for j in self._jobs if j.size is not None)

    def lease(self, job: FileJob, choice: Choice) -> Lease | None:
        """Lease the first range that no one has of `job` to a connection with the chosen origin."""
        first = job.pending.first()
        if first is None or job.state == "failed" or (job.resets and job.leases):
            return None
        origin = choice.origin
        if origin is None:
            return None
        offer = origin.offers[job.number]
        if origin.index != job.whole and (job.whole is not None or offer == WHOLE):
            if job.leases:
                return None
            job.whole = job.only = origin.index if offer == WHOLE else None
            # What is there goes only when the other origin really answers.
            job.resets = bool(job.part.written)
            if job.resets:
                first = 0, job.size or 0
        if origin.index in job.streams or job.size is None:
            return self._stream_lease(job, origin)
        start, end = first
        length = leasing.length(
            origin, self.unleased(), self._connections, choice.trial, available=end - start
        )
        end = min(end, start + length)
        job.pending.remove(start, end)
        lease = job.new_lease(origin, start, end)
        lease.trial = origin.trial = choice.trial
        return lease

    def choose(self, job: FileJob) -> Choice:
        """Choose the origin of the next lease of `job`."""
        speed = sum(s.active * (s.speed or 0.0) for s in self._chooser.ranked)
        left = self.unleased() / speed if speed else 0.0
        if job.only is not None:
            choice = self._chooser.choose(job.number, job.troubles, only=job.only)
            if choice.possible:
                return choice
            job.only = None
        choice = self._chooser.choose(job.number, job.troubles, kind=EQUAL, seconds_left=left)
        if choice.origin is None and choice.possible and self._equal_ones_are_gone(job):
            other = self._chooser.choose(job.number, job.troubles, kind=WHOLE)
            choice = other if other.origin is not None else choice
        if choice.possible:
            if choice.origin is not None and choice.origin.index in job.streams:
                ranging = [s for s in self._possible(job) if s.index not in job.streams]
                now = time.monotonic()
                return next((Choice(s, True) for s in ranging if s.usable(now)), choice)
            return choice
        return self._chooser.choose(job.number, job.troubles)

    def _equal_ones_are_gone(self, job: FileJob) -> bool:
        now = time.monotonic()
        return all(s.failures and now - s.last_byte > GONE_SECONDS for s in self._possible(job))

    def _stream_lease(self, job: FileJob, origin: OriginState) -> Lease | None:
        if any(lease.stream for lease in job.leases):
            return None
        if job.size is None:
            end = leasing.UNKNOWN_END
            job.pending = Ranges()
        else:
            if any(lease.remaining for lease in job.leases):
                return None
            end = job.size
            job.pending.remove(0, end)
        lease = job.new_lease(origin, 0, end)
        lease.stream = True
        return lease

    def is_stream(self, lease: Lease) -> bool:
        """Note that an origin ignores ranges; tell whether this answer can be used.

        Only one answer is, and it begins at 0. The lease is widened to the
        whole file then.
        """
        job = lease.job
        job.streams.add(lease.origin.index)
        if job.size is None:
            return True
        if any(other.stream for other in job.leases) or self._can_range(job):
            return False
        for other in job.leases:
            if other.whole_answer and other.remaining and other.origin is lease.origin:
                # Its answer goes on to the end of the file, whatever was stolen from it.
                other.end = job.size
                other.stream = True
                job.pending.remove(0, job.size)
                return False
        job.pending.remove(0, job.size)
        for other in job.leases:
            if other is not lease:
                self.revoke(other)
        lease.start = lease.position = lease.stored = 0
        lease.end = job.size
        lease.stream = True
        lease.mark = (time.monotonic(), 0)
        return True

    def take_back(self, lease: Lease) -> None:
        """Take a lease back and offer what it lacks to others."""
        lease.origin.active -= 1
        lease.response = None
        if lease.trial:
            lease.origin.trial = False
        job = lease.job
        job.leases.remove(lease)
        if job.resets:
            job.resets = False
            job.whole = job.only = None
        if lease.generation != job.generation:
            return
        if job.size is None:
            if not job.leases and lease.position < lease.end:
                job.pending = Ranges([(0, leasing.UNKNOWN_END)])
            return
        others = Ranges((other.stored, other.end) for other in job.leases)
        for start, end in job.part.missing(lease.start, min(lease.end, job.size)):
            for hole in others.holes(start, end):
                job.pending.add(*hole)

    def revoke(self, lease: Lease) -> None:
        """Take a lease away whose rest is somebody else's from now on."""
        lease.end = min(lease.end, lease.position)
        response = lease.response
        if response is not None:
            response.abort()

    def release(self, lease: Lease) -> None:
        """Take a lease away and offer what it lacks to others."""
        position, end = lease.position, lease.end
        self.revoke(lease)
        if lease.generation == lease.job.generation and position < end:
            lease.job.pending.add(position, end)

    def check_arrival(self, job: FileJob) -> None:
        """See whether all bytes of `job` are there."""
        if job.state != "downloading" or job.size is None or job.pending:
            return
        if any(lease.stored < lease.position or lease.remaining for lease in job.leases):
            return
        missing = job.part.missing(0, job.size)
        if missing:
            if not job.leases:
                job.pending = Ranges(missing)
            return
        job.state = "verifying"

    def _possible(self, job: FileJob) -> list[OriginState]:
        return [
            state
            for state in self._chooser.ranked
            if state.offers[job.number] == EQUAL
            and not ((trouble := job.troubles.get(state.index)) and trouble.bad)
        ]

    def others(self, job: FileJob, index: int) -> bool:
        """Tell whether another origin than `index` may give `job`."""
        return any(
            state.offers[job.number]
            and state.index != index
            and not ((trouble := job.troubles.get(state.index)) and trouble.bad)
            for state in self._chooser.ranked
        )

    def _can_range(self, job: FileJob) -> bool:
        now = time.monotonic()
        return any(s.index not in job.streams and s.usable(now) for s in self._possible(job))
