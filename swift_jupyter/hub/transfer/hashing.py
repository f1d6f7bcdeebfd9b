"""Hashes of what arrives, computed while it arrives."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer.jobs import FileJob, git_blob_sha1
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from swift_jupyter.hub.transfer.scheduler import Scheduler

BOTH_HASHES = 16 << 20
_BLOCK = 1 << 20
_WORTHWHILE = 4 << 20


class Digests:
    """SHA-256 and git's blob SHA-1 of a content; the latter may be empty."""

    __slots__ = ("git_sha1", "sha256")

    def __init__(self, sha256: str, git_sha1: str = "") -> None:
        self.sha256 = sha256
        self.git_sha1 = git_sha1


def content_digests(content: memoryview) -> Digests:
    """Return both hashes of a content in memory."""
    git = git_blob_sha1(len(content))
    git.update(content)
    return Digests(hashlib.sha256(content).hexdigest(), git.hexdigest())


def is_wanted(file: RemoteFile, digests: Digests) -> bool:
    """Tell whether a content has the hashes that are listed; true if none are."""
    if file.sha256:
        return digests.sha256 == file.sha256.lower()
    if file.git_sha1:
        return digests.git_sha1 == file.git_sha1.lower()
    return True


def damage(file: RemoteFile, digests: Digests) -> str:
    """Return, for people, which hash was expected and which was found."""
    if file.sha256:
        sort, expected, found = "sha256", file.sha256, digests.sha256
    else:
        sort, expected, found = "git sha1", file.git_sha1 or "", digests.git_sha1
    return _("expected {sort} {expected}, got {found}", sort=sort, expected=expected, found=found)


class Hasher(threading.Thread):
    """Follows the files that are arriving and hashes them from the front.

    Parameters
    ----------
    scheduler : Scheduler
        Knows the files.
    complete : callable
        Takes a file and its hashes once all of it has arrived.
    """

    def __init__(self, scheduler: Scheduler, complete: Callable[[FileJob, Digests], None]) -> None:
        super().__init__(name="hasher", daemon=True)
        self._scheduler = scheduler
        self._complete = complete

    def run(self) -> None:
        """Work until the transfer ends."""
        try:
            buffer = memoryview(bytearray(_BLOCK))
            while (job := self._next()) is not None:
                self._follow(job, buffer)
        except BaseException as error:
            self._scheduler.fatal(error)

    def _next(self) -> FileJob | None:
        condition = self._scheduler.condition
        with condition:
            while True:
                if self._scheduler.stopped:
                    return None
                job = self._most_urgent()
                if job is not None:
                    job.hashing = True
                    if job.hashed_generation != job.generation or not job.digests:
                        _restart(job)
                    return job
                condition.wait(0.1)

    def _most_urgent(self) -> FileJob | None:
        jobs = [job for job in self._scheduler.jobs if not job.hashing]
        for job in jobs:
            if job.state == "verifying":
                return job
        for job in jobs:
            known = job.hashed if job.hashed_generation == job.generation else 0
            if (
                job.state == "downloading"
                and job.size is not None
                and job.part.frontier - known >= _WORTHWHILE
            ):
                return job
        return None

    def _follow(self, job: FileJob, buffer: memoryview) -> None:
        generation = job.hashed_generation
        size = job.size or 0
        while job.hashed < (frontier := job.part.frontier):
            while job.hashed < frontier:
                if self._scheduler.stopped or job.generation != generation:
                    break
                block = buffer[: min(_BLOCK, frontier - job.hashed)]
                count = job.part.read(block, job.hashed)
                if count == 0:
                    break
                for digest in job.digests.values():
                    digest.update(block[:count])
                job.hashed += count
            else:
                continue
            break
        with self._scheduler.condition:
            job.hashing = False
            whole = job.state == "verifying" and job.hashed == size and job.generation == generation
            if whole:
                # Nobody shall take it up again.
                job.hashing = True
        if whole:
            names = {name: digest.hexdigest() for name, digest in job.digests.items()}
            self._complete(job, Digests(names["sha256"], names.get("git_sha1", "")))


def _restart(job: FileJob) -> None:
    job.hashed = 0
    job.hashed_generation = job.generation
    job.digests = {"sha256": hashlib.sha256()}
    size = job.size or 0
    if size < BOTH_HASHES or not job.file.sha256:
        job.digests["git_sha1"] = git_blob_sha1(size)
