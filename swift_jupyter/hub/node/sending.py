"""From a file to a socket: `sendfile` where the system has it, memory everywhere else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from swift_jupyter.hub.node.exchange import ClientGone, Exchange

# What the kernel may be handed at once; it takes what fits into the socket's buffer.
SLICE = 4 << 20
_LOOK = 1 << 20
# Answers up to this size leave in one write, together with their head.
SMALL = 64 << 10
_COPY_BLOCK = 256 << 10
_AHEAD = 16 << 20
# The least that Linux reads at once when a page of a file is missing.
_READ_WINDOW = 128 << 10
# A client that takes nothing for so long is gone, whatever its socket says.
IDLE_SECONDS = 60.0
_HAS_SENDFILE = sys.platform == "linux"


class Sender:
    """Sends parts of files. One thread pool for all connections reads what is not in memory.

    Parameters
    ----------
    threads : int
        How many disk reads may wait at a time; the loop itself never waits for a disk.
    """

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="node-disk")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def send(self, exchange: Exchange, file: int, start: int, stop: int) -> None:
        """Send the bytes from `start` up to `stop` of an open file.

        Raises
        ------
        ClientGone
            When the connection is closed or stuck.
        OSError
            When the file cannot be read.
        """
        if exchange.secure or not _HAS_SENDFILE or stop - start <= SMALL:
            await self._copy(exchange, file, start, stop)
        else:
            await self._sendfile(exchange, file, start, stop)

    async def _copy(self, exchange: Exchange, file: int, start: int, stop: int) -> None:
        loop = asyncio.get_running_loop()
        while start < stop:
            count = min(_COPY_BLOCK, stop - start)
            if _in_memory(file, start, count):
                data = os.pread(file, count, start)
            else:
                data = await loop.run_in_executor(self._pool, os.pread, file, count, start)
            if not data:
                raise OSError(f"the file ends at {start} instead of {stop}")
            try:
                await asyncio.wait_for(exchange.write(data), IDLE_SECONDS)
            except asyncio.TimeoutError:
                raise ClientGone from None
            start += len(data)
            exchange.sent += len(data)

    async def _sendfile(self, exchange: Exchange, file: int, start: int, stop: int) -> None:
        try:
            # The stream may close its own descriptor at any time, and its number may
            # be another client's a moment later.
            socket = os.dup(exchange.stream.socket.fileno())
            exchange.stream.set_nodelay(True)
        except (OSError, AttributeError):
            raise ClientGone from None
        loop = asyncio.get_running_loop()
        warm = start
        try:
            while start < stop:
                start = await _Pump(exchange, socket, file, start, stop, warm).run()
                if start < stop:
                    warm = min(start + _AHEAD, stop)
                    await loop.run_in_executor(self._pool, _read_ahead, file, start, warm)
        finally:
            os.close(socket)


class _Pump:
    """Writes whenever the socket takes something, without a coroutine in between.

    It ends early when the next slice is not in memory, since then `sendfile` would wait.
    What lies before `warm` was just read.
    """

    def __init__(
        self, exchange: Exchange, socket: int, file: int, start: int, stop: int, warm: int
    ) -> None:
        self._exchange = exchange
        self._socket = socket
        self._file = file
        self._position = start
        self._stop = stop
        self._checked = warm
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[int] = self._loop.create_future()

    async def run(self) -> int:
        """Send; return how far it came."""
        self._loop.add_writer(self._socket, self._step)
        try:
            while True:
                before = self._position
                finished, _rest = await asyncio.wait({self._done}, timeout=IDLE_SECONDS)
                if finished:
                    return self._done.result()
                if self._position == before:
                    raise ClientGone
        finally:
            self._loop.remove_writer(self._socket)

    def _step(self) -> None:
        if self._done.done():
            return
        try:
            self._write()
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionError):
            self._done.set_exception(ClientGone())
        except OSError as error:
            self._done.set_exception(error)

    def _write(self) -> None:
        if self._checked <= self._position:
            self._checked = min(self._position + SLICE, self._stop)
            if not _in_memory(self._file, self._position, self._checked - self._position):
                self._done.set_result(self._position)
                return
        count = min(SLICE, self._checked - self._position)
        sent = os.sendfile(self._socket, self._file, self._position, count)
        if not sent:
            raise OSError(f"the file ends at {self._position} instead of {self._stop}")
        self._position += sent
        self._exchange.sent += sent
        if self._position >= self._stop:
            self._done.set_result(self._position)


def _in_memory(file: int, start: int, count: int) -> bool:
    """Tell whether reading these bytes would most likely not wait for a disk.

    Only a byte now and then is looked at; the kernel reads ahead between them.
    """
    flag = getattr(os, "RWF_NOWAIT", None)
    if flag is None:
        return not _HAS_SENDFILE
    byte = bytearray(1)
    try:
        for place in (*range(start, start + count, _LOOK), start + count - 1):
            os.preadv(file, [byte], place, flag)
    except BlockingIOError:
        return False
    except OSError:
        return False  # A file system that cannot tell.
    return True


def _read_ahead(file: int, start: int, stop: int) -> None:
    """Bring bytes into memory; runs in a thread."""
    with contextlib.suppress(OSError, AttributeError):
        os.posix_fadvise(file, start, stop - start, os.POSIX_FADV_WILLNEED)
    byte = bytearray(1)
    for place in range(start, stop, _READ_WINDOW):
        os.preadv(file, [byte], place)
