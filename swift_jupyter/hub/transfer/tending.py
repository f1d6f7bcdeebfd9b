"""Looks after connections that are at work: silent ones, slow ones, and origins worth a trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from swift_jupyter.hub.transfer.jobs import FileJob, Lease, SmallTask
from swift_jupyter.hub.transfer.origins import Chooser, OriginState
from swift_jupyter.hub.transfer.supply import EQUAL

TEND_SECONDS = 0.25
_SILENT_SECONDS = 2.5
_SPEED_AFTER = 1.0
_LIVE_WEIGHT = 0.2
_MUCH_SLOWER = 4.0
_WORTH_MOVING = 4.0
_DRIPPING, _DRIPPING_SECONDS = 20, 3.0
_WORTH_A_TRIAL = 10.0


def measure(jobs: Iterable[FileJob], origins: Iterable[OriginState]) -> None:
    """Bring the speed of each origin up to date from what its connections do now."""
    now = time.monotonic()
    rates: dict[int, list[float]] = {}
    for job in jobs:
        for lease in job.leases:
            if lease.answered is not None and now - lease.answered > _SPEED_AFTER:
                seconds = max(now - lease.mark[0], 0.001)
                latest = (lease.position - lease.mark[1]) / seconds
                rates.setdefault(lease.origin.index, []).append(
                    lease.rate if seconds < 1 else min(lease.rate or latest, latest)
                )
    for origin in origins:
        found = rates.get(origin.index)
        if found:
            live = sum(found) / len(found)
            known = origin.speed
            origin.speed = live if known is None else known + _LIVE_WEIGHT * (live - known)


def abort_dripping(tasks: Iterable[SmallTask], tried: Callable[[SmallTask], int]) -> None:
    """Begin small files anew whose connection is far slower than others of its origin.

    Parameters
    ----------
    tried : callable
        Returns how often the file has failed there; it is not done again and again.
    """
    now = time.monotonic()
    for task in tasks:
        seconds = now - task.began
        usual = task.origin.speed
        if seconds < _DRIPPING_SECONDS or not usual or task.response is None or tried(task) > 1:
            continue
        speed = max(1.0, task.position / seconds)
        left = (task.file.size or 0) - task.position
        if speed * _DRIPPING < usual and left / speed > _WORTH_MOVING:
            task.response.abort()


def release(
    jobs: Iterable[FileJob], chooser: Chooser, unleased: int, revoke: Callable[[Lease], None]
) -> list[tuple[OriginState, OriginState]]:
    """Take leases away from connections that are silent or hopelessly slow.

    Only where another origin can do better; the freed connections ask for
    new leases. Of slow ones only some are moved at a time: the other origin
    may get slower by it.

    Returns
    -------
    list of (OriginState, OriginState)
        Which origins were silent, and which can be asked instead.
    """
    now = time.monotonic()
    silent: list[tuple[OriginState, OriginState]] = []
    slow: list[tuple[float, Lease]] = []
    untried: list[tuple[int, Lease]] = []
    for job in jobs:
        for lease in list(job.leases):
            if lease.remaining == 0 or lease.stream or job.only is not None:
                continue
            choice = chooser.choose(job.number, job.troubles, avoid=lease.origin.index)
            other = choice.origin
            if other is None or other is lease.origin or other.offers[job.number] != EQUAL:
                continue
            if now - (lease.last_byte or lease.began) > _SILENT_SECONDS:
                silent.append((lease.origin, other))
                job.trouble(lease.origin).failed(now, None, pause=False)
                revoke(lease)
                continue
            if lease.answered is None or now - lease.answered < _SPEED_AFTER:
                continue
            speed = lease.speed(now, 1.0)
            seconds = lease.remaining / max(speed, 1.0)
            if other.speed is None:
                untried.append((lease.remaining, lease))
            elif other.speed > _MUCH_SLOWER * speed and seconds > _WORTH_MOVING:
                slow.append((seconds, lease))
    slow.sort(key=lambda pair: -pair[0])
    for _seconds, lease in slow[: max(1, chooser.connections // 4)]:
        revoke(lease)
    _free_one_for_a_trial(untried, chooser, unleased, revoke)
    return silent


def _free_one_for_a_trial(
    untried: list[tuple[int, Lease]],
    chooser: Chooser,
    unleased: int,
    revoke: Callable[[Lease], None],
) -> None:
    if not untried or any(origin.trial for origin in chooser.ranked):
        return
    speed = sum(origin.active * (origin.speed or 0.0) for origin in chooser.ranked)
    left = unleased + sum(remaining for remaining, _lease in untried)
    if speed and left / speed > _WORTH_A_TRIAL:
        revoke(max(untried, key=lambda pair: pair[0])[1])
