"""Supervised fine-tuning: from options to an adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.reporting import Reporter
from swift_jupyter.engine.training import checkpoints
from swift_jupyter.engine.training.job import SftJob, check_methods
from swift_jupyter.engine.training.tuners.names import WHOLE_MODEL_TUNERS
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.files import check_room, write_bytes_atomically, write_json_atomically
from swift_jupyter.i18n import translate as _
from swift_jupyter.journal import encode_row, keep_rows, read_rows
from swift_jupyter.settings import Settings

if TYPE_CHECKING:
    from swift_jupyter.engine.data.prepared import PreparedData
    from swift_jupyter.engine.training.batching import BatchPlan
    from swift_jupyter.engine.training.callbacks import StopCallback
    from swift_jupyter.engine.training.trainer import SwiftTrainer
    from swift_jupyter.hub.progress import PullProgress

ARGS_FILE = "args.json"
METRICS_FILE = "logging.jsonl"
REJECTS_FILE = "rejects.jsonl"


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
        if self.job.tuner_backend == "unsloth":
            self._import_unsloth()
        from swift_jupyter.engine.models.loading import choose_device, load_tokenizer
        from swift_jupyter.engine.training.tuners.registry import build_tuner

        device = choose_device()
        check_methods(self.job, device)
        build_tuner(self.job).check()
        self._stage(_("Reading the data"))
        tokenizer = load_tokenizer(model_folder, self.job.trust_remote_code)
        data = self._prepare(tokenizer, model_folder)
        return self._train(model_folder, tokenizer, data, device)

    def _train(
        self, model_folder: Path, tokenizer: Any, data: PreparedData, device: str
    ) -> dict[str, Any]:
        """Train, with smaller batches when the memory does not suffice."""
        from swift_jupyter.engine.training.host_memory import lift_limit
        from swift_jupyter.engine.training.memory import (
            is_out_of_memory,
            keep_and_shrink,
            release,
        )
        from swift_jupyter.engine.training.nonfinite import NonFiniteError

        plan = self._plan_batches(data, device)
        while True:
            trainer = None
            try:
                model = self._load(model_folder, device)
                trainer, stop = self._build_trainer(model, tokenizer, data, device, plan)
                del model
                self._check_disk(trainer)
                self._stage(_("Training"))
                resumed = str(self.resume_from) if self.resume_from else None
                try:
                    trainer.train(resume_from_checkpoint=resumed)
                finally:
                    lift_limit()
                return self._result(trainer, data, stop.stopped)
            except NonFiniteError:
                if trainer is not None:
                    trainer.save_last_step()
                raise
            except (RuntimeError, MemoryError, OSError) as error:
                if not is_out_of_memory(error):
                    raise
                model = None
                release(error)
                plan = keep_and_shrink(trainer, plan, self.reporter)
                self._start_over(plan)
                trainer = stop = None
                release(error)

    def _import_unsloth(self) -> None:
        """Import what changes the other libraries, once it is sure that it can work."""
        from swift_jupyter.engine.models.loading import choose_device

        check_methods(self.job, choose_device())
        from swift_jupyter.engine.training.tuners.unsloth import import_unsloth

        import_unsloth()

    def _load(self, model_folder: Path, device: str) -> Any:
        from swift_jupyter.engine.models.loading import load_model

        self._stage(_("Loading the model"))
        self._seed()
        if self.job.tuner_backend == "unsloth":
            from swift_jupyter.engine.models.loading import choose_dtype
            from swift_jupyter.engine.training.tuners.unsloth import load_for_unsloth

            dtype = choose_dtype(self.job.torch_dtype, device)
            bits = (self.job.quant_bits or 4) if self.job.quant_method else None
            return load_for_unsloth(model_folder, dtype, bits, self.job.max_length)
        return load_model(model_folder, self.job, device, self.job)

    def _start_over(self, plan: BatchPlan) -> None:
        """Prepare for another attempt from the last checkpoint, with smaller batches."""
        self.resume_from = checkpoints.last_checkpoint(self.folder)
        if self.job.per_device_eval_batch_size:
            fitting = min(self.job.per_device_eval_batch_size, plan.batch_size)
            self.job = dataclasses.replace(self.job, per_device_eval_batch_size=fitting)
        self._forget_later_rows()

    def _plan_batches(self, data: PreparedData, device: str) -> BatchPlan:
        from swift_jupyter.engine.training.batching import plan_batches
        from swift_jupyter.engine.training.memory import remembered_plan

        plan = plan_batches(
            data.train.lengths(),
            device,
            self.job.per_device_train_batch_size,
            self.job.gradient_accumulation_steps,
        )
        return remembered_plan(plan, self.resume_from)

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
        from swift_jupyter.hub.lock_file import LOCK_FILE, update_lock
        from swift_jupyter.hub.pull import pull

        self._stage(_("Looking for the model"))
        reference = resolve(self.job.model, self.job.model_revision)
        if reference.local_path is not None:
            self.model_name = str(reference.local_path)
        snapshot = pull(reference, self.settings, report=self._report_pull)
        # The same base can be fetched again exactly, with `download --lock`. What comes
        # from a package or a folder has no commit that could be locked.
        with contextlib.suppress(UserError):
            update_lock(self.folder / LOCK_FILE, [snapshot], self.settings)
        return snapshot.path

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

        config = check_model_folder(model_folder)
        data = prepare(
            DataOptions.of(self.job),
            tokenizer,
            config.get("max_position_embeddings"),
            progress=lambda done, total: self.reporter.phase(_("Reading the data"), done, total),
            should_stop=self.reporter.should_stop,
            settings=self.settings,
            report=self._report_pull,
            processes=os.cpu_count() or 1,
        )
        if data.rejects:
            self._write_rejects(data)
        for notice in data.notices:
            self.reporter.notice(notice)
        return data

    def _write_rejects(self, data: PreparedData) -> None:
        """Keep the rows that could not be used, so that they can be mended."""
        rows = (
            encode_row({"origin": str(p.origin), "reason": p.reason, "row": p.content})
            for p in data.rejects
        )
        path = self.folder / REJECTS_FILE
        write_bytes_atomically(path, b"".join(rows))
        self.reporter.notice(_("The rows that were left out are in {path}.", path=path))

    def _build_trainer(
        self, model: Any, tokenizer: Any, data: PreparedData, device: str, plan: BatchPlan
    ) -> tuple[SwiftTrainer, StopCallback]:
        from swift_jupyter.engine.training.assembly import assemble

        folder = Path(model.name_or_path)
        assembly = assemble(
            self.job,
            model,
            tokenizer,
            data,
            plan,
            device=device,
            folder=self.folder,
            reporter=self.reporter,
            resume_from=self.resume_from,
            finish_checkpoint=self._add_args,
        )
        self._write_args(folder, **assembly.chosen)
        return assembly.trainer, assembly.stop

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
        whole = sum(p.numel() * p.element_size() for p in model.parameters())
        saved = whole if self.job.tuner_type in WHOLE_MODEL_TUNERS else trainable
        needed = saved + 2 * trainable + 32 * 2**20
        check_room(
            self.folder,
            needed,
            _("There is no room for a checkpoint in {folder}.", folder=self.folder),
            _("Free some space (%swift cache), or choose another --output_dir."),
        )

    def _result(self, trainer: SwiftTrainer, data: PreparedData, stopped: bool) -> dict[str, Any]:
        from swift_jupyter.engine.models.architecture import count_parameters

        state = trainer.state
        losses = [row["loss"] for row in read_rows(self.folder / METRICS_FILE) if "loss" in row]
        last = checkpoints.last_checkpoint(self.folder)
        trainable, total = count_parameters(trainer.model)
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
