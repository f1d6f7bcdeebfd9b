"""Losses and gradients that are no numbers: stop with the batch, before they reach a weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from swift_jupyter.engine.data.packing import single_rows
from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.engine.training.loss import IGNORED
from swift_jupyter.errors import UserError
from swift_jupyter.files import encode_json, write_bytes_atomically
from swift_jupyter.i18n import translate as _

_NAMED_ROWS = 5
Batch = dict[str, Any]


class NonFiniteError(UserError):
    """A loss or gradient is no number; the weights still are those of the step before."""


class NonFiniteGuard:
    """Looks at every loss and gradient norm.

    Parameters
    ----------
    folder : Path
        The run's folder, where the batch is written.
    tokenizer : Any
        Makes text of it.
    rows : iterable of EncodedRow
        The training rows, to find the batch's rows in.
    row_loss : callable
        Returns the loss of a batch of one row, for a model that is evaluated.
    reporter : Reporter
        Hears of batches that are left out.
    go_on : bool
        Whether to leave the batch out and go on instead of stopping.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Any,
        rows: Any,
        row_loss: Callable[[Batch], float],
        reporter: Reporter,
        go_on: bool,
    ) -> None:
        self._folder = folder
        self._tokenizer = tokenizer
        self._rows = rows
        self._row_loss = row_loss
        self._reporter = reporter
        self._go_on = go_on
        self._told = False

    def accepts_loss(self, loss: float, model: nn.Module, batch: Batch, step: int) -> bool:
        """Tell whether a batch may be trained on.

        Parameters
        ----------
        loss : float
            Its loss.
        model : nn.Module
            Runs every row on its own to find the guilty ones.
        batch : dict
            As collated: padded or packed.
        step : int
            The step in the making, from 1.

        Raises
        ------
        NonFiniteError
            For a loss that is not finite, unless told to go on.
        """
        if math.isfinite(loss):
            return True
        what = _("The loss is {loss} at step {step}.", loss=loss, step=step)
        self._handle(what, model, [batch], step)
        return False

    def accepts_norm(self, norm: float, model: nn.Module, batches: list[Batch], step: int) -> bool:
        """Tell whether the gradients of a step may be used; see `accepts_loss`."""
        if math.isfinite(norm):
            return True
        what = _("The gradient is {norm} at step {step}.", norm=norm, step=step)
        self._handle(what, model, batches, step)
        return False

    def _handle(self, what: str, model: nn.Module, batches: list[Batch], step: int) -> None:
        if self._go_on and self._told:
            return
        path = self._folder / f"nan-batch-{step}.jsonl"
        records = [record for batch in batches for record in self._records(model, batch)]
        write_bytes_atomically(path, b"".join(encode_json(record) for record in records))
        why = _reason(model, records, path)
        if not self._go_on:
            raise NonFiniteError(
                what,
                why,
                _(
                    "Look at these rows, lower --learning_rate, or leave such batches out with "
                    "--on_nan continue."
                ),
            )
        self._told = True
        self._reporter.notice(
            _("{what} {why} Such batches are left out without further notice.", what=what, why=why)
        )

    def _records(self, model: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """Return what is written of each row: where it is from, its text, tokens and loss."""
        records = []
        rows = single_rows(batch)
        for row, loss in zip(rows, self._losses(model, rows), strict=True):
            ids, labels = row["input_ids"][0].tolist(), row["labels"][0].tolist()
            records.append(
                {
                    "origins": self._origins(ids),
                    "loss": loss if math.isfinite(loss) else str(loss),
                    "text": self._tokenizer.decode(ids),
                    "trained_text": self._tokenizer.decode([i for i in labels if i != IGNORED]),
                    "input_ids": ids,
                    "labels": labels,
                }
            )
        return records

    def _losses(self, model: nn.Module, rows: list[Batch]) -> list[float]:
        training = model.training
        model.eval()
        with torch.no_grad():
            losses = [self._row_loss(row) for row in rows]
        model.train(training)
        return losses

    def _origins(self, ids: list[int]) -> list[str]:
        """Return where the training rows that have exactly these tokens came from."""
        found = []
        for number, row in enumerate(self._rows):
            if len(row.input_ids) == len(ids) and list(row.input_ids) == ids:
                origin = getattr(row, "origin", None)
                found.append(str(origin) if origin else _("row {number}", number=number + 1))
        return found


def _reason(model: nn.Module, records: list[dict[str, Any]], path: Path) -> str:
    saved = _("The batch is in {path}.", path=path)
    broken = [name for name, p in model.named_parameters() if not bool(p.isfinite().all())]
    if broken:
        first = _("The weights are not finite themselves, {name} first.", name=broken[0])
        return f"{first} {saved}"
    guilty = [record for record in records if isinstance(record["loss"], str)]
    if not guilty:
        return _("It is no single row's; the learning rate may be too high.") + f" {saved}"
    if len(guilty) == len(records) > 1:
        first = _("Every row of the batch has such a loss: the learning rate may be too high.")
        return f"{first} {saved}"
    origins = [origin for record in guilty for origin in record["origins"][:1]]
    if not origins:
        return _("{count} rows of the batch have it.", count=len(guilty)) + f" {saved}"
    named = "; ".join(origins[:_NAMED_ROWS]) + ("; …" if len(origins) > _NAMED_ROWS else "")
    return _("It comes from {rows}.", rows=named) + f" {saved}"
