"""Fetches files from interchangeable origins: over many connections, resumable, verified."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer.channel import TransferCancelled, TransferFailed
from swift_jupyter.hub.transfer.delivery import Deliver, Delivery
from swift_jupyter.hub.transfer.hashing import Hasher
from swift_jupyter.hub.transfer.origins import Health, NoHealth
from swift_jupyter.hub.transfer.scheduler import Arrived, Scheduler
from swift_jupyter.hub.transfer.state import (
    FileTransfer,
    Observer,
    QuietObserver,
    TransferState,
    TransferSummary,
)
from swift_jupyter.hub.transfer.supply import Conflict, Supply
from swift_jupyter.hub.transfer.tending import TEND_SECONDS
from swift_jupyter.hub.transfer.verification import PieceHashes, Verification
from swift_jupyter.hub.transfer.worker import Worker, disk_failure
from swift_jupyter.i18n import translate as _

__all__ = [
    "Conflict",
    "FileTransfer",
    "Observer",
    "QuietObserver",
    "Supply",
    "TransferCancelled",
    "TransferFailed",
    "TransferState",
    "TransferSummary",
    "fetch",
]

PATIENCE = 30.0
_LOOK_SECONDS = 0.05
_REPORT_SECONDS = 0.1
_SYNC_SECONDS = 1.0
_HASHERS = 2
_LEAVE_SECONDS = 0.2


def fetch(
    wanted: Sequence[RemoteFile],
    supply: Supply,
    parts: Path,
    deliver: Deliver,
    observer: Observer | None = None,
    client: Client | None = None,
    *,
    connections: int = 16,
    health: Health | None = None,
    piece_hashes: PieceHashes | None = None,
    arrived: Arrived | None = None,
    patience: float = PATIENCE,
) -> TransferSummary:
    """Fetch all `wanted` files.

    Parameters
    ----------
    wanted : sequence of RemoteFile
        What `supply` was made of.
    supply : Supply
        Who can give it. Origins may join while the transfer runs.
    parts : Path
        Where unfinished files are kept, under the names of their hashes.
    deliver : callable
        Called with a file, the path of its verified part, its SHA-256 and its
        git blob SHA-1 (for files under 16 MiB, and where only that is
        listed; else empty), from one thread. It moves the part away.
    observer : Observer, optional
        Is told how it goes, by the calling thread.
    client : Client, optional
        The connections.
    connections : int, optional
        How many are used at once.
    health : Health, optional
        Remembers how addresses do.
    piece_hashes : callable, optional
        Returns for the SHA-256 of a file the size of its pieces and their
        SHA-256, or None.
    arrived : callable, optional
        Asked about a file that another process was fetching: whether it is
        where `deliver` would have moved it.
    patience : float, optional
        Seconds without any byte after which the transfer is given up.

    Returns
    -------
    TransferSummary

    Raises
    ------
    TransferFailed
        After everything possible was tried. All that could be delivered is;
        what has arrived of the rest stays in `parts`.
    TransferCancelled
        Whatever `observer.check` raises is passed on, within 0.3 s.
    """
    if len(wanted) != len(supply.wanted):
        raise ValueError("the supply was made of other files")
    observer = observer or QuietObserver()
    own_client = client is None
    client = client or Client({}, connections=connections)
    health = health or NoHealth()
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_failure(error) from error
    scheduler = Scheduler(
        supply, parts, connections, health, arrived or (lambda file: False), patience
    )
    transfer = _Transfer(scheduler, supply, client, deliver, parts, connections, piece_hashes)
    try:
        return transfer.run(observer, patience)
    finally:
        if own_client:
            client.close()


class _Transfer:
    def __init__(
        self,
        scheduler: Scheduler,
        supply: Supply,
        client: Client,
        deliver: Deliver,
        parts: Path,
        connections: int,
        piece_hashes: PieceHashes | None,
    ) -> None:
        self._scheduler = scheduler
        self._supply = supply
        self._delivery = Delivery(scheduler, deliver, parts)
        verification = Verification(scheduler, self._delivery.take, piece_hashes)
        self._hashers = [Hasher(scheduler, verification.judge) for _number in range(_HASHERS)]
        count = max(1, min(connections, self._tasks(connections)))
        self._workers = [
            Worker(scheduler, client, self._delivery.take_small) for _number in range(count)
        ]
        self._began = time.monotonic()
        self._notices: list[str] = []

    def run(self, observer: Observer, patience: float) -> TransferSummary:
        if not self._supply.wanted:
            return self._summary()
        threads: list[threading.Thread] = [self._delivery, *self._hashers, *self._workers]
        try:
            for thread in threads:
                thread.start()
            self._watch(observer, patience)
        finally:
            self._leave()
        self._tell(observer)
        if self._scheduler.failure is not None:
            raise self._scheduler.failure
        failures = self._scheduler.failures()
        if failures:
            raise self._failed(failures)
        return self._summary()

    def _tasks(self, connections: int) -> int:
        """Return how many connections can have something to do, roughly."""
        count = 0
        for file in self._supply.wanted:
            count += 1 + (file.size or 0) // (1 << 20)
            if count >= connections:
                break
        return count

    def _watch(self, observer: Observer, patience: float) -> None:
        scheduler = self._scheduler
        reported = synced = tended = time.monotonic()
        syncer: threading.Thread | None = None
        while not scheduler.ended.wait(_LOOK_SECONDS):
            observer.check()
            now = time.monotonic()
            if now - reported >= _REPORT_SECONDS:
                reported = now
                self._tell(observer)
            if now - synced >= _SYNC_SECONDS and (syncer is None or not syncer.is_alive()):
                synced = now
                syncer = threading.Thread(target=self._sync, name="sync", daemon=True)
                syncer.start()
            if now - tended >= TEND_SECONDS:
                tended = now
                scheduler.tend()
            if now - scheduler.last_byte > patience + scheduler.asked_wait:
                self._consider_giving_up()

    def _sync(self) -> None:
        with self._scheduler.condition:
            jobs = list(self._scheduler.jobs)
        for job in jobs:
            job.part.sync()

    def _consider_giving_up(self) -> None:
        scheduler = self._scheduler
        if not scheduler.waiting_for_network():
            return
        if not scheduler.origins and not self._supply.closed:
            return
        reasons = [origin.reason for origin in scheduler.origins if origin.reason]
        state = self._state()
        scheduler.give_up(
            _(
                "nothing has come for some time ({reasons}); {done} of {total} bytes are kept,"
                " and the same command goes on from there",
                reasons="; ".join(dict.fromkeys(reasons)) or _("no answer"),
                done=state.done_bytes,
                total="?" if state.total_bytes is None else state.total_bytes,
            ),
            "unreachable",
        )

    def _leave(self) -> None:
        """End all threads, or leave alone those that hang; then close the parts."""
        scheduler = self._scheduler
        scheduler.stop()
        for worker in self._workers:
            worker.abort()
        self._delivery.close()
        until = time.monotonic() + _LEAVE_SECONDS
        for thread in (*self._workers, *self._hashers, self._delivery):
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))
        with scheduler.condition:
            jobs = list(scheduler.jobs)
        for job in jobs:
            job.part.close()

    def _tell(self, observer: Observer) -> None:
        while self._scheduler.notices:
            text = self._scheduler.notices.popleft()
            self._notices.append(text)
            observer.notice(text)
        observer.progress(self._state())

    def _state(self) -> TransferState:
        scheduler = self._scheduler
        with scheduler.condition:
            done = scheduler.done_bytes
            files = [
                FileTransfer(file.path, file.size or 0, file.size, "", "waiting")
                for file in scheduler.busy_files()
            ]
            for task in scheduler.small_tasks():
                done += task.received
                files.append(
                    FileTransfer(task.file.path, task.received, task.file.size, task.origin.name)
                )
            for job in scheduler.jobs:
                here = job.done
                done += here
                names = dict.fromkeys(lease.origin.name for lease in job.leases)
                files.append(
                    FileTransfer(
                        job.file.path,
                        here,
                        job.size,
                        ", ".join(names),
                        job.state,
                        job.part.frontier,
                        job.part.path,
                        job.generation,
                    )
                )
            while scheduler.finished:
                file, state, generation = scheduler.finished.popleft()
                files.append(
                    FileTransfer(
                        file.path,
                        (file.size or 0) if state == "done" else 0,
                        file.size,
                        "",
                        "done" if state == "done" else "failed",
                        restarts=generation,
                    )
                )
            return TransferState(
                done,
                scheduler.total_bytes,
                scheduler.done,
                scheduler.total,
                scheduler.received.total(),
                dict(scheduler.received),
                tuple(files[:100]),
            )

    def _failed(self, failures: list[tuple[str, str, str]]) -> TransferFailed:
        path, reason, trouble = min(
            failures, key=lambda failure: _GRAVITY.get(failure[2], len(_GRAVITY))
        )
        if len(failures) == 1:
            return TransferFailed(_("{path}: {reason}", path=path, reason=reason), trouble)
        return TransferFailed(
            _(
                "{path}: {reason}; and {count} more files",
                path=path,
                reason=reason,
                count=len(failures) - 1,
            ),
            trouble,
        )

    def _summary(self) -> TransferSummary:
        scheduler = self._scheduler
        return TransferSummary(
            scheduler.done,
            scheduler.done_bytes,
            scheduler.received.total(),
            dict(scheduler.received),
            time.monotonic() - self._began,
            tuple(self._notices),
        )


_GRAVITY = {sort: n for n, sort in enumerate(("corrupt", "denied", "unreachable", "not_found"))}
