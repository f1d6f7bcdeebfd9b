"""Measuring addresses: how soon they answer, and how fast a small piece of a file comes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from swift_jupyter.hub.api.base import Endpoint, hub_api
from swift_jupyter.hub.http.client import Client, HttpError, Limits
from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

PIECE_BYTES = 256 * 1024
PROBE_SECONDS = 6.0
# Small, public, and at both hubs under one name.
PROBE_MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
_BLOCK = 64 * 1024
_NOT_THERE = frozenset(("not_found", "incomplete", "denied"))


class HealthRecorder(Protocol):
    """Takes what was measured."""

    def succeeded(self, endpoint: str, count: int, seconds: float) -> None:
        """Note that bytes came."""

    def failed(self, endpoint: str, reason: str) -> None:
        """Note that a request failed."""


@dataclass(frozen=True)
class ProbeResult:
    """What one address answered.

    Parameters
    ----------
    endpoint : Endpoint
        Who was asked.
    state : {"good", "empty", "failed"}
        ``empty``: it answers, but does not give the repository that was asked for.
    latency : float or None
        Seconds until the listing was there.
    bytes_per_second : float or None
        Of the piece, the wait for its first byte included; over one connection.
    piece_bytes : int
        How many bytes the piece had.
    error : str
        What went wrong, for people.
    steps : tuple of (str, str)
        What was tried, and what came of it, for a report.
    """

    endpoint: Endpoint
    state: str
    latency: float | None = None
    bytes_per_second: float | None = None
    piece_bytes: int = 0
    error: str = ""
    steps: tuple[tuple[str, str], ...] = ()


def probe(
    endpoints: Sequence[Endpoint],
    environ: Mapping[str, str],
    health: HealthRecorder,
    *,
    model: str = PROBE_MODEL,
    seconds: float = PROBE_SECONDS,
    finished: Callable[[ProbeResult], None] | None = None,
) -> list[ProbeResult]:
    """Measure all addresses at once.

    Parameters
    ----------
    endpoints : sequence of Endpoint
        Whom to ask.
    environ : mapping
        Environment variables, for proxies and certificates.
    health : HealthRecorder
        Remembers what was measured.
    model : str
        The ``owner/name`` whose listing and a piece of which is asked for.
    seconds : float
        The time for all of it. What does not answer by then counts as failed.
    finished : callable, optional
        Takes each result as soon as it is there.

    Returns
    -------
    list of ProbeResult
        One for each address, in the order given.
    """
    limits = Limits(connect=seconds / 2, first_byte=seconds / 2, stall=seconds / 2)
    deadline = time.monotonic() + seconds
    results: dict[int, ProbeResult] = {}
    with _workers(len(endpoints)) as workers:
        waiting = {
            workers.submit(_probe_one, endpoint, environ, limits, model, deadline): number
            for number, endpoint in enumerate(endpoints)
        }
        with contextlib.suppress(concurrent.futures.TimeoutError):
            for future in concurrent.futures.as_completed(waiting, timeout=seconds):
                result = results[waiting[future]] = future.result()
                if finished is not None:
                    finished(result)
    found = [
        results.get(number) or _too_slow(endpoint, seconds)
        for number, endpoint in enumerate(endpoints)
    ]
    for result in found:
        _remember(result, health)
    return found


@contextlib.contextmanager
def _workers(count: int) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    workers = concurrent.futures.ThreadPoolExecutor(max(1, count), "probe")
    try:
        yield workers
    finally:
        # A server that sends byte by byte must not hold the caller; its thread ends by itself.
        workers.shutdown(wait=False, cancel_futures=True)


def _probe_one(
    endpoint: Endpoint, environ: Mapping[str, str], limits: Limits, model: str, deadline: float
) -> ProbeResult:
    client = Client(environ, limits=limits, connections=1)
    steps: list[tuple[str, str]] = []
    try:
        return _measure(endpoint, client, model, deadline, steps)
    except SourceUnavailable as error:
        steps.append((_("result"), error.reason))
        state = "empty" if error.trouble in _NOT_THERE else "failed"
        return ProbeResult(endpoint, state, error=error.reason, steps=tuple(steps))
    except HttpError as error:
        steps.append((_("result"), error.text))
        return ProbeResult(endpoint, "failed", error=error.text, steps=tuple(steps))
    finally:
        client.close()


def _measure(
    endpoint: Endpoint,
    client: Client,
    model: str,
    deadline: float,
    steps: list[tuple[str, str]],
) -> ProbeResult:
    api = hub_api(endpoint, client, deadline=max(0.1, deadline - time.monotonic()))
    steps.append((_("listing of {model}", model=model), _("asked")))
    started = time.monotonic()
    listing = api.list_files(model, "model", None)
    latency = time.monotonic() - started
    text = _("{count} files in {time} ms", count=len(listing.files), time=round(latency * 1000))
    steps[-1] = (steps[-1][0], text)
    file = _piece_of(listing)
    if file is None:
        return ProbeResult(endpoint, "good", latency, steps=tuple(steps))
    url, headers = api.origin(listing).request(file.path)
    steps.append((_("{size} bytes of {file}", size=PIECE_BYTES, file=file.path), _("asked")))
    started = time.monotonic()
    count = _read_piece(client, url, headers, deadline)
    passed = max(time.monotonic() - started, 1e-6)
    text = _("{count} bytes in {time} ms", count=count, time=round(passed * 1000))
    steps[-1] = (steps[-1][0], text)
    return ProbeResult(endpoint, "good", latency, count / passed, count, steps=tuple(steps))


def _piece_of(listing: RepoListing) -> RemoteFile | None:
    """Return the smallest file that is large enough, else the largest."""
    sized = sorted((f for f in listing.files if f.size), key=lambda file: file.size or 0)
    large = [file for file in sized if (file.size or 0) >= PIECE_BYTES]
    return large[0] if large else sized[-1] if sized else None


def _read_piece(client: Client, url: str, headers: dict[str, str], deadline: float) -> int:
    """Read the beginning of a file and return how many bytes came."""
    response = client.open(url, {**headers, "Range": f"bytes=0-{PIECE_BYTES - 1}"})
    try:
        if response.status not in (200, 206):
            raise HttpError(
                "status",
                _("the file is answered with {status}", status=response.status),
                status=response.status,
            )
        block = memoryview(bytearray(_BLOCK))
        read = 0
        # A server without ranges sends all of it; a piece is enough.
        while read < PIECE_BYTES and (count := response.readinto(block)):
            read += count
            if time.monotonic() > deadline:
                raise HttpError("timeout", _("it is too slow"))
        return read
    finally:
        response.close(reuse=False)


def _too_slow(endpoint: Endpoint, seconds: float) -> ProbeResult:
    text = _("no answer within {seconds} s", seconds=f"{seconds:g}")
    return ProbeResult(endpoint, "failed", error=text, steps=((_("result"), text),))


def _remember(result: ProbeResult, health: HealthRecorder) -> None:
    if result.state == "failed":
        health.failed(result.endpoint.url, result.error)
    elif result.bytes_per_second:
        seconds = result.piece_bytes / result.bytes_per_second
        health.succeeded(result.endpoint.url, result.piece_bytes, seconds)
    else:
        health.succeeded(result.endpoint.url, 0, 0.0)
