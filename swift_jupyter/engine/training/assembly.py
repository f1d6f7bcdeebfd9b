"""Putting the Trainer of one fine-tuning together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments

from swift_jupyter.engine.data.collation import Collator
from swift_jupyter.engine.data.packing import PackingCollator
from swift_jupyter.engine.data.prepared import PreparedData
from swift_jupyter.engine.models.architecture import base_architecture
from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.engine.training.arguments import (
    choose_learning_rate,
    total_steps,
    training_arguments,
)
from swift_jupyter.engine.training.batching import BatchPlan
from swift_jupyter.engine.training.callbacks import ClockCheckpoint, LogCallback, StopCallback
from swift_jupyter.engine.training.dropout import speed_up_dropout
from swift_jupyter.engine.training.host_memory import HostMemoryLimit
from swift_jupyter.engine.training.job import SftJob
from swift_jupyter.engine.training.lisa import LisaCallback
from swift_jupyter.engine.training.meter import Meter
from swift_jupyter.engine.training.optimizers.base import ProjectedOptimizer
from swift_jupyter.engine.training.packing import can_pack
from swift_jupyter.engine.training.trainer import SwiftTrainer
from swift_jupyter.engine.training.tuners.protocol import Tuner
from swift_jupyter.engine.training.tuners.quantised import keep_differentiable
from swift_jupyter.engine.training.tuners.registry import build_tuner
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

# Below this many parameters the activations are small beside the machine's memory.
_CHECKPOINTING_FROM = 1_000_000_000


@dataclass(frozen=True)
class Assembly:
    """A Trainer that is ready to train.

    Attributes
    ----------
    trainer : SwiftTrainer
        The Trainer.
    stop : StopCallback
        Knows afterwards whether it was asked to stop.
    chosen : dict
        What the user left open, as it was chosen.
    """

    trainer: SwiftTrainer
    stop: StopCallback
    chosen: dict[str, Any]


def assemble(
    job: SftJob,
    model: Any,
    tokenizer: Any,
    data: PreparedData,
    plan: BatchPlan,
    *,
    device: str,
    folder: Path,
    reporter: Reporter,
    resume_from: Path | None,
    finish_checkpoint: Callable[[Path], None],
) -> Assembly:
    """Prepare the model and build its Trainer.

    Parameters
    ----------
    job : SftJob
        What the user asked for.
    model : PreTrainedModel
        The base model, which is changed.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    data : PreparedData
        The rows.
    plan : BatchPlan
        Rows per forward pass and passes per step.
    device : str
        What is trained on.
    folder : Path
        The run's folder.
    reporter : Reporter
        Hears about progress.
    resume_from : Path or None
        The checkpoint that training goes on from.
    finish_checkpoint : callable
        Called with a staged checkpoint before it is published.

    Raises
    ------
    UserError
        When the options do not fit the model.
    """
    lengths = data.train.lengths()
    steps = total_steps(job, plan, len(lengths))
    tuner = build_tuner(job, steps, job.seed, job.gradient_checkpointing)
    checkpointing = _checkpointing(job, model, tuner)
    if checkpointing and tuner.needs_input_gradients:
        model.enable_input_require_grads()
    architecture = base_architecture(model.config)
    keep_differentiable(model)
    dtype = model.dtype
    prepared = tuner.prepare(model)
    if device == "cpu":
        speed_up_dropout(prepared)
    width = getattr(model.config.get_text_config(), "hidden_size", None)
    rate = job.learning_rate or choose_learning_rate(width, tuner.rate)
    arguments = training_arguments(
        job, folder, plan, len(lengths), bool(data.val), checkpointing, rate, dtype
    )
    padding_free = _padding_free(job, prepared, tuner, data, plan, tokenizer, device)
    stop, log = StopCallback(reporter), LogCallback(reporter)
    pad = tokenizer.pad_token_id
    trainer = SwiftTrainer(
        model=prepared,
        args=arguments,
        train_dataset=data.train,
        eval_dataset=data.val or None,
        data_collator=PackingCollator(pad, dtype) if padding_free else Collator(pad),
        processing_class=tokenizer,
        callbacks=[log, stop, *_callbacks(job, prepared, device)],
        lengths=lengths,
        shuffle=job.train_dataloader_shuffle,
        meter=Meter.load(resume_from),
        reporter=reporter,
        tuner=tuner,
        finish_checkpoint=finish_checkpoint,
        keep_checkpoints=job.save_total_limit,
        build_optimizer=_optimizer_builder(job, arguments, model.dtype, reporter),
        skip_nonfinite=job.on_nan == "continue",
    )
    log.attach(trainer)
    chosen = {
        "learning_rate": rate,
        "per_device_train_batch_size": plan.batch_size,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_checkpointing": checkpointing,
        "padding_free": padding_free,
        "base_architecture": architecture,
    }
    return Assembly(trainer, stop, chosen)


def _callbacks(job: SftJob, model: Any, device: str) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [ClockCheckpoint(job.save_minutes)]
    if device == "cpu":
        callbacks.append(HostMemoryLimit(trim=job.projects or job.lisa_activated_layers > 0))
    if job.lisa_activated_layers:
        callbacks.append(LisaCallback(model, job, job.seed))
    return callbacks


def _checkpointing(job: SftJob, model: Any, tuner: Tuner) -> bool:
    """Decide whether activations are computed twice."""
    wanted = job.gradient_checkpointing
    if wanted and not tuner.checkpointing:
        raise UserError(
            _("{tuner} cannot compute activations twice.", tuner=job.tuner_type),
            next_step=_("Leave out --gradient_checkpointing."),
        )
    if wanted is None:
        wanted = tuner.checkpointing and model.num_parameters() >= _CHECKPOINTING_FROM
    return wanted


def _padding_free(
    job: SftJob,
    model: Any,
    tuner: Tuner,
    data: PreparedData,
    plan: BatchPlan,
    tokenizer: Any,
    device: str,
) -> bool:
    """Decide whether rows of a forward pass share one sequence.

    Without being asked only on the CPU: kernels of accelerators are faster without a mask.
    """
    if job.padding_free is False or plan.batch_size < 2:
        return False
    if job.padding_free is None and device != "cpu":
        return False
    possible = tuner.packable and can_pack(
        model, data.train, data.train.lengths(), tokenizer.pad_token_id
    )
    if job.padding_free and not possible:
        raise UserError(
            _("This model or tuner cannot train rows without padding."),
            _("Rows that share a sequence do not give it the loss that padded rows give."),
            _("Leave out --padding_free."),
        )
    return possible


def _optimizer_builder(
    job: SftJob, arguments: TrainingArguments, dtype: torch.dtype, reporter: Reporter
) -> Callable[[Any, set[str]], ProjectedOptimizer] | None:
    """Return what builds the optimizer, when it is one of ours."""
    if not job.projects:
        return None
    from swift_jupyter.engine.training.optimizers.build import build_optimizer, plan_optimizer

    plan = plan_optimizer(job, arguments, dtype)
    for notice in plan.notices:
        reporter.notice(notice)
    return lambda model, decayed: build_optimizer(model, job, plan, arguments, decayed)
