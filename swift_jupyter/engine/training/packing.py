"""Whether a model gives the same loss for rows that share one sequence."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from swift_jupyter.engine.data.collation import collate
from swift_jupyter.engine.data.packing import pack
from swift_jupyter.engine.data.rows import EncodedRow
from swift_jupyter.engine.training.loss import accepts_positions, label_loss

_ROWS = 2
_LONGEST = 512  # Tokens of the rows that are compared; longer ones would cost seconds.
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}


def can_pack(
    model: Any, rows: Sequence[EncodedRow], lengths: Sequence[int], pad_token_id: int
) -> bool:
    """Tell whether packed rows give the loss that padded rows give.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        The model as it will be trained.
    rows : sequence of EncodedRow
        The training rows, of which the shortest are tried.
    lengths : sequence of int
        Their lengths in tokens.
    pad_token_id : int
        What pads rows.

    Notes
    -----
    Models with windows, recurrences, or positions of their own ignore the mask or the
    positions. No list of architectures is kept: each model is asked, once, with its
    own rows.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(inner.forward).parameters:
        return False
    if getattr(inner.config, "_attn_implementation", "") not in ("sdpa", "eager"):
        return False
    if _shortest_window(inner.config) < max(lengths):
        return False
    tried = sorted(rows[:256], key=len)[:_ROWS]
    if len(tried) < _ROWS or sum(map(len, tried)) > _LONGEST:
        return False
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            padded = _loss(model, inner, collate(tried, pad_token_id))
            packed = _loss(model, inner, pack(tried, inner.dtype))
    except (ValueError, RuntimeError, TypeError, IndexError):
        return False  # It does not take such a mask or such positions.
    finally:
        model.train(was_training)
    return abs(packed - padded) <= _TOLERANCE.get(inner.dtype, 1e-3) * max(1.0, abs(padded))


def _shortest_window(config: Any) -> float:
    """Return how far back some layer looks, in tokens; the rows that are tried may be shorter."""
    text = config.get_text_config()
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((float(window) for window in windows if window), default=float("inf"))


def _loss(model: Any, inner: Any, batch: dict[str, Any]) -> float:
    batch.pop("row_tokens", None)
    batch = {name: value.to(inner.device) for name, value in batch.items()}
    parts = label_loss(model, batch, accepts_positions(inner))
    return float(parts.total / parts.tokens)
