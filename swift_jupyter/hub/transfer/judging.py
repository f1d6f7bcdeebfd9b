"""What a refusal does to the record of an origin and of a file."""

from __future__ import annotations

from swift_jupyter.hub.transfer.origins import (
    MOST_CORRUPT_TRIES,
    MOST_LOST_REDIRECTS,
    MOST_MISMATCHES,
    STALL_MEMORY,
    OriginState,
    Trouble,
)
from swift_jupyter.hub.transfer.refusals import Refusal


def judge(
    trouble: Trouble, origin: OriginState, refusal: Refusal, now: float, patience: float
) -> bool:
    """Note a refusal between a file and an origin; tell whether it is a new failure.

    What fails on many connections at the same moment counts once.
    """
    # No connection says nothing about the file.
    counted = refusal.kind == "connect" or trouble.failed(now, refusal.retry_after, refusal.pause)
    final = refusal.final
    if refusal.kind == "stall":
        origin.stalled_until = now + STALL_MEMORY
    elif refusal.kind == "mismatch":
        trouble.mismatches += 1
        final = final or trouble.mismatches >= MOST_MISMATCHES
    elif refusal.kind == "redirect":
        trouble.lost_redirects += refusal.fresh
        final = trouble.lost_redirects >= MOST_LOST_REDIRECTS
    elif refusal.kind == "corrupt":
        trouble.corrupt += 1
        final = trouble.corrupt >= MOST_CORRUPT_TRIES
    if final or trouble.hopeless(patience):
        trouble.bad, trouble.sort = refusal.reason, refusal.trouble
    return counted
