"""How well addresses do: remembered between processes, forgotten when it is old.

Every transfer feeds it. An address that fails again and again is left alone for a
while (its circuit is open), then tried once more (half-open), and either taken back
(closed) or left alone for longer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from swift_jupyter.files import write_json_atomically
from swift_jupyter.settings import Settings

Circuit = Literal["closed", "open", "half-open"]

OPENS_AFTER = 3
FIRST_PAUSE, PAUSE_GROWTH, LONGEST_PAUSE = 5.0, 3.0, 600.0
# What fails at the same moment, on several connections, has one cause.
_SAME_MOMENT = 0.5
_ERROR_WEIGHT = 0.2
_ERROR_HALF_LIFE = 1800.0
_SPEED_MEMORY = 10.0  # seconds of transfer
_SPEED_AGE = 7 * 86400.0
# Below this the time is that of the request, not that of the bytes.
_SPEED_BYTES = 200_000
_UNRELIABLE = 0.5
_FLUSH_SECONDS = 2.0
_LOCK_SECONDS = 1.0
_MOST_ENDPOINTS = 200
_MOST_REASON = 200


class KnownHealth(Protocol):
    """What choosing among addresses needs to know."""

    def allows(self, endpoint: str) -> bool:
        """Tell whether the address may be asked now."""

    def order(self, endpoints: Sequence[str]) -> list[str]:
        """Return the addresses, the best first."""


@dataclass(frozen=True)
class EndpointHealth:
    """What is known of one address.

    Attributes
    ----------
    bytes_per_second : float or None
        Of one connection, weighted towards the last seconds of transfer.
    error_rate : float
        Share of requests that failed, weighted towards the last ones.
    last_success, last_failure : float
        Seconds since 1970; 0 for never.
    reason : str
        Why it failed last, for people.
    failures : int
        Moments at which it failed since its last success.
    openings : int
        How often the circuit was opened since its last success.
    open_until : float
        Until when it is left alone.
    measured : float
        When `bytes_per_second` was last brought up to date.
    """

    bytes_per_second: float | None = None
    error_rate: float = 0.0
    last_success: float = 0.0
    last_failure: float = 0.0
    reason: str = ""
    failures: int = 0
    openings: int = 0
    open_until: float = 0.0
    measured: float = 0.0

    def circuit(self, now: float) -> Circuit:
        """Return the state of the circuit breaker."""
        if not self.openings:
            return "closed"
        # A clock that was set back must not keep it open for years.
        return "open" if now < self.open_until <= now + LONGEST_PAUSE else "half-open"

    def speed(self, now: float) -> float | None:
        """Return the bytes per second, None when that was never known or is too old."""
        return self.bytes_per_second if now - self.measured < _SPEED_AGE else None

    def errors(self, now: float) -> float:
        """Return the error rate, faded by the time since the last failure."""
        age = max(0.0, now - self.last_failure)
        return float(self.error_rate * 0.5 ** (age / _ERROR_HALF_LIFE))

    def after_success(self, now: float, size: int, seconds: float) -> EndpointHealth:
        """Return what is known after `size` bytes in `seconds`."""
        speed, measured = self.speed(now), self.measured
        if size >= _SPEED_BYTES and seconds > 0:
            weight = 1 - math.exp(-seconds / _SPEED_MEMORY)
            weight = max(weight, 0.1)
            observed = size / seconds
            speed = observed if speed is None else speed + weight * (observed - speed)
            measured = now
        return dataclasses.replace(
            self,
            bytes_per_second=speed,
            error_rate=self.errors(now) * (1 - _ERROR_WEIGHT),
            last_success=now,
            failures=0,
            openings=0,
            open_until=0.0,
            measured=measured,
        )

    def after_failure(self, now: float, reason: str) -> EndpointHealth:
        """Return what is known after a failure."""
        again = not 0 <= now - self.last_failure < _SAME_MOMENT or self.failures == 0
        rate = self.errors(now)
        known = dataclasses.replace(
            self,
            error_rate=rate + _ERROR_WEIGHT * (1 - rate) if again else rate,
            last_failure=now,
            reason=reason[:_MOST_REASON],
            failures=self.failures + again,
        )
        circuit = known.circuit(now)
        opens = circuit == "half-open" or (circuit == "closed" and known.failures >= OPENS_AFTER)
        return known._opened(now) if opens else known

    def _opened(self, now: float) -> EndpointHealth:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * PAUSE_GROWTH ** min(self.openings, 20))
        return dataclasses.replace(self, openings=self.openings + 1, open_until=now + pause)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> EndpointHealth:
        """Build it from a stored value; what does not fit is left at its default."""
        kept: dict[str, Any] = {}
        for spec in dataclasses.fields(cls):
            item = value.get(spec.name)
            if spec.name == "reason":
                kept["reason"] = str(item or "")[:_MOST_REASON]
            elif isinstance(item, (int, float)) and math.isfinite(item) and item >= 0:
                kept[spec.name] = int(item) if spec.type == "int" else float(item)
        return cls(**kept)


_Step = Callable[[EndpointHealth], EndpointHealth]


class StoredHealth:
    """The health of all addresses, in one small file that processes share.

    Parameters
    ----------
    path : Path
        The file, which may not exist.
    clock : callable, optional
        Returns seconds since 1970; for tests.

    Notes
    -----
    Any number of threads may call it. Each process adds what it saw to what the file
    says by then, under a lock, so that nobody's findings get lost. A file that cannot be
    read or written does no harm: then only this process remembers.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._known = _read(path)
        self._unwritten: list[tuple[str, _Step]] = []
        self._written = clock()

    @classmethod
    def of(cls, settings: Settings) -> StoredHealth:
        """Return the health that is stored in the user's state folder."""
        return cls(health_file(settings))

    def known(self, endpoint: str) -> EndpointHealth:
        """Return what is known of an address."""
        with self._lock:
            return self._known.get(endpoint, EndpointHealth())

    def circuit(self, endpoint: str) -> Circuit:
        """Return the state of an address's circuit breaker."""
        return self.known(endpoint).circuit(self._clock())

    def allows(self, endpoint: str) -> bool:
        """Tell whether the address may be asked now."""
        return self.circuit(endpoint) != "open"

    def order(self, endpoints: Sequence[str]) -> list[str]:
        """Return the addresses, the best first.

        Those that work come first, then the unreliable, then those with an open circuit;
        among those that work, only a speed of less than half the best one's counts.
        Addresses of unknown speed stay behind the one before them.
        """
        now = self._clock()
        known = {endpoint: self.known(endpoint) for endpoint in endpoints}
        speeds = {
            endpoint: speed * (1 - health.errors(now))
            for endpoint, health in known.items()
            if (speed := health.speed(now))
        }
        best = max(speeds.values(), default=0.0)
        ranks: dict[str, tuple[int, int]] = {}
        slower = 0
        for endpoint, health in known.items():
            if endpoint in speeds:
                slower = int(math.log2(best / max(speeds[endpoint], 1.0)))
            trouble = 2 if health.circuit(now) == "open" else health.errors(now) >= _UNRELIABLE
            ranks[endpoint] = int(trouble), slower
        return sorted(endpoints, key=ranks.__getitem__)

    def succeeded(self, endpoint: str, count: int, seconds: float) -> None:
        """Note that `count` bytes came in `seconds` over one connection."""
        now = self._clock()
        self._note(endpoint, lambda health: health.after_success(now, count, seconds))

    def failed(self, endpoint: str, reason: str) -> None:
        """Note that a request failed, and why."""
        now = self._clock()
        self._note(endpoint, lambda health: health.after_failure(now, reason))

    def forget(self, endpoint: str) -> None:
        """Forget what is known of an address."""
        self._note(endpoint, lambda _health: EndpointHealth())

    def flush(self) -> None:
        """Write what was not written yet; call it at the end of a transfer."""
        if self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def _note(self, endpoint: str, step: _Step) -> None:
        with self._lock:
            self._known[endpoint] = step(self._known.get(endpoint, EndpointHealth()))
            self._unwritten.append((endpoint, step))
            due = self._clock() - self._written >= _FLUSH_SECONDS
        if due:
            self.flush()

    def _write(self) -> None:
        with self._lock:
            steps, self._unwritten = self._unwritten, []
            self._written = self._clock()
        if not steps:
            return
        with _shared_lock(self._path):
            known = _read(self._path) or {}
            for endpoint, step in steps:
                known[endpoint] = step(known.get(endpoint, EndpointHealth()))
            known = _newest(known)
            if not _replace(self._path, known):
                return
        with self._lock:
            self._known = known
            for endpoint, step in self._unwritten:  # Noted while this was written.
                known[endpoint] = step(known.get(endpoint, EndpointHealth()))


