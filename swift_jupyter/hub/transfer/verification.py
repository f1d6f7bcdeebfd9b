"""What happens with a file when all its bytes are there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from swift_jupyter.hub.transfer.hashing import Digests, damage, is_wanted
from swift_jupyter.hub.transfer.jobs import FileJob
from swift_jupyter.hub.transfer.pieces import Range
from swift_jupyter.hub.transfer.scheduler import Scheduler

# Of a file's SHA-256, the size of its pieces and the SHA-256 of each; None if nobody knows.
PieceHashes = Callable[[str], tuple[int, list[str]] | None]
_BLOCK = 1 << 20


class Verification:
    """Judges files that have arrived.

    Parameters
    ----------
    scheduler : Scheduler
        Fetches again what is wrong.
    deliver : callable
        Takes what is right.
    piece_hashes : callable, optional
        Knows which pieces are right.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        deliver: Callable[[FileJob, Digests], None],
        piece_hashes: PieceHashes | None,
    ) -> None:
        self._scheduler = scheduler
        self._deliver = deliver
        self._piece_hashes = piece_hashes

    def judge(self, job: FileJob, digests: Digests) -> None:
        """Deliver `job`, or have it mended."""
        if is_wanted(job.file, digests):
            self._deliver(job, digests)
            return
        wrong = self._wrong_pieces(job)
        size = job.size or 0
        suspects = wrong or [(0, size)]
        culprits = {
            index
            for index, provided in job.providers.items()
            if any(provided.overlaps(start, end) for start, end in suspects)
        }
        with self._scheduler.condition:
            job.hashing = False
            self._scheduler.fetch_again(job, wrong, culprits, damage(job.file, digests))

    def _wrong_pieces(self, job: FileJob) -> list[Range] | None:
        """Return the ranges of the pieces that are wrong; None if that is not known."""
        if self._piece_hashes is None or not job.file.sha256 or not job.size:
            return None
        known = self._piece_hashes(job.file.sha256)
        if known is None:
            return None
        length, hashes = known
        if length <= 0 or len(hashes) != -(-job.size // length):
            return None
        buffer = memoryview(bytearray(_BLOCK))
        wrong = []
        for number, expected in enumerate(hashes):
            start, end = number * length, min(job.size, (number + 1) * length)
            if _range_sha256(job, start, end, buffer) != expected.lower():
                wrong.append((start, end))
        # All pieces right and the whole wrong: the list is of no use.
        return wrong or None


def _range_sha256(job: FileJob, start: int, end: int, buffer: memoryview) -> str:
    digest = hashlib.sha256()
    while start < end:
        block = buffer[: min(len(buffer), end - start)]
        count = job.part.read(block, start)
        if count == 0:
            break
        digest.update(block[:count])
        start += count
    return digest.hexdigest()
