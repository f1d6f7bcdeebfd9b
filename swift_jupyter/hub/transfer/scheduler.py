"""Decides what each connection does next, and what failures mean."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer import leasing, tending
from swift_jupyter.hub.transfer.channel import TransferFailed
from swift_jupyter.hub.transfer.file_queues import FileQueues
from swift_jupyter.hub.transfer.jobs import EARLIER, FileJob, Lease, SmallTask
from swift_jupyter.hub.transfer.judging import judge
from swift_jupyter.hub.transfer.leases import Leases
from swift_jupyter.hub.transfer.origins import (
    LONGEST_RETRY_AFTER,
    MOST_CORRUPT_TRIES,
    STALL_MEMORY,
    Choice,
    Chooser,
    Health,
    OriginState,
    Trouble,
)
from swift_jupyter.hub.transfer.part_file import PartBusy, PartFile, part_key
from swift_jupyter.hub.transfer.pieces import Ranges
from swift_jupyter.hub.transfer.refusals import Refusal
from swift_jupyter.hub.transfer.supply import Supply
from swift_jupyter.i18n import translate as _

_MOST_OPEN_FILES = 64
_BUSY_SECONDS = 0.25
_LOOK_AGAIN = 0.1
_TRIES_PER_LOOK = 8

Task = SmallTask | Lease
Arrived = Callable[[RemoteFile], bool]


class Scheduler:
    """The state of one transfer. Every method may be called from any thread.

    Parameters
    ----------
    supply : Supply
        The wanted files and their origins.
    parts : Path
        Where parts are kept.
    connections : int
        How many workers ask for tasks.
    health : Health
        Is told how the origins do.
    arrived : callable
        Tells whether a file, which someone else was filling, is there by now.
    patience : float
        Seconds without a byte after which an origin is given up for a file.
    """

    def __init__(
        self,
        supply: Supply,
        parts: Path,
        connections: int,
        health: Health,
        arrived: Arrived,
        patience: float,
    ) -> None:
        self._supply = supply
        self._parts = parts
        self._connections = connections
        self._health = health
        self._arrived = arrived
        self._patience = patience
        self.condition = threading.Condition()
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        self.stopped = False
        self.jobs: list[FileJob] = []
        self.finished: deque[tuple[RemoteFile, str, int]] = deque(maxlen=100)
        self.notices: deque[str] = deque()
        self._told: set[str] = set()
        self.received: Counter[str] = Counter()
        self.last_byte = time.monotonic()
        # The longest time that a server has asked us to wait since the last byte.
        self.asked_wait = 0.0
        self.origins: list[OriginState] = []
        self._chooser = Chooser(connections)
        self._failed: list[tuple[str, str, str]] = []
        wanted = supply.wanted
        self.total = len(wanted)
        self.total_bytes: int | None = 0
        for file in wanted:
            if file.size is None:
                self.total_bytes = None
                break
            self.total_bytes += file.size
        self._queues = FileQueues(wanted)
        self._leases = Leases(
            self.jobs, self._chooser, connections, lambda: self._queues.large_bytes
        )
        self._busy: set[int] = set()
        self._small_troubles: dict[int, dict[int, Trouble]] = {}
        self._small_active: dict[int, SmallTask] = {}
        self.done = 0
        self.done_bytes = 0
        self.settled = 0

    # What workers call

    def next_task(self) -> Task | None:
        """Return what a connection is to do next; waits for it. None is the end."""
        with self.condition:
            while True:
                if self.stopped or self.settled >= self.total:
                    return None
                self._welcome_origins()
                task = self._choose()
                if task is not None:
                    task.origin.began(time.monotonic())
                    return task
                self.condition.wait(_LOOK_AGAIN)

    def answered(self, task: Task) -> None:
        """Note that an origin has answered usefully."""
        with self.condition:
            now = time.monotonic()
            if isinstance(task, Lease):
                task.answered = task.last_byte = now
                task.mark = (now, task.position)
                if task.job.resets:
                    task.job.resets = False
                    task.job.reset()
                    task.generation = task.job.generation
                    task.job.pending.remove(task.start, task.end)
            if not task.origin.proven:
                task.origin.proven = True
                self.condition.notify_all()

    def gave(self, task: Task, count: int) -> None:
        """Count bytes that came."""
        with self.condition:
            now = self.last_byte = time.monotonic()
            task.origin.gave(count, now)
            self.asked_wait = 0.0
            self.received[task.origin.name] += count
            if isinstance(task, SmallTask):
                task.received += count
                return
            trouble = task.job.troubles.get(task.origin.index)
            if trouble is not None:
                trouble.failures = 0

    def stored(self, lease: Lease, start: int, end: int) -> None:
        """Note that bytes are in the part file."""
        with self.condition:
            if lease.generation == lease.job.generation:
                lease.job.note(lease.origin.index, start, end)
            lease.stored = max(lease.stored, end)

    def small_done(self, task: SmallTask) -> None:
        """Note that a small file is fetched; `delivered` will follow."""
        with self.condition:
            task.origin.active -= 1
            now = time.monotonic()
            if now - task.origin.last_praise > 1:
                task.origin.last_praise = now
                self._health.succeeded(task.origin.origin.endpoint, task.received, now - task.began)
            self.condition.notify()

    def lease_done(self, lease: Lease) -> None:
        """Take a lease back that ended as it should."""
        with self.condition:
            self._leases.take_back(lease)
            now = time.monotonic()
            seconds = now - (lease.answered or lease.began)
            count = lease.position - lease.start
            lease.origin.measured(count, seconds)
            if count:
                self._health.succeeded(lease.origin.origin.endpoint, count, seconds)
            self._leases.check_arrival(lease.job)
            self.condition.notify_all()

    def size_learned(self, job: FileJob, size: int) -> None:
        """Take the size of a file from an answer, where none is listed."""
        with self.condition:
            job.size = size
            job.part.resize(size)
            for lease in job.leases:
                lease.end = min(lease.end, size)

    def is_stream(self, lease: Lease) -> bool:
        """Note that an origin ignores ranges; tell whether this answer can be used."""
        with self.condition:
            return self._leases.is_stream(lease)

    def failed(self, task: Task, refusal: Refusal) -> None:
        """Take a task back that failed, and draw the conclusions."""
        with self.condition:
            now = time.monotonic()
            origin = task.origin
            revoked = isinstance(task, Lease) and task.remaining == 0
            if isinstance(task, Lease):
                self._leases.take_back(task)
                troubles, number = task.job.troubles, task.job.number
            else:
                origin.active -= 1
                self._small_active.pop(task.number, None)
                number = task.number
                troubles = self._small_troubles.setdefault(number, {})
            trouble = troubles.setdefault(origin.index, Trouble())
            if not (revoked or self.stopped):
                self._judge(trouble, origin, refusal, now)
            if isinstance(task, SmallTask):
                self._queues.small_later(number, trouble.wait_until)
            else:
                self._leases.check_arrival(task.job)
            self.condition.notify_all()

    def tend(self) -> None:
        """Look after the connections; to be called some times a second."""
        with self.condition:
            if self.stopped:
                return
            tending.measure(self.jobs, self.origins)
            tending.abort_dripping(self._small_active.values(), self._failures_of)
            if len(self.origins) < 2:
                return
            now = time.monotonic()
            for origin, other in tending.release(
                self.jobs, self._chooser, self._leases.unleased(), self._leases.release
            ):
                self._health.failed(origin.origin.endpoint, "stall")
                origin.stalled_until = now + STALL_MEMORY
                self._notice(
                    _(
                        "{origin} stalled; going on with {other}",
                        origin=origin.name,
                        other=other.name,
                    )
                )

    def fatal(self, failure: BaseException) -> None:
        """End the transfer."""
        with self.condition:
            self.failure = self.failure or failure
            self._stop()

    def stop(self) -> None:
        """End the transfer because it is not wanted any more."""
        with self.condition:
            self._stop()

    # What the hasher and the delivery call

    def delivered(self, number: int, job: FileJob | None = None) -> None:
        """Note that a file is in its place."""
        with self.condition:
            file = self._supply.wanted[number]
            size = job.size if job is not None else file.size
            self.finished.append((file, "done", job.generation if job is not None else 0))
            self.done_bytes += size or 0
            self.done += 1
            task = self._small_active.pop(number, None)
            self._small_troubles.pop(number, None)
            if job is not None:
                job.state = "done"
                self.jobs.remove(job)
            if task is not None or job is not None:
                self.last_byte = max(self.last_byte, time.monotonic() - 1)
            self._settle()

    def fetch_again(
        self,
        job: FileJob,
        ranges: list[tuple[int, int]] | None,
        culprits: set[int],
        damage: str,
    ) -> None:
        """Have wrong bytes fetched again, after noting who may have sent them.

        Parameters
        ----------
        ranges : list of (int, int) or None
            The wrong ranges; None when only the whole is known to be wrong.
        culprits : set of int
            Indices of the origins that took part; EARLIER among them for
            bytes that were there before.
        damage : str
            What was expected and what was found, for people.
        """
        with self.condition:
            for index in culprits - {EARLIER}:
                job.trouble(self.origins[index]).corrupt += 1
            alone = len(culprits) == 1
            for index in culprits - {EARLIER}:
                trouble = job.trouble(self.origins[index])
                if trouble.corrupt >= MOST_CORRUPT_TRIES or (
                    alone and self._leases.others(job, index)
                ):
                    trouble.bad = _(
                        "{origin} sends wrong bytes, the file is damaged: {damage}",
                        origin=self.origins[index].name,
                        damage=damage,
                    )
                    trouble.sort = "corrupt"
                self._health.failed(self.origins[index].origin.endpoint, "corrupt")
            job.reset(ranges)
            job.only = None
            if ranges is None:
                # From one origin alone, so that it is clear who is wrong.
                choice = self._chooser.choose(job.number, job.troubles)
                job.only = choice.origin.index if choice.origin else None
            if self._chooser.choose(job.number, job.troubles).possible:
                text = _("{path} arrived with wrong bytes; fetching them again", path=job.file.path)
                self._notice(text)
            self.condition.notify_all()

    def give_up(self, reason: str, trouble: str) -> None:
        """End the transfer because nothing comes any more."""
        with self.condition:
            if not self.stopped:
                self.fatal(TransferFailed(reason, trouble))

    def failures(self) -> list[tuple[str, str, str]]:
        """Return path, reason and sort of trouble of the files that nobody could give."""
        return list(self._failed)

    def waiting_for_network(self) -> bool:
        """Tell whether bytes are still lacking that no one else is fetching."""
        with self.condition:
            return (
                self._queues.untouched
                or any(task.received < (task.file.size or 0) for task in self.small_tasks())
                or any(
                    job.pending or any(lease.remaining for lease in job.leases) for job in self.jobs
                )
            )

    def small_tasks(self) -> list[SmallTask]:
        """Return the small files at work."""
        with self.condition:
            return list(self._small_active.values())

    def busy_files(self) -> list[RemoteFile]:
        """Return the files that someone else is filling."""
        with self.condition:
            return [self._supply.wanted[number] for number in self._busy]

    # Inside: the condition is held

    def _welcome_origins(self) -> None:
        fresh = self._supply.origins(len(self.origins))
        for origin, offers in fresh:
            state = OriginState(len(self.origins), origin, offers)
            self.origins.append(state)
            state.allowed = self._health.allows(origin.endpoint)
            endpoints = [known.origin.endpoint for known in self.origins]
            self._chooser.add(state, self._health.order(endpoints))
            self.last_byte = max(self.last_byte, time.monotonic())

    def _choose(self) -> Task | None:
        work_on_big = self._queues.large_due or any(job.pending for job in self.jobs)
        share = max(1, self._connections // 4)
        if not work_on_big or len(self._small_active) < share:
            task = self._small_task()
            if task is not None:
                return task
        if work_on_big:
            lease = self._lease()
            if lease is not None:
                return lease
            task = self._small_task()
            if task is not None:
                return task
        return leasing.steal(self.jobs, self._chooser, self._leases.revoke)

    def _failures_of(self, task: SmallTask) -> int:
        trouble = self._small_troubles.get(task.number, {}).get(task.origin.index)
        return trouble.failures if trouble else 0

    def _small_task(self) -> SmallTask | None:
        for _attempt in range(_TRIES_PER_LOOK):
            number = self._queues.next_small()
            if number is None:
                return None
            troubles = self._small_troubles.get(number, {})
            choice = self._chooser.choose(number, troubles)
            if choice.origin is not None:
                task = SmallTask(
                    number, self._supply.wanted[number], choice.origin, time.monotonic()
                )
                self._small_active[number] = task
                return task
            if self._lost(choice, number, troubles):
                continue
            self._queues.small_later(number, time.monotonic() + _LOOK_AGAIN)
        return None

    def _lease(self) -> Lease | None:
        for job in list(self.jobs):
            if job.pending:
                lease = self._lease_of(job)
                if lease is not None:
                    return lease
        for _attempt in range(_TRIES_PER_LOOK):
            if len(self.jobs) >= _MOST_OPEN_FILES:
                return None
            number = self._queues.next_large()
            if number is None:
                return None
            opened = self._open(number)
            if opened is not None and (lease := self._lease_of(opened)) is not None:
                return lease
        return None

    def _lease_of(self, job: FileJob) -> Lease | None:
        if job.state == "failed" or not job.pending:
            return None
        choice = self._leases.choose(job)
        if choice.origin is None:
            self._lost(choice, job.number, job.troubles, job)
            return None
        return self._leases.lease(job, choice)

    def _open(self, number: int) -> FileJob | None:
        file = self._supply.wanted[number]
        if number in self._busy and self._arrived(file):
            self._busy.discard(number)
            self.delivered(number)
            return None
        key = part_key(file, self._place(number))
        try:
            part = PartFile(self._parts, key, file.size, file.sha256)
        except PartBusy:
            self._busy.add(number)
            self._queues.large_later(number, time.monotonic() + _BUSY_SECONDS)
            return None
        except OSError as error:
            self.fatal(error)
            return None
        self._busy.discard(number)
        job = FileJob(number, file, part, file.size, {})
        for start, end in part.written:
            job.note(EARLIER, start, end)
        if file.size is None:
            job.pending.add(0, leasing.UNKNOWN_END)
        else:
            job.pending = Ranges(part.missing(0, file.size))
        self.jobs.append(job)
        self._leases.check_arrival(job)
        self.condition.notify_all()
        return job

    def _place(self, number: int) -> str:
        for state in self.origins:
            if state.offers[number]:
                return state.origin.request(self._supply.wanted[number].path)[0]
        return ""

    def _judge(self, trouble: Trouble, origin: OriginState, refusal: Refusal, now: float) -> None:
        self.asked_wait = max(self.asked_wait, min(refusal.retry_after or 0, LONGEST_RETRY_AFTER))
        if judge(trouble, origin, refusal, now, self._patience):
            self._health.failed(origin.origin.endpoint, refusal.kind)
        if not refusal.of_origin:
            return
        other = self._other(origin, now)
        at_once = refusal.kind == "connect" and bool(other)
        if origin.failed(now, refusal.reason, refusal.trouble, at_once) and other:
            text = _("{reason}; going on with {other}", reason=refusal.reason, other=other)
            self._notice(text)

    def _other(self, origin: OriginState, now: float) -> str:
        names = (s.name for s in self._chooser.ranked if s is not origin and s.usable(now))
        return next(names, "")

    def _lost(
        self, choice: Choice, number: int, troubles: dict[int, Trouble], job: FileJob | None = None
    ) -> bool:
        """Settle a file as failed when no origin can give it and none will come."""
        if choice.possible or not self._supply.closed:
            return False
        if self._supply.origins(len(self.origins)):
            return False
        reasons = [t for t in troubles.values() if t.bad]
        # Wrong bytes tell more than anything else that went wrong.
        reasons.sort(key=lambda t: t.sort != "corrupt")
        path = self._supply.wanted[number].path
        reason = "; ".join(dict.fromkeys(t.bad for t in reasons)) or _("no source has it")
        self._failed.append((path, reason, reasons[0].sort if reasons else "not_found"))
        self._small_troubles.pop(number, None)
        generation = job.generation if job is not None else 0
        self.finished.append((self._supply.wanted[number], "failed", generation))
        if job is not None:
            job.state = "failed"
            job.pending = Ranges()
            self.jobs.remove(job)
            if reasons and reasons[0].sort == "corrupt":
                job.part.discard()
            else:
                job.part.close()
        self._settle()
        return True

    def _notice(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.notices.append(text)

    def _settle(self) -> None:
        self.settled += 1
        if self.settled >= self.total:
            self._stop()

    def _stop(self) -> None:
        self.stopped = True
        self.ended.set()
        self.condition.notify_all()
