"""One connection: takes tasks, asks, and puts the bytes where they belong."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable

from swift_jupyter.hub.http.client import Client, Response, headers_for
from swift_jupyter.hub.http.errors import HttpError, retry_after_seconds
from swift_jupyter.hub.transfer import refusals
from swift_jupyter.hub.transfer.channel import TransferFailed
from swift_jupyter.hub.transfer.hashing import Digests, content_digests, damage, is_wanted
from swift_jupyter.hub.transfer.jobs import UNKNOWN_END, Lease, SmallTask
from swift_jupyter.hub.transfer.origins import OriginState
from swift_jupyter.hub.transfer.refusals import Refusal
from swift_jupyter.hub.transfer.scheduler import Scheduler
from swift_jupyter.i18n import translate as _

BUFFER = 1 << 20
_STORE_SECONDS = 0.05
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

SmallDone = Callable[[SmallTask, memoryview, Digests], None]


class Worker(threading.Thread):
    """A thread with at most one connection in use.

    Parameters
    ----------
    scheduler : Scheduler
        Gives the tasks.
    client : Client
        Gives the connections.
    small_done : callable
        Takes the content of a small file that has been verified.
    """

    def __init__(self, scheduler: Scheduler, client: Client, small_done: SmallDone) -> None:
        super().__init__(name="transfer", daemon=True)
        self._scheduler = scheduler
        self._client = client
        self._small_done = small_done
        self._response: Response | None = None
        self._buffer: memoryview | None = None

    def run(self) -> None:
        """Work until there is nothing left to do."""
        try:
            self._buffer = memoryview(bytearray(BUFFER))
            while (task := self._scheduler.next_task()) is not None:
                if isinstance(task, SmallTask):
                    self._fetch_small(task)
                else:
                    self._fetch_lease(task)
        except BaseException as error:
            self._scheduler.fatal(disk_failure(error) if isinstance(error, OSError) else error)

    def abort(self) -> None:
        """End a wait for bytes at once."""
        response = self._response
        if response is not None:
            response.abort()

    def _fetch_small(self, task: SmallTask) -> None:
        try:
            content = self._small_content(task)
            digests = content_digests(content)
            if not is_wanted(task.file, digests):
                reason = _(
                    "{origin} sends wrong bytes, the file is damaged: {damage}",
                    origin=task.origin.name,
                    damage=damage(task.file, digests),
                )
                raise Refusal("corrupt", reason, "corrupt", pause=False)
        except Refusal as refusal:
            self._scheduler.failed(task, refusal)
            return
        self._small_done(task, content, digests)
        self._scheduler.small_done(task)

    def _small_content(self, task: SmallTask) -> memoryview:
        assert self._buffer is not None
        size = task.file.size or 0
        url, headers = task.origin.origin.request(task.file.path)
        came = 0
        try:
            response = self._open(url, headers)
            self._check_status(response, task.origin, (200,))
            refusals.check_whole(response, task.origin.name, size)
            self._scheduler.answered(task)
            task.response = response
            while came < size and (count := response.readinto(self._buffer[came:size])):
                came += count
                task.position = came
            beyond = response.length is None and response.readinto(memoryview(bytearray(1)))
            if came < size or beyond:
                raise refusals.wrong_length(task.origin.name, size, came + int(beyond))
            self._finish(reuse=True)
        except HttpError as error:
            raise refusals.refusal_of_error(error, task.origin.name, came) from None
        finally:
            task.response = None
            self._finish(reuse=False)
            if came:
                self._scheduler.gave(task, came)
        return self._buffer[:size]

    def _fetch_lease(self, lease: Lease) -> None:
        try:
            self._stream(lease)
        except HttpError as error:
            refusal = refusals.refusal_of_error(
                error, lease.origin.name, lease.position - lease.start
            )
            self._scheduler.failed(lease, refusal)
        except Refusal as refusal:
            self._scheduler.failed(lease, refusal)
        else:
            self._scheduler.lease_done(lease)

    def _stream(self, lease: Lease) -> None:
        try:
            response = self._answer(lease)
            lease.response = response
            self._scheduler.answered(lease)
            self._receive(lease, response)
            self._check_end(lease, response)
            # A lease that was shortened leaves bytes on the connection.
            self._finish(reuse=True)
        finally:
            lease.response = None
            self._finish(reuse=False)

    def _answer(self, lease: Lease) -> Response:
        """Ask for the range of a lease and check what is announced."""
        job, origin = lease.job, lease.origin
        url, headers = origin.origin.request(job.file.path)
        whole = lease.stream or (lease.start == 0 and lease.end == job.size)
        end = lease.end
        if not whole:
            headers["Range"] = f"bytes={lease.start}-{end - 1}"
        target = job.targets.get(origin.index, url)
        response = self._open(target, headers_for(url, target, headers))
        response.redirected = response.redirected or target != url
        try:
            self._check_status(response, origin, (200, 206))
        except Refusal as refusal:
            if refusal.kind == "redirect":
                refusal.fresh = target == url
                if job.targets.get(origin.index) == target:
                    job.targets.pop(origin.index, None)
            raise
        if response.redirected:
            job.targets[origin.index] = response.url
        if response.status == 200:
            self._check_stream(lease, response, whole)
        elif whole:
            raise refusals.wrong_length(origin.name, job.size, 0)
        else:
            refusals.check_range(response, origin.name, lease.start, end, job.size or 0)
        return response

    def _check_stream(self, lease: Lease, response: Response, whole: bool) -> None:
        job, origin = lease.job, lease.origin
        refusals.check_whole(response, origin.name, job.size)
        if not whole and not self._scheduler.is_stream(lease):
            reason = _("{origin} ignores ranges", origin=origin.name)
            raise Refusal("cut", reason, pause=False)
        lease.whole_answer = True
        if job.size is None and response.length is not None:
            self._scheduler.size_learned(job, response.length)

    def _receive(self, lease: Lease, response: Response) -> None:
        assert self._buffer is not None
        buffer = self._buffer
        filled = 0
        written = time.monotonic()
        try:
            while (left := lease.end - lease.position) > 0:
                count = response.readinto(buffer[filled : min(BUFFER, filled + left)])
                if count == 0:
                    break
                filled += count
                lease.position += count
                now = time.monotonic()
                lease.progressed(now)
                if filled == BUFFER or now - written > _STORE_SECONDS:
                    stored, filled, written = filled, 0, now
                    self._store(lease, buffer[:stored])
        finally:
            # Also what came before a connection broke.
            if filled:
                self._store(lease, buffer[:filled])

    def _store(self, lease: Lease, data: memoryview) -> None:
        self._scheduler.gave(lease, len(data))
        offset = lease.position - len(data)
        job = lease.job
        if lease.generation != job.generation:
            lease.end = lease.position
            return
        if not job.part.write(data, offset):
            lease.end = lease.position
            return
        self._scheduler.stored(lease, offset, lease.position)

    def _check_end(self, lease: Lease, response: Response) -> None:
        """Check that an answer of unknown length ends where the file ends."""
        job, name = lease.job, lease.origin.name
        if lease.end == UNKNOWN_END:
            self._scheduler.size_learned(job, lease.position)
        elif lease.remaining:
            raise refusals.cut_short(name, lease.position - lease.start)
        elif (
            response.length is None
            and lease.end == job.size
            and response.readinto(memoryview(bytearray(1)))
        ):
            raise refusals.wrong_length(name, job.size, lease.end + 1)

    def _open(self, url: str, headers: dict[str, str]) -> Response:
        self._response = self._client.open(url, headers)
        return self._response

    def _check_status(
        self, response: Response, origin: OriginState, expected: tuple[int, ...]
    ) -> None:
        if response.status not in expected:
            response.discard()
            wait = retry_after_seconds(response.headers.get("retry-after"), time.time())
            raise refusals.refusal_of_status(response, origin.name, wait)
        refusals.check_coding(response, origin.name)

    def _finish(self, *, reuse: bool) -> None:
        response, self._response = self._response, None
        if response is not None:
            with contextlib.suppress(Exception):
                response.close(reuse=reuse)


def disk_failure(error: OSError) -> BaseException:
    """Return the end of a transfer that the disk forces."""
    if error.errno in _FULL:
        return TransferFailed(
            _("the disk is full; what has arrived is kept and the next try goes on from there"),
            "disk_full",
        )
    place = error.filename or ""
    return TransferFailed(
        _("cannot write {path}: {error}", path=place, error=error.strerror or error), "disk"
    )
