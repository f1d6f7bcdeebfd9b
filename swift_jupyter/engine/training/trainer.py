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
from transformers.trainer import TRAINER_STATE_NAME

from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.engine.training import checkpoints
from swift_jupyter.engine.training.batching import StepSampler
from swift_jupyter.engine.training.loss import accepts_positions, label_loss
from swift_jupyter.engine.training.meter import Meter
from swift_jupyter.files import is_disk_full


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
    finish_checkpoint : callable
        Called with a staged checkpoint before it is published, to add files.
    keep_checkpoints : int, optional
        How many checkpoints stay. The Trainer's own limit stays unset, since it would
        remove files under a published name, and at the end the newest checkpoint.
    """

    def __init__(
        self,
        *args: Any,
        lengths: list[int],
        shuffle: bool,
        meter: Meter,
        reporter: Reporter,
        finish_checkpoint: Callable[[Path], None],
        keep_checkpoints: int | None = None,
        **kwargs: Any,
    ) -> None:
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
        self._sparse = accepts_positions(self._inner_model())

    def _inner_model(self) -> torch.nn.Module:
        model: Any = self.accelerator.unwrap_model(self.model)
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

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss per labelled token, and in evaluation the number of tokens."""
        attended = int(inputs["attention_mask"].sum())
        parts = label_loss(model, dict(inputs), self._sparse)
        count = parts.tokens if num_items_in_batch is None else num_items_in_batch
        loss = parts.total / count
        if model.training:
            self.meter.loss += float(loss.detach())
            self.meter.labelled += int(parts.tokens)
            self.meter.correct += int(parts.correct)
            self.meter.total_tokens += attended
        return (loss, {"tokens": parts.tokens}) if return_outputs else loss

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
                parts = label_loss(model, dict(self._prepare_inputs(batch)), self._sparse)
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
