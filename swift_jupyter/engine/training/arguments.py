"""Our options in the words of `transformers.TrainingArguments`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import TrainingArguments

from swift_jupyter.engine.training.batching import BatchPlan
from swift_jupyter.engine.training.optimizers.options import optimizer_name

if TYPE_CHECKING:
    from swift_jupyter.engine.training.job import SftJob

_EVALUATIONS_PER_RUN = 10
_REFERENCE_RATE, _REFERENCE_WIDTH, _HIGHEST_RATE = 1e-4, 4096, 5e-4


def training_arguments(
    job: SftJob,
    folder: Path,
    plan: BatchPlan,
    rows: int,
    evaluate: bool,
    checkpointing: bool,
    learning_rate: float,
    dtype: torch.dtype,
) -> TrainingArguments:
    """Build the Trainer's arguments.

    Parameters
    ----------
    job : SftJob
        What the user asked for.
    folder : Path
        The run's folder.
    plan : BatchPlan
        Rows per forward pass and passes per step.
    rows : int
        The number of training rows.
    evaluate : bool
        Whether there are rows to evaluate on.
    checkpointing : bool
        Whether activations are computed twice.
    learning_rate : float
        As from `choose_learning_rate`.
    dtype : torch.dtype
        The data type of the weights.
    """
    steps = total_steps(job, plan, rows)
    accelerated = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        learning_rate=learning_rate,
        optim=optimizer_name(job),
        num_train_epochs=job.num_train_epochs,
        max_steps=job.max_steps,
        per_device_train_batch_size=plan.batch_size,
        per_device_eval_batch_size=job.per_device_eval_batch_size or plan.batch_size,
        gradient_accumulation_steps=plan.accumulation,
        weight_decay=job.weight_decay,
        adam_beta1=job.adam_beta1,
        adam_beta2=job.adam_beta2,
        adam_epsilon=job.adam_epsilon,
        max_grad_norm=job.max_grad_norm,
        lr_scheduler_type=job.lr_scheduler_type,
        warmup_steps=math.ceil(steps * job.warmup_ratio),
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        logging_strategy="steps",
        logging_steps=job.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=job.save_steps,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=(job.eval_steps or max(1, math.ceil(steps / _EVALUATIONS_PER_RUN)))
        if evaluate
        else None,
        metric_for_best_model="eval_loss" if evaluate else None,
        greater_is_better=False if evaluate else None,
        bf16=accelerated and dtype == torch.bfloat16,
        fp16=accelerated and dtype == torch.float16,
        seed=job.seed,
        data_seed=job.data_seed,
        use_liger_kernel=job.use_liger_kernel,
        # LISA's resting layers have no gradients for the processes to wait for.
        ddp_find_unused_parameters=True if job.lisa_activated_layers else None,
        dataloader_pin_memory=accelerated,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )


def choose_learning_rate(hidden_size: int | None, rate: float = 1.0) -> float:
    """Return the learning rate for a model of this width.

    Parameters
    ----------
    hidden_size : int or None
        The model's width.
    rate : float
        How many times LoRA's the tuner's usual rate is.

    Notes
    -----
    Adam's best rate falls about inversely with the width (Yang et al., "Tensor
    Programs V", 2022), and 1e-4 is customary at 4096. The cap keeps very small models
    from diverging.
    """
    if not hidden_size:
        return _REFERENCE_RATE * rate
    by_width = _REFERENCE_RATE * max(1.0, _REFERENCE_WIDTH / hidden_size)
    return min(_HIGHEST_RATE, by_width) * rate


def total_steps(job: SftJob, plan: BatchPlan, rows: int) -> int:
    """Return how many steps the run will have."""
    if job.max_steps > 0:
        return job.max_steps
    per_epoch = math.ceil(math.ceil(rows / plan.batch_size) / plan.accumulation)
    return math.ceil(job.num_train_epochs * per_epoch)
