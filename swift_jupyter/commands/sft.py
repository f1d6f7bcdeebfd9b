"""``sft``: fine-tune a model on conversations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.following import follow
from swift_jupyter.commands.results import Result
from swift_jupyter.engine.training.job import SftJob, check_methods
from swift_jupyter.engine.training.tuners.checks import TUNER_RANGES
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.runs.launch import launch


@dataclass(frozen=True, kw_only=True)
class SftOptions(SftJob):
    """The options of ``sft``."""

    output_dir: str = option(
        "",
        help="Where the run's folder is made; by default output/<model>.",
        completer="path",
    )
    add_version: bool = option(
        True, help="Make v<N>-<timestamp> below output_dir instead of using it itself."
    )
    background: bool = option(
        False, help="Return at once and let the run go on; watch it with %swift runs attach."
    )


def run(options: SftOptions, context: Context) -> Result:
    """Launch a fine-tuning and, unless it shall run in the background, watch it.

    Raises
    ------
    UserError
        For options that cannot work, and when the run failed.
    Interrupted
        When the user stopped it; the run can be resumed.
    """
    options = with_defaults(options, context)
    _check(options)
    suffix = Path(options.model.rstrip("/\\")).name or "model"
    output_dir = options.output_dir or str(context.settings.output_path / suffix)
    launched = launch(
        "sft",
        _job_values(options),
        Path(output_dir),
        context.settings_for(options.use_hf),
        title=suffix,
        add_version=options.add_version,
        fill_inputs=write_datasets,
    )
    return follow(launched, context, options.background)


def with_defaults(options: SftOptions, context: Context) -> SftOptions:
    """Fill in the model that the settings name, when none was given."""
    if options.model:
        return options
    if context.settings.default_model:
        return dataclasses.replace(options, model=context.settings.default_model)
    raise UserError(
        _("sft needs a model."),
        next_step=_("For example: --model smollm2-demo"),
    )


def _check(options: SftOptions) -> None:
    """Find in a moment what the worker would find after its start."""
    from swift_jupyter.engine.data.sources import check_datasets
    from swift_jupyter.engine.models.catalogue import resolve
    from swift_jupyter.engine.models.loading import check_model_folder

    reference = resolve(options.model, options.model_revision)
    if reference.local_path is not None:
        check_model_folder(reference.local_path)
    if not options.dataset:
        raise UserError(
            _("sft needs a data set."),
            next_step=_("For example: --dataset self-cognition#200"),
        )
    _check_ranges(options)
    check_methods(options)
    check_datasets([*options.dataset, *options.val_dataset])
    _check_identity(options)


def _check_identity(options: SftOptions) -> None:
    """See that data which teach the model who it is are told the name and the author."""
    from swift_jupyter.engine.data.placeholders import fill_placeholders
    from swift_jupyter.engine.data.records import is_object_dataset
    from swift_jupyter.engine.data.screening import screen
    from swift_jupyter.engine.data.sources import SELF_COGNITION, is_self_cognition, load_rows
    from swift_jupyter.engine.data.spec import exists_on_disk, parse_spec

    for dataset in [*options.dataset, *options.val_dataset]:
        if is_object_dataset(dataset):
            continue
        spec = parse_spec(str(dataset))
        if is_self_cognition(spec) and not exists_on_disk(spec.name):
            # Our own rows stand for the hub's, which have the same placeholders.
            rows, _problems = screen(load_rows(parse_spec(SELF_COGNITION)), spec.name, {}, False)
            fill_placeholders(rows, options.model_name, options.model_author, spec.name)


def _check_ranges(options: SftOptions) -> None:
    positive = (
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "logging_steps",
        "save_steps",
        "eval_steps",
        "save_total_limit",
        "max_length",
        "num_threads",
    )
    check_positive(options, *positive, *TUNER_RANGES)
    for name in ("lora_dropout", "warmup_ratio", "split_dataset_ratio"):
        value = getattr(options, name)
        if not 0 <= value < 1:
            raise OptionError(
                _("{name} must be at least 0 and below 1, not {value}.", name=name, value=value)
            )


def _job_values(options: SftOptions) -> dict[str, Any]:
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(SftJob)}


def write_datasets(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Write DataFrames and lists of rows into the run's folder and name the files instead.

    The worker is another process, and a resumed run must find the same rows.
    """
    from swift_jupyter.engine.data.records import is_object_dataset, spool

    values = dict(values)
    for key in ("dataset", "val_dataset"):
        named = []
        for number, dataset in enumerate(values[key]):
            if is_object_dataset(dataset):
                path = folder / "inputs" / f"{key}-{number}.jsonl"
                path.parent.mkdir(exist_ok=True)
                spool(dataset, path)
                dataset = str(path)
            named.append(dataset)
        values[key] = named
    return values