def health_file(settings: Settings) -> Path:
    """Return the path of the stored health."""
    return settings.state_path / "mirrors" / "health.json"


@contextlib.contextmanager
def _shared_lock(path: Path) -> Iterator[None]:
    """Keep other processes out while the file is replaced; without a lock, go on anyway."""
    from filelock import FileLock, Timeout

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, Timeout, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{path}.lock", timeout=_LOCK_SECONDS))
        yield


def _read(path: Path) -> dict[str, EndpointHealth]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["endpoints"]
        return {
            str(endpoint): EndpointHealth.from_json(value)
            for endpoint, value in stored.items()
            if isinstance(value, dict)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _newest(known: dict[str, EndpointHealth]) -> dict[str, EndpointHealth]:
    if len(known) <= _MOST_ENDPOINTS:
        return known
    latest = sorted(
        known.items(), key=lambda item: -max(item[1].last_success, item[1].last_failure)
    )
    return dict(latest[:_MOST_ENDPOINTS])


def _replace(path: Path, known: dict[str, EndpointHealth]) -> bool:
    content = {
        "version": 1,
        "endpoints": {endpoint: dataclasses.asdict(health) for endpoint, health in known.items()},
    }
    try:
        write_json_atomically(path, content, durable=False)
    except OSError:
        return False
    return True
