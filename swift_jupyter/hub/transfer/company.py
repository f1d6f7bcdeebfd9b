"""Further sources that join a running transfer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from swift_jupyter.hub.lock_file import LockEntry, compare
from swift_jupyter.hub.transfer.asking import Asking, Offer
from swift_jupyter.hub.transfer.feed import Feed
from swift_jupyter.hub.transfer.supply import Conflict, Supply
from swift_jupyter.i18n import translate as _

# A transfer that is over by then needs no company: the other hubs hear nothing of it.
COMPANY_SECONDS = 1.0
_SHOWN_FILES = 3


class Company:
    """Brings further sources into a running transfer, in a thread of its own.

    Parameters
    ----------
    asking : Asking
        Knows whom to ask.
    supply : Supply
        Takes the sources in.
    first : Offer or None
        The source that the transfer begins with.
    feed : Feed
        Takes what the user should know; its trouble brings the others at once.
    locked : LockEntry or None
        The exact files that are wanted.
    note_answer : callable
        Takes the name of a source that does not have them, the reason and the trouble.
    """

    def __init__(
        self,
        asking: Asking,
        supply: Supply,
        first: Offer | None,
        feed: Feed,
        locked: LockEntry | None,
        note_answer: Callable[[str, str, str], None],
    ) -> None:
        self._asking = asking
        self._supply = supply
        self._first = first
        self._feed = feed
        self._locked = locked
        self._note_answer = note_answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Offer the first source and look for more."""
        if self._first is not None:
            self._supply.add(self._first.origin, self._first.listing.files)
            self._feed.trouble.clear()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; what was asked already may still answer and is ignored."""
        self._over.set()
        self._feed.trouble.set()

    def _run(self) -> None:
        try:
            if self._first is not None and not self._asking.all_asked:
                self._feed.trouble.wait(COMPANY_SECONDS)
            if self._over.is_set():
                return
            self._asking.start_all()
            known, over = 0, False
            while not over and not self._over.is_set():
                offers, known, over = self._asking.arrivals(known)
                for offer in offers:
                    self._join(offer)
        finally:
            self._supply.close()

    def _join(self, offer: Offer) -> None:
        if offer is self._first:
            return
        files = offer.listing.files
        conflicts = self._supply.add(offer.origin, files)
        if self._locked is not None:
            difference = compare(self._locked.files, files)
            if difference:
                reason = _("it differs from the lock: {difference}", difference=difference.text)
                self._note_answer(offer.address.label, reason, "changed")
        elif conflicts:
            self._feed.notice(_conflict_text(offer, conflicts))
        elif {file.path for file in self._supply.wanted} <= {file.path for file in files}:
            # It takes part already; alone it would have nothing else to give.
            self._asking.take(offer)


def _conflict_text(offer: Offer, conflicts: Sequence[Conflict]) -> str:
    names = [conflict.path for conflict in conflicts]
    shown = ", ".join(names[:_SHOWN_FILES]) + (" …" if len(names) > _SHOWN_FILES else "")
    return _(
        "{source} has other content for {files}; it is not mixed in.",
        source=offer.address.label,
        files=shown,
    )
