"""Errors that a person can mend: what happened, why, what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from swift_jupyter.i18n import translate as _


class UserError(Exception):
    """An error whose remedy is in the user's hands.

    Parameters
    ----------
    what : str
        What happened, in one sentence.
    why : str, optional
        The reason, when it is known.
    next_step : str, optional
        What to do or type next.

    Notes
    -----
    IPython shows only these lines, without a traceback, and still fails the
    cell: it calls ``_render_traceback_`` when an exception has it.
    """

    def __init__(self, what: str, why: str = "", next_step: str = "") -> None:
        self.what = what
        self.why = why
        self.next_step = next_step
        super().__init__(what)

    @property
    def lines(self) -> list[str]:
        """The one to three lines that a person reads."""
        return [line for line in (self.what, self.why, self.next_step) if line]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.what, self.why, self.next_step)

    def _render_traceback_(self) -> list[str]:
        return self.lines


class OptionError(UserError):
    """A command line or a cell body that does not fit the command table."""


class Interrupted(UserError):
    """The user stopped the work; what was finished is kept in `result`.

    Parameters
    ----------
    what, why, next_step : str
        As in `UserError`.
    result : object, optional
        The command's result so far, for ``--out``.
    """

    def __init__(
        self, what: str, why: str = "", next_step: str = "", result: object | None = None
    ) -> None:
        super().__init__(what, why, next_step)
        self.result = result


def nearest(word: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of the `candidates` that resemble `word`, the best first."""
    known = list(candidates)
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.lower(), name)
    found = difflib.get_close_matches(word.lower(), folded, n=count, cutoff=0.6)
    return [folded[name] for name in found]


def did_you_mean(word: str, candidates: Iterable[str], prefix: str = "") -> str:
    """Return a sentence that names the nearest candidates, or an empty string."""
    names = nearest(word, candidates)
    if not names:
        return ""
    return _("Did you mean {names}?", names=", ".join(prefix + name for name in names))
