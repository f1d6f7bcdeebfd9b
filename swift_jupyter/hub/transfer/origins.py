"""What a transfer learns about each origin, and how it chooses among them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from swift_jupyter.hub.transfer.supply import OriginLike

MOST_CORRUPT_TRIES = 2
MOST_MISMATCHES = 3
MOST_LOST_REDIRECTS = 3
# So many failures in a row, over some time, and the origin is given up for the file.
MOST_FAILURES = 8
FAILURES_BEFORE_DOWN = 3
PROOF_SECONDS = 1.0
STALL_MEMORY = 15.0
LONGEST_RETRY_AFTER = 60.0
_UNPROVEN_CONNECTIONS = 4
_LONGEST_PAUSE = 3.0
# What fails at the same moment on many connections is one failure.
_SAME_FAILURE = 0.2
_SPEED_WEIGHT = 0.3
_CLEARLY_FASTER = 2.0


class Health(Protocol):
    """Remembers how well addresses do, between transfers."""

    def allows(self, endpoint: str) -> bool:
        """Tell whether the address is worth asking."""

    def order(self, endpoints: Sequence[str]) -> list[str]:
        """Return the addresses, the best first."""

    def succeeded(self, endpoint: str, count: int, seconds: float) -> None:
        """Note that bytes came."""

    def failed(self, endpoint: str, reason: str) -> None:
        """Note that a request failed."""


class NoHealth:
    """Remembers nothing."""

    def allows(self, endpoint: str) -> bool:
        """Allow all."""
        return True

    def order(self, endpoints: Sequence[str]) -> list[str]:
        """Keep the order."""
        return list(endpoints)

    def succeeded(self, endpoint: str, count: int, seconds: float) -> None:
        """Do nothing."""

    def failed(self, endpoint: str, reason: str) -> None:
        """Do nothing."""


@dataclass(slots=True)
class Trouble:
    """What went wrong between one file and one origin.

    Attributes
    ----------
    failures : int
        In a row, without a byte between them.
    since : float
        When the first of them was.
    wait_until : float
        The origin is not asked for the file before.
    mismatches, lost_redirects, corrupt : int
        Answers of the wrong length, redirected addresses that refused, wrong bytes.
    bad, sort : str
        Why the origin is not asked for the file any more, for people and for programs.
    """

    failures: int = 0
    since: float = 0.0
    last: float = 0.0
    wait_until: float = 0.0
    mismatches: int = 0
    lost_redirects: int = 0
    corrupt: int = 0
    bad: str = ""
    sort: str = ""

    def failed(self, now: float, retry_after: float | None, pause: bool) -> bool:
        """Count a failure and set the pause after it; False if it was counted already."""
        if retry_after is not None:
            self.wait_until = max(self.wait_until, now + min(retry_after, LONGEST_RETRY_AFTER))
        if self.failures and now - self.last < _SAME_FAILURE:
            return False
        if not self.failures:
            self.since = now
        self.failures += 1
        self.last = now
        if pause or self.failures > 1:
            wait = min(_LONGEST_PAUSE, 0.1 * 2**self.failures) * random.uniform(0.7, 1.2)
            self.wait_until = max(self.wait_until, now + wait)
        return True

    def hopeless(self, patience: float) -> bool:
        """Tell whether it has failed so often and so long that nothing more is to be hoped."""
        return self.failures >= MOST_FAILURES and self.last - self.since > patience


@dataclass(slots=True, eq=False)
class OriginState:
    """What is known of one origin in this transfer.

    Attributes
    ----------
    offers : bytearray
        CANNOT, EQUAL or WHOLE for each wanted file.
    active : int
        Connections at work on it.
    speed : float or None
        Bytes per second of one connection.
    proven : bool
        Whether it has answered usefully.
    stalled_until : float
        Until when others are preferred, because it fell silent.
    """

    index: int
    origin: OriginLike
    offers: bytearray
    allowed: bool = True
    active: int = 0
    speed: float | None = None
    proven: bool = False
    first_try: float | None = None
    failures: int = 0
    last_failure: float = 0.0
    down_until: float = 0.0
    stalled_until: float = 0.0
    last_praise: float = 0.0
    last_byte: float = 0.0
    received: int = 0
    trial: bool = False
    reason: str = ""
    sort: str = "unreachable"

    @property
    def name(self) -> str:
        """The name for people."""
        return self.origin.name

    @property
    def is_node(self) -> bool:
        """Whether it is a node of our own, which may always join."""
        return self.origin.is_node

    def began(self, now: float) -> None:
        """Count a request."""
        self.active += 1
        if self.first_try is None:
            self.first_try = now

    def gave(self, count: int, now: float) -> None:
        """Count bytes."""
        self.received += count
        self.last_byte = now
        self.proven = True
        self.failures = 0
        self.down_until = 0.0

    def measured(self, count: int, seconds: float) -> None:
        """Take one connection's speed into the average."""
        if seconds <= 0 or count < 1 << 20:
            return
        speed = count / seconds
        self.speed = (
            speed if self.speed is None else self.speed + _SPEED_WEIGHT * (speed - self.speed)
        )

    def failed(self, now: float, reason: str, sort: str, at_once: bool) -> bool:
        """Count a failure; True when the origin goes down by it."""
        self.reason, self.sort = reason, sort
        if self.failures and now - self.last_failure < _SAME_FAILURE:
            return False
        self.failures += 1
        self.last_failure = now
        if self.failures < FAILURES_BEFORE_DOWN and not at_once:
            return False
        pause = min(_LONGEST_PAUSE, 0.25 * 2**self.failures) * random.uniform(0.8, 1.2)
        self.down_until = now + pause
        return self.failures == (1 if at_once else FAILURES_BEFORE_DOWN)

    def usable(self, now: float) -> bool:
        """Tell whether it may be asked: not down, or due for one more try."""
        if self.down_until > now:
            return False
        return self.failures < FAILURES_BEFORE_DOWN or self.active < 1


