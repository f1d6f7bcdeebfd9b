"""How long leases are, and who may take over a part of whose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from swift_jupyter.hub.transfer.jobs import UNKNOWN_END, FileJob, Lease
from swift_jupyter.hub.transfer.origins import Chooser, OriginState
from swift_jupyter.hub.transfer.supply import EQUAL

__all__ = ["UNKNOWN_END", "length", "steal"]

MIB = 1 << 20
SHORTEST, LONGEST = 8 * MIB, 64 * MIB
SHORTEST_AT_END = 2 * MIB
_LEASE_SECONDS = 3.0
_WORTH_STEALING = 512 << 10
_WORTH_SECONDS = 0.5
_LONG_SECONDS = 4.0
_SILENT_SECONDS = 1.5
_UNANSWERED_SECONDS = 2.5
_ALIVE_SECONDS = 2.0
_GUESS = 4e6


def length(
    origin: OriginState, unleased: int, connections: int, trial: bool, available: int
) -> int:
    """Return how many bytes a connection should lease.

    Parameters
    ----------
    origin : OriginState
        Who gives them; some seconds of its speed are right.
    unleased : int
        Bytes that no one has leased, in all files. Towards the end leases get
        shorter, so that all connections end at about the same time.
    trial : bool
        Whether the lease only tries the origin.
    available : int
        Bytes of the range from which they are taken.
    """
    if trial:
        return min(available, SHORTEST)
    wish = min(LONGEST, max(SHORTEST, int((origin.speed or 0.0) * _LEASE_SECONDS)))
    fair = unleased // connections
    size = min(wish, max(SHORTEST_AT_END, fair))
    # No crumbs.
    return available if available - size < SHORTEST_AT_END // 2 else size


def steal(
    jobs: Iterable[FileJob], chooser: Chooser, revoke: Callable[[Lease], None]
) -> Lease | None:
    """Return a lease of the rear part of what another connection holds, or None.

    The one that would end last is chosen. Both should then end together, so
    a slow one keeps little. One that is silent loses all, if another origin
    can give it, or the same one gives to other connections.
    """
    now = time.monotonic()
    victim, latest = None, _WORTH_SECONDS
    for job in jobs:
        if job.size is None:
            continue
        for lease in job.leases:
            if lease.stream or lease.remaining == 0:
                continue
            silent = _silent(lease, now)
            seconds = lease.remaining / max(1.0, lease.speed(now, _GUESS))
            # Little is worth it only where it would take long.
            if lease.remaining < _WORTH_STEALING and seconds < _LONG_SECONDS and not silent:
                continue
            if silent:
                seconds = max(seconds, 60.0)
            if seconds > latest:
                victim, latest = lease, seconds
    return None if victim is None else _split(victim, chooser, revoke, now)


def _split(
    victim: Lease, chooser: Chooser, revoke: Callable[[Lease], None], now: float
) -> Lease | None:
    job = victim.job
    silent = _silent(victim, now)
    kind = victim.origin.offers[job.number]
    only = job.only
    if kind != EQUAL:
        only = victim.origin.index
    slow = silent or _slow(victim, now)
    choice = chooser.choose(
        job.number,
        job.troubles,
        only=only,
        kind=kind,
        avoid=victim.origin.index if slow else None,
    )
    thief = choice.origin
    if thief is None or thief.index in job.streams:
        return None
    end = victim.end
    if silent:
        alive = thief is not victim.origin or now - thief.last_byte < _ALIVE_SECONDS
        if not alive:
            return None
        start = victim.position
        revoke(victim)
    else:
        speed = max(1.0, victim.speed(now, _GUESS))
        other = thief.speed or speed
        # It goes on while we are connecting.
        keep = int(victim.remaining * speed / (speed + other) + speed * 0.05)
        start = victim.position + max(keep, min(64 << 10, int(speed)))
        if start >= end:
            return None
        if end - start < _WORTH_STEALING // 2 and (end - start) / speed < _LONG_SECONDS:
            return None
        victim.end = start
    return job.new_lease(thief, start, end)


def _silent(lease: Lease, now: float) -> bool:
    if lease.answered is None:
        return now - lease.began > _UNANSWERED_SECONDS
    return now - lease.last_byte > _SILENT_SECONDS


def _slow(lease: Lease, now: float) -> bool:
    """Tell whether a lease is much slower than its origin usually is."""
    usual = lease.origin.speed
    return bool(usual and lease.answered and lease.speed(now, usual) < usual / 4)
