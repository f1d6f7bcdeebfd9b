"""What the batching engine is asked for, and what it tells about each token."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["", "stop", "length", "cancelled", "error"]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes
    ----------
    temperature : float
        0 takes the likeliest token.
    top_p : float
        The share of probability that is kept; 1 keeps all.
    top_k : int
        How many tokens are kept; 0 keeps all.
    repetition_penalty : float
        Above 1 it makes tokens that were there before less likely.
    seed : int or None
        Starts the random numbers of this answer alone.
    logprobs : int or None
        How many alternatives are told with each token; None tells no probabilities.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature <= 0


@dataclass(frozen=True)
class TokenLogprobs:
    """Natural logarithms of probabilities, before temperature and cuts.

    Attributes
    ----------
    chosen : float
        Of the token that was taken.
    top : tuple of (int, float)
        The likeliest tokens.
    """

    chosen: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class TokenEvent:
    """One step of one answer.

    Attributes
    ----------
    token : int or None
        The new token; None when the answer ends without one.
    logprobs : TokenLogprobs or None
        When they were asked for.
    finish_reason : str
        Empty while the answer goes on.
    error : BaseException or None
        What went wrong, when the reason is ``error``.
    """

    token: int | None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason = ""
    error: BaseException | None = None


@dataclass(eq=False)
class Request:
    """One answer that is wanted.

    Attributes
    ----------
    prompt : sequence of int
        The tokens that the model goes on from.
    sink : callable
        Given every `TokenEvent`, in the engine's thread; must return at once.
    max_new_tokens : int
        The longest answer.
    eos : frozenset of int
        The tokens that end the answer; they are told, too.
    sampling : Sampling
        How tokens are chosen.
    adapter : str
        Who answers; the model itself when empty.
    """

    prompt: Sequence[int]
    sink: Callable[[TokenEvent], Any]
    max_new_tokens: int = 512
    eos: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str = ""
    cancelled: bool = field(default=False, init=False)
    number: int = field(default_factory=lambda: next(_numbers), init=False)

    def cancel(self) -> None:
        """Give up: the row is free before the next step. May be called from any thread."""
        self.cancelled = True
