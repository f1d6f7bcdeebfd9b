"""Supervised fine-tuning: from options to an adapter."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.engine.training import checkpoints
from swift_jupyter.engine.training.options import LoraOptions, TrainingOptions
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.files import write_json_atomically
from swift_jupyter.i18n import translate as _
from swift_jupyter.journal import keep_rows, read_rows
from swift_jupyter.settings import Settings

if TYPE_CHECKING:
    from swift_jupyter.engine.data.pipeline import PreparedData
    from swift_jupyter.engine.training.trainer import SwiftTrainer
    from swift_jupyter.hub.progress import PullProgress

ARGS_FILE = "args.json"
METRICS_FILE = "logging.jsonl"
# Below this many parameters the activations are small beside the machine's memory.
_CHECKPOINTING_FROM = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class SftJob(TrainingOptions, LoraOptions, DataOptions, ModelOptions):
    """All that a fine-tuning needs to know."""


class _Stopped(Exception):
    """A stop was asked for before the first step."""


def train(
    options: dict[str, Any], folder: Path, settings: Settings, reporter: Reporter
) -> dict[str, Any]:
    """Fine-tune a model; goes on from the folder's last checkpoint when it has one.

    Parameters
    ----------
    options : dict
        The fields of `SftJob`, as JSON values.
    folder : Path
        The run's folder, where checkpoints are published.
    settings : Settings
        Where models are looked up.
    reporter : Reporter
        Hears about progress, and says when to stop.

    Returns
    -------
    dict
        The checkpoints, the last losses, sizes and speed; ``stopped`` when it was
        asked to stop.

    Raises
    ------
    UserError
        For anything the user can mend.
    """
    job = SftJob(**options)
    try:
        return _Training(job, folder, settings, reporter).run()
    except (_Stopped, Interrupted):
        return {"stopped": True, "global_step": 0}


class _Training:
    """The stages of one fine-tuning, in the order in which `run` calls them."""

    def __init__(self, job: SftJob, folder: Path, settings: Settings, reporter: Reporter) -> None:
        self.job = job
        self.folder = folder
        self.settings = settings
        self.reporter = reporter
        self.resume_from = checkpoints.last_checkpoint(folder)
        self.model_name = job.model  # A local folder's is its whole path, once it is found.

    def run(self) -> dict[str, Any]:
        """Do all stages and return the result."""
        checkpoints.discard_staging(self.folder)
        self._forget_later_rows()
        model_folder = self._pull_model()
        self._stage(_("Loading the libraries"))
        self._set_threads()
        from swift_jupyter.engine.models.loading import choose_device, load_model, load_tokenizer

        self._stage(_("Reading the data"))
        tokenizer = load_tokenizer(model_folder, self.job.trust_remote_code)
        data = self._prepare(tokenizer, model_folder)
        self._stage(_("Loading the model"))
        device = choose_device()
        self._seed()
        model = load_model(model_folder, self.job, device)
        trainer, stop = self._build_trainer(model, tokenizer, data, device)
        self._check_disk(trainer)
        self._stage(_("Training"))
        trainer.train(resume_from_checkpoint=str(self.resume_from) if self.resume_from else None)
        return self._result(trainer, data, stop.stopped)

    def _stage(self, text: str) -> None:
        if self.reporter.should_stop():
            raise _Stopped
        self.reporter.phase(text)

    def _forget_later_rows(self) -> None:
        """Drop logged steps that the resumed run will do again."""
        path = self.folder / METRICS_FILE
        if not path.exists():
            return
        last = checkpoints.step_of(self.resume_from) if self.resume_from else 0
        keep_rows(path, lambda row: int(row.get("step", 0)) <= last and last > 0)
        if last:
            self.reporter.notice(_("Going on from the checkpoint of step {step}.", step=last))

    def _pull_model(self) -> Path:
        from swift_jupyter.engine.models.catalogue import resolve
        from swift_jupyter.hub.pull import pull

        self._stage(_("Looking for the model"))
        reference = resolve(self.job.model, self.job.model_revision)
        if reference.local_path is not None:
            self.model_name = str(reference.local_path)
        return pull(reference, self.settings, report=self._report_pull).path

    def _report_pull(self, progress: PullProgress) -> None:
        if self.reporter.should_stop():
            raise _Stopped
        text = _("Getting {name} from {source}", name=progress.repo_id, source=progress.source)
        self.reporter.phase(text, progress.done_bytes, progress.total_bytes)

    def _set_threads(self) -> None:
        import torch

        if self.job.num_threads:
            torch.set_num_threads(self.job.num_threads)

    def _seed(self) -> None:
        from transformers import set_seed

        set_seed(self.job.seed)

    def _prepare(self, tokenizer: Any, model_folder: Path) -> PreparedData:
        from swift_jupyter.engine.data.pipeline import prepare
        from swift_jupyter.engine.models.loading import check_model_folder

        names = {f.name for f in dataclasses.fields(DataOptions)}
        options = DataOptions(**{name: getattr(self.job, name) for name in names})
        config = check_model_folder(model_folder)
        data = prepare(
            options,
            tokenizer,
            config.get("max_position_embeddings"),
            progress=lambda done, total: self.reporter.phase(_("Reading the data"), done, total),
            should_stop=self.reporter.should_stop,
            settings=self.settings,
            report=self._report_pull,
        )
        for notice in data.notices:
            self.reporter.notice(notice)
        return data

    def _build_trainer(
        self, model: Any, tokenizer: Any, data: PreparedData, device: str
    ) -> tuple[SwiftTrainer, Any]:
        from swift_jupyter.engine.data.collation import Collator
        from swift_jupyter.engine.training.arguments import (
            choose_learning_rate,
            training_arguments,
        )
        from swift_jupyter.engine.training.batching import plan_batches
        from swift_jupyter.engine.training.callbacks import (
            ClockCheckpoint,
            LogCallback,
            StopCallback,
        )
        from swift_jupyter.engine.training.dropout import speed_up_dropout
        from swift_jupyter.engine.training.lora import add_lora
        from swift_jupyter.engine.training.meter import Meter
        from swift_jupyter.engine.training.trainer import SwiftTrainer

        lengths = [len(row.input_ids) for row in data.train]
        plan = plan_batches(
            lengths,
            device,
            self.job.per_device_train_batch_size,
            self.job.gradient_accumulation_steps,
        )
        checkpointing = self.job.gradient_checkpointing
        if checkpointing is None:
            checkpointing = model.num_parameters() >= _CHECKPOINTING_FROM
        if checkpointing:
            model.enable_input_require_grads()
        peft_model = add_lora(model, self.job)
        if device == "cpu":
            speed_up_dropout(peft_model)
        text_config = model.config.get_text_config()
        rate = self.job.learning_rate or choose_learning_rate(
            getattr(text_config, "hidden_size", None)
        )
        self._write_args(
            Path(model.name_or_path),
            learning_rate=rate,
            per_device_train_batch_size=plan.batch_size,
            gradient_accumulation_steps=plan.accumulation,
            gradient_checkpointing=checkpointing,
        )
        stop, log = StopCallback(self.reporter), LogCallback(self.reporter)
        trainer = SwiftTrainer(
            model=peft_model,
            args=training_arguments(
                self.job,
                self.folder,
                plan,
                len(lengths),
                bool(data.val),
                checkpointing,
                rate,
                model.dtype,
            ),
            train_dataset=data.train,
            eval_dataset=data.val or None,
            data_collator=Collator(tokenizer.pad_token_id),
            processing_class=tokenizer,
            callbacks=[log, stop, ClockCheckpoint(self.job.save_minutes)],
            lengths=lengths,
            shuffle=self.job.train_dataloader_shuffle,
            meter=Meter.load(self.resume_from),
            reporter=self.reporter,
            finish_checkpoint=self._add_args,
            keep_checkpoints=self.job.save_total_limit,
        )
        log.attach(trainer)
        return trainer, stop

    def _write_args(self, model_folder: Path, **chosen: Any) -> None:
        """Write `args.json`, by which `infer` and `merge` know what was trained.

        What the user left open is there as it was `chosen`.
        """
        values = {**dataclasses.asdict(self.job), **chosen, "output_dir": str(self.folder)}
        # ms-swift takes `model` for a hub's id or a folder, and knows no other names.
        values["requested_model"] = self.model_name
        values["model"] = self.model_name if "/" in self.model_name else str(model_folder)
        write_json_atomically(self.folder / ARGS_FILE, values)

    def _add_args(self, staged: Path) -> None:
        shutil.copy(self.folder / ARGS_FILE, staged)

    def _check_disk(self, trainer: SwiftTrainer) -> None:
        """See ahead that a checkpoint fits: weights, and two moments per weight."""
        model: Any = trainer.model
        trainable = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
        needed = 3 * trainable + 32 * 2**20
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise UserError(
                _("There is no room for a checkpoint in {folder}.", folder=self.folder),
                _(
                    "It needs {needed} MiB, and {free} MiB are free.",
                    needed=needed // 2**20,
                    free=free // 2**20,
                ),
                _("Free some space (%swift cache), or choose another --output_dir."),
            )

    def _result(self, trainer: SwiftTrainer, data: PreparedData, stopped: bool) -> dict[str, Any]:
        state = trainer.state
        losses = [row["loss"] for row in read_rows(self.folder / METRICS_FILE) if "loss" in row]
        last = checkpoints.last_checkpoint(self.folder)
        model: Any = trainer.model
        trainable, total = model.get_nb_trainable_parameters()
        return {
            "stopped": stopped,
            "global_step": state.global_step,
            "max_steps": state.max_steps,
            "last_model_checkpoint": str(last) if last else None,
            "best_model_checkpoint": state.best_model_checkpoint,
            "best_metric": state.best_metric,
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "seconds": round(trainer.seconds, 2),
            "tokens": trainer.meter.total_tokens,
            "trainable_parameters": trainable,
            "parameters": total,
            "data": data.to_dict(),
        }
