"""How much an engine takes on, what it refuses, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass


class Overloaded(Exception):
    """Too many requests wait already."""


class TooLong(Exception):
    """A prompt leaves no room for an answer.

    Attributes
    ----------
    length, limit : int
        In tokens.
    """

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"{length} tokens, of {limit} at most")
        self.length = length
        self.limit = limit


@dataclass(frozen=True)
class Limits:
    """How much an engine takes on.

    Attributes
    ----------
    rows : int
        Answers at the same time.
    waiting : int
        Requests that may wait.
    memory : int or None
        Bytes for keys and values; None takes a share of what is free.
    chunk : int or None
        Prompt tokens read in one step beside the answers that go on; None fits the device.
    """

    rows: int = 32
    waiting: int = 256
    memory: int | None = None
    chunk: int | None = None


@dataclass
class Counts:
    """What an engine has done."""

    steps: int = 0
    prompt_tokens: int = 0
    shared_tokens: int = 0
    new_tokens: int = 0
    preempted: int = 0
    finished: int = 0