@dataclass(slots=True)
class Choice:
    """The origin to ask, or when to look again.

    Attributes
    ----------
    origin : OriginState or None
        None when none can be asked now.
    possible : bool
        Whether there is one that may be asked later.
    trial : bool
        Whether the lease is to be small, since it only tries the origin.
    """

    origin: OriginState | None = None
    possible: bool = False
    trial: bool = False


@dataclass(slots=True)
class Chooser:
    """Chooses origins: the best gets the work, others join for a reason.

    Attributes
    ----------
    ranked : list of OriginState
        All origins, the preferred first.
    """

    connections: int
    ranked: list[OriginState] = field(default_factory=list)

    def add(self, state: OriginState, order: Sequence[str]) -> None:
        """Take in one more origin; `order` has the endpoints, the best first."""
        places = {endpoint: number for number, endpoint in enumerate(order)}
        self.ranked.append(state)
        self.ranked.sort(key=lambda s: places.get(s.origin.endpoint, len(places)))

    def choose(
        self,
        number: int,
        troubles: dict[int, Trouble],
        *,
        only: int | None = None,
        kind: int | None = None,
        avoid: int | None = None,
        seconds_left: float = 0.0,
    ) -> Choice:
        """Choose an origin for file `number`.

        Parameters
        ----------
        troubles : dict
            Of this file, by the index of the origin.
        only, avoid : int, optional
            The one origin that may give it; one that is to be asked last.
        kind : int, optional
            How its offer has to be: EQUAL or WHOLE.
        seconds_left : float, optional
            How long the transfer will take; a long one is worth trials.
        """
        now = time.monotonic()
        possible = []
        for state in self.ranked:
            offer = state.offers[number]
            trouble = troubles.get(state.index)
            if not offer or (kind is not None and offer != kind):
                continue
            if (only is not None and state.index != only) or (trouble and trouble.bad):
                continue
            possible.append(state)
        ready = [
            state
            for state in possible
            if state.usable(now)
            and not ((trouble := troubles.get(state.index)) and trouble.wait_until > now)
        ]
        ready = [state for state in ready if state.allowed] or ready
        if not ready:
            return Choice(None, bool(possible))
        # A stable sort: origins without trouble come first, in the order of rank.
        ready.sort(key=lambda s: _reluctance(s, troubles.get(s.index), avoid, now))
        if len(ready) == 1:
            return Choice(ready[0], True)
        if any(trouble.corrupt for trouble in troubles.values()):
            return Choice(ready[0], True)
        trial = self._trial(ready, seconds_left)
        if trial is not None:
            return Choice(trial, True, trial=True)
        return Choice(self._preferred(ready, now), True)

    def _trial(self, ready: list[OriginState], seconds_left: float) -> OriginState | None:
        if seconds_left < 10 or ready[0].speed is None:
            return None
        if any(state.trial for state in self.ranked):
            return None
        return next((s for s in ready[1:] if s.speed is None and not s.active), None)

    def _preferred(self, ready: list[OriginState], now: float) -> OriginState | None:
        for state in ready:
            if state.proven:
                return self._fastest(state, ready)
            if state.first_try is None or now - state.first_try < PROOF_SECONDS:
                # Not all connections shall hang on an origin that may be dead.
                if state.active < max(_UNPROVEN_CONNECTIONS, self.connections // 4):
                    return state
                return None
        return ready[0]

    def _fastest(self, first: OriginState, ready: Iterable[OriginState]) -> OriginState:
        best = first
        for state in ready:
            if state.speed and best.speed and state.speed > _CLEARLY_FASTER * best.speed:
                best = state
        sharing = [
            state
            for state in ready
            if state is best
            or (state.is_node and state.speed and best.speed and state.speed * 2 > best.speed)
        ]
        return min(sharing, key=lambda s: s.active / (s.speed or 1.0))


def _reluctance(
    state: OriginState, trouble: Trouble | None, avoid: int | None, now: float
) -> tuple[int, ...]:
    stalled = state.stalled_until > now
    if trouble is None:
        return 0, stalled, 0, state.index == avoid
    return trouble.corrupt, stalled, trouble.failures > 0, state.index == avoid
