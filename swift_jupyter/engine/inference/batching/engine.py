"""The engine: admits requests between steps, and lets each leave as soon as it is done."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from swift_jupyter.engine.inference.batching.forward import Forward, arrange_weights
from swift_jupyter.engine.inference.batching.limits import Counts, Limits, Overloaded, TooLong
from swift_jupyter.engine.inference.batching.packed import Segment
from swift_jupyter.engine.inference.batching.pool import KeyValuePool, size_bytes
from swift_jupyter.engine.inference.batching.prefixes import (
    LEAST_SHARED,
    PrefixStore,
    common_length,
)
from swift_jupyter.engine.inference.batching.request import FinishReason, Request, TokenEvent
from swift_jupyter.engine.inference.batching.sampling import RowSampler, choose, log_probabilities

_log = logging.getLogger(__name__)
_STORE_SHARE = 8
_IDLE_SECONDS = 0.5


class _Row:
    """A request that has a slot."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.tokens = list(request.prompt)
        self.sampler = RowSampler(request.sampling, request.prompt)
        self.computed = 0
        self.count = 0

    @property
    def left(self) -> int:
        """How many tokens have to be read before the next one is known."""
        return len(self.tokens) - self.computed


class BatchEngine:
    """Answers many requests at once.

    Parameters
    ----------
    stack : AdapterStack
        The model and its adapters.
    turn : context manager
        A lock that is held while the model computes.
    limits : Limits
        How much is taken on.
    context_length : int or None
        How many tokens a sequence may have.

    Notes
    -----
    Every step reads one token of each answer that goes on, and beside them a chunk of new
    prompts. Steps are made by `step`, or by a thread between `start` and `close`.
    """

    def __init__(
        self,
        stack: Any,
        turn: AbstractContextManager[Any],
        limits: Limits | None = None,
        context_length: int | None = None,
    ) -> None:
        self._stack = stack
        self._turn = turn
        self.limits = limits or Limits()
        self.counts = Counts()
        self._forward = Forward(stack)
        self._pool = KeyValuePool()
        self._memory = self.limits.memory or _free_memory(self._forward.device) // 3
        self._store = PrefixStore(self._memory // _STORE_SHARE)
        self._rows: list[_Row] = []
        self._waiting: deque[_Row] = deque()
        self._arrived: deque[_Row] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        on_cpu = self._forward.device.type == "cpu"
        self._chunk = self.limits.chunk or (256 if on_cpu else 2048)
        with turn:
            arrange_weights(self._forward.base)
            self.batched = self._forward.can_pack("", self._pool)
        self.longest = self._longest(context_length)

    @property
    def running(self) -> int:
        """How many answers go on."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting) + len(self._arrived)

    @property
    def held_bytes(self) -> int:
        """What keys and values take now."""
        return self._pool.total_bytes + self._store.total_bytes

    def submit(self, requests: Sequence[Request]) -> None:
        """Take requests on, all or none; returns at once. May be called from any thread.

        Raises
        ------
        Overloaded
            When too many wait already.
        TooLong
            When a prompt leaves no room for an answer.
        """
        for request in requests:
            if self.longest and len(request.prompt) >= self.longest:
                raise TooLong(len(request.prompt), self.longest)
        with self._wake:
            if self._closing:
                raise Overloaded
            if self.waiting + len(requests) > self.limits.waiting + self._free_rows():
                raise Overloaded
            for request in requests:
                if self.longest:
                    room = self.longest - len(request.prompt)
                    request.max_new_tokens = min(request.max_new_tokens, room)
                self._arrived.append(_Row(request))
            self._wake.notify()

    def forget(self, adapter: str) -> None:
        """Forget what is known of an adapter, since its name now means another."""
        self._forward.forget(adapter)
        self._store.clear()

    def free(self) -> None:
        """Give the memory of keys and values back; nothing may be running."""
        self._pool.release()
        self._store.clear()

    def _free_rows(self) -> int:
        return max(0, self.limits.rows - len(self._rows))

    def start(self) -> None:
        """Make steps in a thread until `close`."""
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; unfinished answers are cancelled."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._end_all("cancelled")
        self._pool.release()
        self._store.clear()

    def run(self) -> None:
        """Make steps until nothing is left to do."""
        while self.step():
            continue

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._closing and not self._rows and not self.waiting:
                    self._wake.wait(_IDLE_SECONDS)
                if self._closing:
                    return
            self.step()

    def step(self) -> bool:
        """Admit what fits, compute one token for each answer, and let go of those that end.

        Returns
        -------
        bool
            Whether there was anything to do.
        """
        with self._wake:
            self._waiting.extend(self._arrived)
            self._arrived.clear()
        self._drop_cancelled()
        try:
            with self._turn:
                if self._answer_alone():
                    return True
                self._admit()
                if not self._rows:
                    return False
                self._compute(self._plan())
        except Exception as error:
            _log.exception("a step failed")
            self._end_all("error", error)
            self._pool.release()
            self._store.clear()
        return True

    def _drop_cancelled(self) -> None:
        for row in [row for row in self._waiting if row.request.cancelled]:
            self._waiting.remove(row)
            row.request.sink(TokenEvent(None, None, "cancelled"))
        for row in [row for row in self._rows if row.request.cancelled]:
            self._remove(row, keep=False)
            row.request.sink(TokenEvent(None, None, "cancelled"))

    def _answer_alone(self) -> bool:
        """Answer the first request from beginning to end when it cannot be batched."""
        from swift_jupyter.engine.inference.batching.serial import answer_alone

        if not self._waiting or self._rows:
            return False
        if self._forward.can_pack(self._waiting[0].request.adapter, self._pool):
            return False
        row = self._waiting.popleft()
        self.counts.prompt_tokens += len(row.tokens)
        try:
            self.counts.new_tokens += answer_alone(self._stack, row.request)
            self.counts.finished += 1
        except Exception as error:
            _log.exception("an answer failed")
            row.request.sink(TokenEvent(None, None, "error", error))
        return True

    def _admit(self) -> None:
        """Give slots to waiting requests, as far as rows and memory allow."""
        # Only so many, since to compare long prompts takes time.
        for row in list(self._waiting)[: 2 * self.limits.rows]:
            if len(self._rows) >= self.limits.rows:
                return
            if not self._forward.can_pack(row.request.adapter, self._pool):
                return  # Its turn comes when all others are done.
            longest = max(len(one.tokens) for one in (row, *self._rows)) + 1
            if self._rows and not self._fits(len(self._rows) + 1, longest):
                return
            shared = self._shared(row)
            if shared is None:
                continue
            self._waiting.remove(row)
            self._place(row, *shared)

    def _shared(self, row: _Row) -> tuple[int, int | None, list[Any] | None] | None:
        """Find the longest beginning that is known: its length, and where it is.

        Returns None when a running row is about to compute more of it, for which to wait pays.
        """
        adapter = row.request.adapter
        best, slot, coming = 0, None, 0
        for number, other in enumerate(self._rows):
            if other.request.adapter != adapter:
                continue
            length = common_length(row.tokens, other.tokens)
            coming = max(coming, length)
            if min(length, other.computed) > best:
                best, slot = min(length, other.computed), number
        stored, taken = self._store.find(adapter, row.tokens)
        if max(best, stored) + LEAST_SHARED <= coming:
            return None
        if best < LEAST_SHARED and stored < LEAST_SHARED:
            return 0, None, None
        # The last token is read in any case, since its logits are needed.
        most = len(row.tokens) - 1
        if stored > best:
            return min(stored, most), None, taken
        return min(best, most), slot, None

    def _place(self, row: _Row, shared: int, slot: int | None, taken: list[Any] | None) -> None:
        target = len(self._rows)
        longest = max(len(one.tokens) for one in (row, *self._rows)) + 1
        self._pool.reserve(target + 1, longest, self._memory_of_rows)
        if slot is not None:
            self._pool.move(slot, target, shared)
        elif taken is not None:
            self._pool.put(target, shared, taken)
        row.computed = shared
        self.counts.shared_tokens += shared
        self.counts.prompt_tokens += len(row.tokens)
        self._rows.append(row)

    @property
    def _memory_of_rows(self) -> int:
        return self._memory - self._memory // _STORE_SHARE

    def _fits(self, slots: int, length: int) -> bool:
        return size_bytes(slots, length, self._pool.token_bytes) <= self._memory_of_rows

    def _plan(self) -> list[tuple[_Row, int]]:
        """Return how many tokens of which row are read in this step."""
        budget = self._chunk
        if all(row.left > 1 for row in self._rows):
            budget *= 2  # Nobody waits for a next token.
        plan = []
        for row in self._rows:
            count = min(row.left, max(budget, 0)) if row.left > 1 else 1
            if count:
                plan.append((row, count))
                budget -= count if row.left > 1 else 0
        while len(self._rows) > 1 and not self._fits(len(self._rows), self._reach(plan)):
            preempted = self._rows[-1]
            self._preempt(preempted)
            plan = [(row, count) for row, count in plan if row is not preempted]
        self._pool.reserve(len(self._rows), self._reach(plan), self._memory_of_rows)
        return plan

    def _reach(self, plan: list[tuple[_Row, int]]) -> int:
        """Return how long the longest sequence is after a step."""
        counts = {id(row): count for row, count in plan}
        return max(row.computed + counts.get(id(row), 0) for row in self._rows)

    def _preempt(self, row: _Row) -> None:
        """Take the slot of the youngest row, which begins again when there is room."""
        self._rows.remove(row)
        row.computed = 0
        self._waiting.appendleft(row)
        self.counts.preempted += 1

    def _compute(self, plan: list[tuple[_Row, int]]) -> None:
        for adapter in dict.fromkeys(row.request.adapter for row, _count in plan):
            group = [(row, count) for row, count in plan if row.request.adapter == adapter]
            # Answers of the adapters before may have ended, and others taken their slots.
            slots = {id(row): slot for slot, row in enumerate(self._rows)}
            segments, wanted = [], {}
            for row, count in group:
                slot = slots[id(row)]
                tokens = row.tokens[row.computed : row.computed + count]
                segments.append(Segment(slot, row.computed, tokens))
                if count == row.left:
                    wanted[slot] = row
            order, logits = self._forward.run(adapter, segments, self._pool, set(wanted))
            for row, count in group:
                row.computed += count
            self._tell([wanted[slot] for slot in order], logits)
        self.counts.steps += 1

    def _tell(self, rows: list[_Row], logits: Any) -> None:
        """Choose the next token of each row and hand it out."""
        import torch

        if not rows:
            return
        samplers = [row.sampler for row in rows]
        with torch.inference_mode():
            tokens = choose(logits, samplers)
            logprobs = log_probabilities(logits, tokens, samplers)
        for row, token, told in zip(rows, tokens, logprobs, strict=True):
            row.tokens.append(token)
            row.count += 1
            reason: FinishReason = ""
            if token in row.request.eos:
                reason = "stop"
            elif row.count >= row.request.max_new_tokens:
                reason = "length"
            if reason:
                self._remove(row, keep=True)
                self.counts.finished += 1
            self.counts.new_tokens += 1
            row.request.sink(TokenEvent(token, told, reason))

    def _remove(self, row: _Row, keep: bool) -> None:
        """Free a slot: the last row moves there, so that the slots in use stay together."""
        slot, last = self._rows.index(row), len(self._rows) - 1
        if keep and self._store.wants(row.computed, self._pool.token_bytes):
            known, _taken = self._store.find(row.request.adapter, row.tokens[: row.computed])
            if known < row.computed - LEAST_SHARED:
                taken = self._pool.take(slot, row.computed)
                self._store.add(row.request.adapter, row.tokens[: row.computed], taken)
        if slot != last:
            self._pool.move(last, slot, self._rows[last].computed)
            self._rows[slot] = self._rows[last]
        self._rows.pop()

    def _end_all(self, reason: FinishReason, error: BaseException | None = None) -> None:
        rows: Iterable[_Row] = [*self._rows, *self._waiting, *self._arrived]
        self._rows.clear()
        self._waiting.clear()
        self._arrived.clear()
        for row in rows:
            row.request.sink(TokenEvent(None, None, reason, error))

    def _longest(self, context_length: int | None) -> int | None:
        """Return how long a sequence may be: by the model and by the memory."""
        if not self.batched or not self._pool.token_bytes:
            return context_length
        room = max(self._memory_of_rows // self._pool.token_bytes, LEAST_SHARED)
        return min(room, context_length) if context_length else room


def _free_memory(device: Any) -> int:
    """Return how many bytes are free on a device."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
