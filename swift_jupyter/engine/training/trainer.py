"""`transformers.Trainer` with our loss, order of rows and checkpoints around it."""

from __future__ import annotations

import errno
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME

from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.engine.training import checkpoints
from swift_jupyter.engine.training.batching import StepSampler
from swift_jupyter.engine.training.loss import LossParts, accepts_positions, label_loss
from swift_jupyter.engine.training.meter import Meter
from swift_jupyter.engine.training.nonfinite import NonFiniteGuard
from swift_jupyter.engine.training.optimizers.base import ProjectedOptimizer
from swift_jupyter.engine.training.steps import StepBorder
from swift_jupyter.engine.training.tuners.protocol import Tuner
from swift_jupyter.engine.training.tuners.rates import split_by_rate
from swift_jupyter.files import is_disk_full


class _BatchLeftOut(Exception):
    """A batch whose loss is no number was left out, as the user wished."""


class SwiftTrainer(Trainer):
    """A Trainer for causal language models with labels on some tokens.

    Parameters
    ----------
    *args, **kwargs
        As for `transformers.Trainer`.
    lengths : list of int
        The training rows' lengths in tokens.
    shuffle : bool
        Whether to mix the rows in every epoch.
    meter : Meter
        The sums since the last log.
    reporter : Reporter
        Where logs and checkpoints are reported.
    tuner : Tuner
        How the model was prepared; it writes and reads the checkpoint's weights.
    finish_checkpoint : callable
        Called with a staged checkpoint before it is published, to add files.
    keep_checkpoints : int, optional
        How many checkpoints stay. The Trainer's own limit stays unset, since it would
        remove files under a published name, and at the end the newest checkpoint.
    build_optimizer : callable, optional
        Builds one of our optimizers from the model and the names of the parameters with
        weight decay; without it, the Trainer's ``optim`` counts.
    skip_nonfinite : bool
        Whether batches whose loss is no number are left out, instead of ending the run.

    Attributes
    ----------
    own_optimizer : ProjectedOptimizer or None
        The optimizer, when it is one of ours.
    """

    def __init__(
        self,
        *args: Any,
        lengths: list[int],
        shuffle: bool,
        meter: Meter,
        reporter: Reporter,
        tuner: Tuner,
        finish_checkpoint: Callable[[Path], None],
        keep_checkpoints: int | None = None,
        build_optimizer: Callable[[Any, set[str]], ProjectedOptimizer] | None = None,
        skip_nonfinite: bool = False,
        **kwargs: Any,
    ) -> None:
        self._tuner = tuner
        self._build_optimizer = build_optimizer
        self.own_optimizer: ProjectedOptimizer | None = None
        super().__init__(*args, **kwargs)
        # Our loss is normalised by the labelled tokens of the whole step.
        self.model_accepts_loss_kwargs = True
        self.meter = meter
        self._lengths = lengths
        self._shuffle = shuffle
        self._reporter = reporter
        self._finish_checkpoint = finish_checkpoint
        self._keep_checkpoints = keep_checkpoints
        self._staging: Path | None = None
        self._started = time.monotonic()
        self._sparse = tuner.takes_positions and accepts_positions(self._inner_model())
        self._extra_positions = tuner.extra_positions(self._unwrapped())
        self._border = StepBorder(self)
        self.add_callback(self._border)
        self._guard = NonFiniteGuard(
            Path(str(self.args.output_dir)),
            self.processing_class,
            self.train_dataset,
            self._row_loss,
            reporter,
            skip_nonfinite,
        )

    def _unwrapped(self) -> torch.nn.Module:
        model: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        return model

    def _inner_model(self) -> torch.nn.Module:
        model: Any = self._unwrapped()
        inner: torch.nn.Module = (
            model.get_base_model() if hasattr(model, "get_base_model") else model
        )
        return inner

    @property
    def seconds(self) -> float:
        """Training time of the whole run so far, earlier workers included."""
        return self.meter.seconds + time.monotonic() - self._started

    def _get_train_sampler(self, train_dataset: Any = None) -> StepSampler:
        rows = self._train_batch_size * self.args.gradient_accumulation_steps
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        return StepSampler(self._lengths, rows, seed, self._shuffle)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any) -> Any:
        """Train on one batch; return its loss, or zero for a batch that is left out."""
        if self.own_optimizer is not None:
            self.own_optimizer.accumulating = not self.accelerator.sync_gradients
        self._border.batches.append(inputs)
        try:
            return super().training_step(model, inputs, *args)
        except _BatchLeftOut:
            return torch.zeros((), device=self.args.device)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if self.own_optimizer is not None and self.own_optimizer.per_parameter:
            # Most gradients are gone already; their norms were noted.
            norm = math.hypot(float(norm), self.own_optimizer.take_gradient_norm())
        # With float16, an overflow is the scaler's business.
        if norm is not None and self.accelerator.scaler is None:
            step = self.state.global_step + 1
            if not self._guard.accepts_norm(float(norm), model, self._border.batches, step):
                model.zero_grad(set_to_none=True)
        return norm

    def _row_loss(self, row: dict[str, Any]) -> float:
        assert self.model is not None
        parts = self._parts(self.model, self._prepare_inputs(row))
        return float(parts.total) / max(1, int(parts.tokens))

    def save_last_step(self) -> bool:
        """Save a checkpoint of the last completed step, after a failure in the next one.

        Returns
        -------
        bool
            False when the weights are not that step's any more.
        """
        if not self._border.whole:
            return False
        self._border.forget_step()
        model = self.model
        assert model is not None
        model.zero_grad(set_to_none=True)
        last = checkpoints.last_checkpoint(Path(str(self.args.output_dir)))
        if self.state.global_step > (checkpoints.step_of(last) if last else 0):
            self._save_checkpoint(model, None)
        return True

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss per labelled token, and in evaluation the number of tokens."""
        packed = inputs.get("row_tokens")
        attended = int(inputs["attention_mask"].sum() if packed is None else packed)
        parts = self._parts(model, inputs)
        count = parts.tokens if num_items_in_batch is None else num_items_in_batch
        loss = parts.total / count
        if model.training:
            value, step = float(loss.detach()), self.state.global_step + 1
            if not self._guard.accepts_loss(value, model, inputs, step):
                raise _BatchLeftOut
            self.meter.loss += value
            self.meter.labelled += int(parts.tokens)
            self.meter.correct += int(parts.correct)
            self.meter.total_tokens += attended
            penalty = self._tuner.penalty(self._unwrapped())
            if penalty is not None:
                loss = loss + penalty / self.args.gradient_accumulation_steps
        return (loss, {"tokens": parts.tokens}) if return_outputs else loss

    def _parts(self, model: torch.nn.Module, inputs: dict[str, Any]) -> LossParts:
        batch = self._tuner.inputs(dict(inputs))
        batch.pop("row_tokens", None)
        return label_loss(model, batch, self._sparse, self._extra_positions)

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Return the loss and accuracy per labelled token over the evaluation rows."""
        started = time.monotonic()
        model = self.model
        assert model is not None
        model.eval()
        total = labelled = correct = 0.0
        with torch.inference_mode():
            for batch in self.get_eval_dataloader(eval_dataset):
                parts = self._parts(model, self._prepare_inputs(batch))
                total += float(parts.total)
                labelled += int(parts.tokens)
                correct += int(parts.correct)
        model.train()
        metrics = {
            f"{metric_key_prefix}_loss": total / max(1, labelled),
            f"{metric_key_prefix}_token_acc": correct / max(1, labelled),
            f"{metric_key_prefix}_runtime": time.monotonic() - started,
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimizer, with rates of their own for some parameters."""
        fresh = self.optimizer is None
        if fresh and self._build_optimizer is not None:
            trained: Any = self.model if model is None else model
            decayed = set(self.get_decay_parameter_names(trained))
            self.own_optimizer = self._build_optimizer(trained, decayed)
            self.optimizer = self.own_optimizer
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if fresh:
            model = self._unwrapped()
            split_by_rate(optimizer, model, self._tuner.rates(model))
        return optimizer

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self._tuner.save(self._unwrapped(), folder, state_dict)
        tokenizer: Any = self.processing_class
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        if not self._tuner.load(self._unwrapped(), Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        run_folder = Path(str(self.args.output_dir))
        self._staging = checkpoints.staging_folder(run_folder)
        try:
            super()._save_checkpoint(model, trial)
            staged = self._staging / f"checkpoint-{self.state.global_step}"
            best = self._best_checkpoint(run_folder)
            # The Trainer has noted the staging folder, or none.
            self.state.best_model_checkpoint = str(best) if best else None
            self.state.save_to_json(str(staged / TRAINER_STATE_NAME))
            self.meter.save(staged, self.seconds)
            self._finish_checkpoint(staged)
            published = checkpoints.publish(staged, run_folder)
            checkpoints.remove_old(run_folder, self._keep_checkpoints, best)
        except Exception as error:
            if is_disk_full(error, run_folder):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None
        self._reporter.checkpoint(published, self.state.global_step)

    def _best_checkpoint(self, run_folder: Path) -> Path | None:
        """Return which checkpoint, the one in the making included, has the least loss.

        Checkpoints at whose step nothing was evaluated do not count.
        """
        names = {checkpoints.step_of(path) for path in checkpoints.published(run_folder)}
        names.add(self.state.global_step)
        losses = {
            row["step"]: row["eval_loss"]
            for row in self.state.log_history
            if row.get("step") in names and math.isfinite(row.get("eval_loss", math.nan))
        }
        if not losses:
            return None
        return run_folder / f"checkpoint-{min(losses, key=lambda step: losses[step])}"
