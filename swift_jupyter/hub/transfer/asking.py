"""Asking several addresses for their listings, so that a dead one costs seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swift_jupyter.hub.api.base import Endpoint, HubApi, Origin
from swift_jupyter.hub.listing import RepoListing
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

# An address that has not answered by then gets company.
HEDGE_SECONDS = 3.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Address:
    """One address to ask, the repository's id there, and its name for people."""

    endpoint: Endpoint
    repo_id: str
    label: str


@dataclass(frozen=True)
class Offer:
    """What an address has."""

    address: Address
    listing: RepoListing
    origin: Origin
    api: HubApi


class Asking:
    """Asks addresses in their order, each in a thread of its own.

    Parameters
    ----------
    addresses : sequence of Address
        The first is asked first; the next one when that fails or is slow.
    ask : callable
        Returns the offer of an address or raises `SourceUnavailable`.
    check : callable
        Called about ten times a second; may raise to stop.
    seconds : float
        After so long an address counts as silent, whatever it hangs in.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        ask: Callable[[Address], Offer],
        check: Callable[[], None],
        seconds: float,
    ) -> None:
        self._seconds = seconds
        self._addresses = addresses
        self._ask = ask
        self._check = check
        self._changed = threading.Condition()
        self._answers: dict[int, Offer | SourceUnavailable] = {}
        self._starts: list[float] = []
        self._taken: set[int] = set()

    @property
    def failures(self) -> list[tuple[Address, SourceUnavailable]]:
        """The addresses that gave no listing, in order, with what they answered."""
        with self._changed:
            return [
                (self._addresses[number], answer)
                for number, answer in sorted(self._answers.items())
                if isinstance(answer, SourceUnavailable)
            ]

    @property
    def all_asked(self) -> bool:
        """Whether nobody is left to be asked, or to answer."""
        with self._changed:
            return len(self._answers) == len(self._addresses)

    def next(self) -> Offer | None:
        """Return the first offer that was not returned yet; None when no more come."""
        with self._changed:
            while True:
                for number, answer in sorted(self._answers.items()):
                    if isinstance(answer, Offer) and number not in self._taken:
                        self._taken.add(number)
                        return answer
                running = len(self._starts) - len(self._answers)
                if len(self._starts) < len(self._addresses):
                    if not running or time.monotonic() - self._starts[-1] > HEDGE_SECONDS:
                        self._start_one()
                elif not running:
                    return None
                self._changed.wait(_POLL_SECONDS)
                self._give_up_silent()
                self._check()

    def start_all(self) -> None:
        """Ask all that were not asked yet."""
        with self._changed:
            while len(self._starts) < len(self._addresses):
                self._start_one()

    def take(self, offer: Offer) -> None:
        """Do not return `offer` again."""
        with self._changed:
            self._taken.update(
                number for number, answer in self._answers.items() if answer is offer
            )

    def arrivals(self, known: int) -> tuple[list[Offer], int, bool]:
        """Wait for answers after the first `known`.

        Returns
        -------
        list of Offer
            The offers among them, in the order in which they came.
        int
            The number of answers by now.
        bool
            Whether no more will come.
        """
        with self._changed:
            while len(self._answers) <= known and len(self._answers) < len(self._starts):
                self._changed.wait(_POLL_SECONDS)
                self._give_up_silent()
            answers = list(self._answers.values())
            offers = [answer for answer in answers[known:] if isinstance(answer, Offer)]
            over = len(answers) == len(self._starts) == len(self._addresses)
            return offers, len(answers), over

    def _start_one(self) -> None:
        number = len(self._starts)
        self._starts.append(time.monotonic())
        threading.Thread(target=self._answer, args=(number,), daemon=True).start()

    def _answer(self, number: int) -> None:
        answer: Offer | SourceUnavailable
        try:
            answer = self._ask(self._addresses[number])
        except SourceUnavailable as error:
            answer = error
        except Exception as error:  # One odd address must not end the whole pull.
            answer = SourceUnavailable(f"{type(error).__name__}: {error}")
        with self._changed:
            self._answers.setdefault(number, answer)
            self._changed.notify_all()

    def _give_up_silent(self) -> None:
        """Answer for those that hang, in resolving a name for example, which has no limit."""
        now = time.monotonic()
        for number, start in enumerate(self._starts):
            if number not in self._answers and now - start > self._seconds:
                host = self._addresses[number].endpoint.name
                reason = _("{host} did not answer in time", host=host)
                self._answers[number] = SourceUnavailable(reason, "unreachable")
