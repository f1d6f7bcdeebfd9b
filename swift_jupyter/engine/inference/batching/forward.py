"""Forward passes for the batching engine, and whether a model can be batched at all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from swift_jupyter.engine.inference.batching import packed
from swift_jupyter.engine.inference.batching.packed import PackedStep, Segment
from swift_jupyter.engine.inference.batching.pool import KeyValuePool

_log = logging.getLogger(__name__)
# The frequencies of these depend on the longest sequence of a call, which a step has many of.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 8e-2}


class Forward:
    """Runs packed steps of a model with its adapters.

    Parameters
    ----------
    stack : AdapterStack
        The model.

    Notes
    -----
    Whether an architecture can be batched is not looked up in a list but tried: once for
    each adapter a few tokens are computed both ways and compared.
    """

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self._can: dict[str, bool] = {}
        packed.register()

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.base.device

    @property
    def base(self) -> Any:
        """The transformers model below any adapters."""
        from transformers import PreTrainedModel

        model = self._stack.model
        return next(part for part in model.modules() if isinstance(part, PreTrainedModel))

    def can_pack(self, adapter: str, pool: KeyValuePool) -> bool:
        """Tell whether many sequences can be computed in one pass; tried once, then known.

        Parameters
        ----------
        adapter : str
            Who would answer.
        pool : KeyValuePool
            Learns the shapes of the layers.
        """
        if adapter not in self._can:
            self._can[adapter] = self._try(adapter, pool)
        return self._can[adapter]

    def forget(self, adapter: str) -> None:
        """Try anew, since the name now means another adapter."""
        self._can.pop(adapter, None)

    def run(
        self, adapter: str, segments: Sequence[Segment], pool: KeyValuePool, wanted: set[int]
    ) -> tuple[list[int], Any]:
        """Compute the new tokens of some sequences.

        Parameters
        ----------
        adapter : str
            Who answers.
        segments : sequence of Segment
            The new tokens.
        pool : KeyValuePool
            Has room for them.
        wanted : set of int
            The slots for which logits of the last new token are returned.

        Returns
        -------
        slots : list of int
            The wanted slots in the order of the rows.
        logits : Tensor, shape [len(slots), vocab]
        """
        import torch

        step = PackedStep(pool, segments, self.device)
        slots, last, count = [], [], 0
        for segment in step.segments:
            count += len(segment.tokens)
            if segment.slot in wanted:
                slots.append(segment.slot)
                last.append(count - 1)
        with torch.inference_mode(), self._stack.only(adapter), self.packing():
            output = self._stack.model(
                input_ids=step.tokens,
                position_ids=step.positions,
                use_cache=False,
                logits_to_keep=torch.tensor(last, dtype=torch.long, device=self.device),
                packed_step=step,
            )
        return slots, output.logits[0]

    @contextlib.contextmanager
    def packing(self) -> Iterator[None]:
        """Let the model attend within the sequences of a packed step."""
        base = self.base
        before = base.config._attn_implementation
        wanted = packed.IMPLEMENTATION
        if before == wanted:
            yield
            return
        base.set_attn_implementation(wanted)
        try:
            yield
        finally:
            base.set_attn_implementation(before)

    def _try(self, adapter: str, pool: KeyValuePool) -> bool:
        import torch

        rope = getattr(self.base.config.get_text_config(), "rope_parameters", None) or {}
        if rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE:
            return False
        try:
            with torch.inference_mode():
                return self._agrees(adapter, pool)
        except Exception as error:  # Whatever a strange architecture makes of it.
            _log.info("not batched: %s: %s", type(error).__name__, error)
            return False

    def _agrees(self, adapter: str, pool: KeyValuePool) -> bool:
        import torch

        vocabulary = self.base.config.get_text_config().vocab_size
        draw = torch.Generator().manual_seed(0)
        rows = [
            torch.randint(vocabulary, (length,), generator=draw).tolist() for length in (9, 5, 12)
        ]
        with self._stack.only(adapter):
            expected = torch.stack(
                [
                    self._stack.model(torch.tensor([r], device=self.device)).logits[0, -1]
                    for r in rows
                ]
            )
        trial = KeyValuePool()
        trial.reserve(len(rows), max(map(len, rows)))
        # In two chunks, then one token for each: all the ways in which steps are made.
        for start, end in ((0, 3), (3, -1)):
            parts = [
                Segment(slot, start, row[start : end if end > 0 else len(row) - 1])
                for slot, row in enumerate(rows)
            ]
            self.run(adapter, parts, trial, set())
        ends = [Segment(slot, len(row) - 1, row[-1:]) for slot, row in enumerate(rows)]
        slots, logits = self.run(adapter, ends, trial, {0, 1, 2})
        found = logits[[slots.index(slot) for slot in range(len(rows))]]
        pool.learn(trial)
        scale = float(expected.float().abs().max())
        difference = float((found.float() - expected.float()).abs().max())
        dtype = str(self.base.dtype).removeprefix("torch.")
        return difference <= _TOLERANCE.get(dtype, 8e-2) * max(scale, 1e-3)


def arrange_weights(model: Any) -> None:
    """Lay the weights of linear layers in memory so that products with few rows are quick.

    On a CPU, a product of a few rows with a transposed matrix first copies the matrix
    together; here that is done once. Only the layout changes: shapes and values stay.

    Parameters
    ----------
    model : Module
        Changed in place. Weights that an embedding shares stay as they are.
    """
    import torch

    shared = {
        part.weight.data_ptr() for part in model.modules() if isinstance(part, torch.nn.Embedding)
    }
    for part in model.modules():
        if type(part) is not torch.nn.Linear:
            continue
        weight = part.weight
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        # Weights in few bits are tensors of other types, which keep their own layout.
        plain = plain and type(weight.data) is torch.Tensor
        if plain and weight.data_ptr() not in shared and weight.is_contiguous():
            weight.data = weight.data.t().contiguous().t()
