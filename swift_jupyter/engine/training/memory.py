"""Out of memory: told apart from other errors, and answered by smaller batches."""

from __future__ import annotations

import errno
import gc
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.engine.training.batching import BatchPlan
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from swift_jupyter.engine.training.trainer import SwiftTrainer

_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "could not create a memory object",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, is a lack of memory, of an accelerator or the host.

    Notes
    -----
    Only CUDA has an exception of its own; torch's CPU allocator and oneDNN raise a
    `RuntimeError` with nothing but a message.
    """
    return any(_is_one(link) for link in _chain(error))


def _is_one(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError):
        return False
    message = str(error).lower()
    return any(known in message for known in _MESSAGES)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def smaller_batches(plan: BatchPlan) -> BatchPlan:
    """Return a plan with half the rows per forward pass and as many per step.

    Raises
    ------
    UserError
        When a forward pass has one row only.

    Notes
    -----
    The rows of a step stay the same, so that their order, the schedule and the
    number of steps do. A size that has no half goes to its largest divisor below it.
    """
    if plan.batch_size == 1:
        raise UserError(
            _("The memory does not suffice for a single row."),
            next_step=_(
                "Use a shorter --max_length, --gradient_checkpointing true, a smaller "
                "--lora_rank or another --tuner_type, or a smaller model."
            ),
        )
    half = plan.batch_size // 2
    size = next(number for number in range(half, 0, -1) if plan.batch_size % number == 0)
    return BatchPlan(size, plan.accumulation * (plan.batch_size // size))


def keep_and_shrink(trainer: SwiftTrainer | None, plan: BatchPlan, reporter: Reporter) -> BatchPlan:
    """Answer a lack of memory: save the last completed step, and return smaller batches.

    Parameters
    ----------
    trainer : SwiftTrainer or None
        What ran out of memory; None when not even the model could be loaded.
    plan : BatchPlan
        The batches it had.
    reporter : Reporter
        Hears of the change.

    Raises
    ------
    UserError
        When the model itself, or a single row, is too much.
    """
    if trainer is None:
        raise UserError(
            _("The memory does not suffice to load the model."),
            next_step=_("Use a smaller model, or --quant_method bnb --quant_bits 4."),
        )
    try:
        trainer.save_last_step()
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
    smaller = smaller_batches(plan)
    reporter.notice(
        _(
            "Out of memory in step {step}: from now on {passes} forward passes of {rows} rows "
            "make a step, instead of {passes_before} of {rows_before}; the result is the same.",
            step=trainer.state.global_step + 1,
            passes=smaller.accumulation,
            rows=smaller.batch_size,
            passes_before=plan.accumulation,
            rows_before=plan.batch_size,
        )
    )
    return smaller


def release(error: BaseException) -> None:
    """Free what the frames of a failed call hold, and give back what nothing refers to.

    Parameters
    ----------
    error : BaseException
        The failure; its traceback keeps its lines but loses the local variables.
    """
    for link in _chain(error):
        traceback.clear_frames(link.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def remembered_plan(plan: BatchPlan, checkpoint: Path | None) -> BatchPlan:
    """Return the smaller batches that a checkpoint was trained with, else `plan`.

    A run whose batches had to shrink does not fail again when it is resumed.
    """
    path = checkpoint / "args.json" if checkpoint else None
    if path is None or not path.is_file():
        return plan
    stored = json.loads(path.read_text(encoding="utf-8"))
    size = stored.get("per_device_train_batch_size")
    passes = stored.get("gradient_accumulation_steps")
    if not (isinstance(size, int) and isinstance(passes, int)):
        return plan
    before = BatchPlan(size, passes)
    if 0 < size < plan.batch_size and before.rows_per_step == plan.rows_per_step:
        return before
    return plan
