"""The options of training, with ms-swift's names and, unless the help says so, its defaults."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.options import option


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How long, how fast and in which portions."""

    learning_rate: float | None = option(
        None,
        help="The highest learning rate. By default 1e-4 as in ms-swift for models with a hidden "
        "size of 4096 or more, and up to 5e-4 for narrower ones, which learn too little with it; "
        "a tenth of it for full training, and several times as much for tuners of few numbers.",
    )
    num_train_epochs: float = option(3.0, help="How often the whole data set is seen.")
    max_steps: int = option(-1, help="Stop after this many steps; -1 for no limit.")
    per_device_train_batch_size: int | None = option(
        None,
        help="Rows per forward pass. By default as many as fit a token budget; ms-swift's is 1, "
        "which takes longer for the same result.",
    )
    per_device_eval_batch_size: int | None = option(
        None, help="Rows per forward pass in evaluation; by default as in training."
    )
    gradient_accumulation_steps: int | None = option(
        None,
        help="Forward passes per step; by default as many as make 16 rows a step.",
    )
    padding_free: bool | None = option(
        None,
        help="Put the rows of a forward pass into one sequence instead of padding them, and "
        "compute a beginning that all share (the system text) once. The loss and the gradients "
        "are the same, and short chats train 1.5 to 2 times as fast. By default on a CPU, where "
        "the model, once asked, gives the same loss; ms-swift's is off.",
    )
    weight_decay: float = option(0.1, help="The weight decay of AdamW.")
    adam_beta1: float = option(0.9, help="The first beta of AdamW.")
    adam_beta2: float = option(0.95, help="The second beta of AdamW.")
    adam_epsilon: float = option(1e-8, help="The epsilon of AdamW.")
    max_grad_norm: float = option(1.0, help="Gradients are clipped to this norm.")
    lr_scheduler_type: str = option(
        "cosine",
        help="How the learning rate goes from warm-up to the end.",
        choices=("cosine", "linear", "constant", "constant_with_warmup", "polynomial"),
    )
    warmup_ratio: float = option(0.0, help="The share of steps in which the rate rises.")
    gradient_checkpointing: bool | None = option(
        None,
        help="Compute activations twice to save memory. By default only for models above a "
        "billion parameters; ms-swift does it always, which is a third slower.",
    )
    use_liger_kernel: bool = option(
        False, help="Use Liger's fused kernels; needs a CUDA GPU and the package liger-kernel."
    )
    logging_steps: int = option(5, help="Log every so many steps; the first is always logged.")
    save_steps: int = option(500, help="Save a checkpoint every so many steps, and at the end.")
    save_minutes: float = option(
        10.0,
        help="Save a checkpoint also when this much time has passed since the last; 0 for never. "
        "ms-swift has no such option, and a short run without one would lose everything.",
    )
    save_total_limit: int | None = option(
        None, help="Keep only this many checkpoints, the newest and the best."
    )
    eval_steps: int | None = option(
        None, help="Evaluate every so many steps; by default ten times a run and at the end."
    )
    seed: int = option(42, help="The seed of weights, dropout and, unless set apart, data.")
    train_dataloader_shuffle: bool = option(True, help="Mix the rows anew in every epoch.")
    on_nan: str = option(
        "stop",
        help="When a loss or gradient is not a number: stop before it reaches a weight, with the "
        "batch saved as nan-batch-<step>.jsonl, or leave such batches out and continue.",
        choices=("stop", "continue"),
    )
    num_threads: int | None = option(None, help="CPU threads of the worker; by default all cores.")
