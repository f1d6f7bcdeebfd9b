"""Hands verified files over, one after the other."""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer.hashing import Digests
from swift_jupyter.hub.transfer.jobs import FileJob, SmallTask
from swift_jupyter.hub.transfer.part_file import part_key
from swift_jupyter.hub.transfer.scheduler import Scheduler
from swift_jupyter.hub.transfer.worker import disk_failure

Deliver = Callable[[RemoteFile, Path, str, str], None]
_SYNCED_FROM = 16 << 20


@dataclass(slots=True)
class _Parcel:
    number: int
    file: RemoteFile
    path: Path
    digests: Digests
    job: FileJob | None = None


class Delivery(threading.Thread):
    """A thread that calls `deliver`, so that no connection waits for it.

    Parameters
    ----------
    scheduler : Scheduler
        Is told what is delivered.
    deliver : callable
        Moves a part to its place.
    parts : Path
        Where small files are written to before.
    """

    def __init__(self, scheduler: Scheduler, deliver: Deliver, parts: Path) -> None:
        super().__init__(name="delivery", daemon=True)
        self._scheduler = scheduler
        self._deliver = deliver
        self._parts = parts
        self._parcels: queue.SimpleQueue[_Parcel | None] = queue.SimpleQueue()
        self._numbers = itertools.count()

    def run(self) -> None:
        """Work until `close` is called."""
        while (parcel := self._parcels.get()) is not None:
            if self._scheduler.stopped:
                self._put_back(parcel)
                continue
            try:
                self._hand_over(parcel)
            except OSError as error:
                self._put_back(parcel)
                self._scheduler.fatal(disk_failure(error))
            except BaseException as error:
                self._put_back(parcel)
                self._scheduler.fatal(error)

    def close(self) -> None:
        """Let the thread end after what is in the queue."""
        self._parcels.put(None)

    def take_small(self, task: SmallTask, content: memoryview, digests: Digests) -> None:
        """Write a small file and queue it. Nothing wrong is ever on the disk."""
        name = f"{part_key(task.file)}.{os.getpid()}-{next(self._numbers)}.part"
        path = self._parts / name
        try:
            with path.open("xb", buffering=0) as stream:
                position = 0
                while position < len(content):
                    position += stream.write(content[position:]) or 0
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self._parcels.put(_Parcel(task.number, task.file, path, digests))

    def take(self, job: FileJob, digests: Digests) -> None:
        """Queue a verified file."""
        self._parcels.put(_Parcel(job.number, job.file, job.part.path, digests, job))

    def _hand_over(self, parcel: _Parcel) -> None:
        job = parcel.job
        if job is not None and (job.size or 0) >= _SYNCED_FROM:
            # A loss of power must not leave holes in a file that counts as verified.
            job.part.sync()
        self._deliver(parcel.file, parcel.path, parcel.digests.sha256, parcel.digests.git_sha1)
        if job is not None:
            job.part.delivered()
        self._scheduler.delivered(parcel.number, job)

    def _put_back(self, parcel: _Parcel) -> None:
        if parcel.job is None:
            parcel.path.unlink(missing_ok=True)
