"""One forward pass over the tokens of many sequences, laid one after the other.

All tokens of a step form a single sequence, so matrix products have no padding. Only
attention has to know which tokens belong together; it is an attention function of its own,
registered by transformers' public interface and told about the step by an argument.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swift_jupyter.engine.inference.batching.pool import KeyValuePool

IMPLEMENTATION = "swift_jupyter_packed"
# A row this much longer than usual is attended to alone, so that the others need not be padded.
_LONG_FACTOR = 3
_LONG_LEAST = 256


@dataclass(frozen=True)
class Segment:
    """The tokens of one sequence in a step.

    Attributes
    ----------
    slot : int
        Where its keys and values are.
    start : int
        How many tokens are there already.
    tokens : sequence of int
        The new ones.
    """

    slot: int
    start: int
    tokens: Sequence[int]

    @property
    def end(self) -> int:
        """How many tokens are there after the step."""
        return self.start + len(self.tokens)


class PackedStep:
    """What attention has to know about one step.

    Parameters
    ----------
    pool : KeyValuePool
        With room for all segments.
    segments : sequence of Segment
        Single tokens first.
    device : device
        Of the model.
    """

    def __init__(self, pool: KeyValuePool, segments: Sequence[Segment], device: Any) -> None:
        import torch

        self.pool = pool
        self._device = device
        self._masks: dict[tuple[Any, ...], Any] = {}
        together = [s for s in segments if len(s.tokens) == 1]
        usual = statistics.median([s.end for s in together]) if together else 0
        long = max(_LONG_LEAST, _LONG_FACTOR * usual)
        self._single = [s for s in together if s.end <= long]
        self._alone = [s for s in segments if len(s.tokens) > 1 or s.end > long]
        self.segments = [*self._single, *self._alone]
        self._first = min((s.slot for s in self._single), default=0)
        self._last = max((s.slot + 1 for s in self._single), default=0)
        self._longest = max((s.end for s in self._single), default=0)
        offsets = [s.slot - self._first for s in self._single]
        gaps = offsets != list(range(self._last - self._first))
        self._offsets = torch.tensor(offsets, device=device) if gaps else None
        positions = [p for s in self.segments for p in range(s.start, s.end)]
        places = [s.slot * pool.capacity + p for s in self.segments for p in range(s.start, s.end)]
        tokens = [token for s in self.segments for token in s.tokens]
        self.tokens = torch.tensor([tokens], device=device)
        self.positions = torch.tensor([positions], device=device)
        self._places = torch.tensor(places, device=device)

    def attend(
        self,
        layer: int,
        query: Any,
        key: Any,
        value: Any,
        scaling: float | None,
        window: int | None,
    ) -> Any:
        """Store keys and values of one layer, and attend.

        Parameters
        ----------
        layer : int
            Which layer.
        query, key, value : Tensor, shape [1, heads, tokens, width]
            Of the new tokens.
        scaling : float or None
            Factor of the scores.
        window : int or None
            How far back a token may look.

        Returns
        -------
        Tensor, shape [1, tokens, heads, width]
        """
        self.pool.write(layer, self._places, key[0].transpose(0, 1), value[0].transpose(0, 1))
        queries = query[0].transpose(0, 1)
        heads, kept = query.shape[1], key.shape[1]
        output = queries.new_empty((queries.shape[0], heads, value.shape[-1]))
        done = len(self._single)
        if done:
            output[:done] = self._attend_single(layer, queries[:done], kept, scaling, window)
        for segment in self._alone:
            count = len(segment.tokens)
            part = queries[done : done + count]
            output[done : done + count] = self._attend_alone(
                layer, segment, part, kept, scaling, window
            )
            done += count
        return output.unsqueeze(0)

    def _attend_single(
        self, layer: int, queries: Any, kept: int, scaling: float | None, window: int | None
    ) -> Any:
        """Attend from one new token in each of neighbouring slots."""
        from torch.nn.functional import scaled_dot_product_attention

        _count, heads, width = queries.shape
        if self._offsets is not None:
            spread = queries.new_zeros((self._last - self._first, heads, width))
            queries = spread.index_copy_(0, self._offsets, queries)
        keys, values = self.pool.read(layer, self._first, self._last, self._longest)
        # The heads that share keys are handled as if they were several new tokens.
        grouped = queries.reshape(queries.shape[0], kept, heads // kept, width)
        mask = self._single_mask(window, queries)
        result = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scaling)
        result = result.reshape(queries.shape[0], heads, -1)
        return result if self._offsets is None else result[self._offsets]

    def _single_mask(self, window: int | None, like: Any) -> Any:
        import torch

        key = ("single", window)
        if key not in self._masks:
            ends = [0] * (self._last - self._first)
            for segment in self._single:
                ends[segment.slot - self._first] = segment.end
            if all(end == self._longest for end in ends) and not _cuts(window, self._longest):
                self._masks[key] = None
            else:
                length = torch.tensor(ends, device=self._device)[:, None]
                # An unused slot looks at one token, since looking at none would not be a number.
                length = length.clamp(min=1)
                place = torch.arange(self._longest, device=self._device)[None]
                seen = place < length
                if window:
                    seen &= place >= length - window
                self._masks[key] = _additive(seen, like)[:, None, None]
        return self._masks[key]

    def _attend_alone(
        self,
        layer: int,
        segment: Segment,
        queries: Any,
        kept: int,
        scaling: float | None,
        window: int | None,
    ) -> Any:
        from torch.nn.functional import scaled_dot_product_attention

        count, heads, width = queries.shape
        keys, values = self.pool.read(layer, segment.slot, segment.slot + 1, segment.end)
        groups = heads // kept
        grouped = queries.reshape(count, kept, groups, width).permute(1, 2, 0, 3)
        grouped = grouped.reshape(1, kept, groups * count, width)
        mask = self._alone_mask(segment, groups, window, queries)
        result = scaled_dot_product_attention(grouped, keys, values, attn_mask=mask, scale=scaling)
        result = result.reshape(kept, groups, count, -1).permute(2, 0, 1, 3)
        return result.reshape(count, heads, -1)

    def _alone_mask(self, segment: Segment, groups: int, window: int | None, like: Any) -> Any:
        import torch

        key = ("alone", segment.slot, groups, window)
        if key not in self._masks:
            own = torch.arange(segment.start, segment.end, device=self._device)[:, None]
            place = torch.arange(segment.end, device=self._device)[None]
            seen = place <= own
            if window:
                seen &= place > own - window
            self._masks[key] = _additive(seen, like).repeat(groups, 1)[None, None]
        return self._masks[key]


def _additive(seen: Any, like: Any) -> Any:
    mask = like.new_zeros(seen.shape)
    return mask.masked_fill_(~seen, float("-inf"))


def _cuts(window: int | None, length: int) -> bool:
    return bool(window) and length > (window or 0)


def packed_attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_step: PackedStep | None = None,
    **others: Any,
) -> tuple[Any, None]:
    """Attend within each sequence of a packed step; see `transformers.AttentionInterface`.

    Raises
    ------
    NotImplementedError
        When the model wants something of attention that is not done here.
    """
    wants = [name for name in ("s_aux", "position_bias", "cache") if others.get(name) is not None]
    if packed_step is None or softcap is not None or wants:
        raise NotImplementedError(f"packed attention: softcap={softcap}, {wants}")
    window = sliding_window if isinstance(sliding_window, int) else None
    output = packed_step.attend(module.layer_idx, query, key, value, scaling, window)
    return output, None


def register() -> None:
    """Let transformers find the attention function by its name."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, packed_attention)
