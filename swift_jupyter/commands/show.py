"""``show``: the data as the model sees them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.pulling import pull_with_progress
from swift_jupyter.commands.token_view import TokenView
from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.data.placeholders import AUTHOR, NAME
from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option

if TYPE_CHECKING:
    from swift_jupyter.engine.data.prepared import PreparedData

# A tokenizer and a config are all that is needed; weights are not.
_TOKENIZER_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")


@dataclass(frozen=True, kw_only=True)
class ShowOptions(DataOptions, ModelOptions):
    """The options of ``show``."""

    dataset: list[Any] = option(
        [],
        help="Data sets, as for sft: self-cognition, a file, a folder, a hub id, or a DataFrame "
        "or list of rows as $name. Text may end in #N for N rows.",
        completer="dataset",
        objects=True,
        positional=True,
        short="d",
    )
    rows: int = option(3, help="How many rows are shown token by token.")
    row: list[int] = option([], help="Which rows are shown, counted from 0, instead of the first.")
    random: bool = option(False, help="Show rows chosen at random instead of the first.")


def run(options: ShowOptions, context: Context) -> TokenView:
    """Encode the data sets and show some rows token by token, with statistics of all.

    Raises
    ------
    UserError
        When there is no data set or no model, or none of the rows can be trained on.
    """
    check_positive(options, "rows", "max_length")
    model = options.model or context.settings.default_model
    _check_given(options, model)
    folder = _pull_tokenizer(model, options, context)

    from swift_jupyter.engine.data.chat_template import chat_template_of
    from swift_jupyter.engine.data.pipeline import prepare
    from swift_jupyter.engine.data.sample import sample_of
    from swift_jupyter.engine.models.loading import load_tokenizer

    tokenizer = load_tokenizer(folder, options.trust_remote_code)
    with context.frontend.progress(_("Encoding")) as view:
        data = prepare(
            _data_options(options),
            tokenizer,
            _positions(folder),
            progress=lambda done, total: view.update(_("{done} rows", done=done)),
            settings=context.settings_for(options.use_hf),
            keep_conversations=True,
        )
    template = chat_template_of(tokenizer, options.chat_template or None)
    samples = [
        sample_of(data.conversations[i], data.train[i], template, options.system)
        for i in _chosen(options, len(data.train))
    ]
    return _view(options, model, data, samples)


def _check_given(options: ShowOptions, model: str) -> None:
    if not options.dataset:
        raise UserError(
            _("show needs a data set."),
            next_step=_("For example: %swift show self-cognition#200 --model smollm2-demo"),
        )
    if not model:
        raise UserError(
            _("show needs a model, whose tokenizer and chat template make the tokens."),
            next_step=_("For example: --model smollm2-demo"),
        )


def _data_options(options: ShowOptions) -> DataOptions:
    """Return the options of the data; names that were not given stay placeholders to be seen."""
    return DataOptions.of(
        options,
        # The rows come in the order of their file unless a random choice is wanted.
        dataset_shuffle=False,
        model_name=options.model_name or [NAME],
        model_author=options.model_author or [AUTHOR],
    )


def _pull_tokenizer(model: str, options: ShowOptions, context: Context) -> Path:
    """Return a folder with the tokenizer; only a model that is not here costs a transfer."""
    settings = context.settings_for(options.use_hf)
    reference = resolve(model, options.model_revision)
    if reference.local_path is not None or reference.package_id is not None:
        return pull_with_progress(reference, context.frontend, settings).path
    try:
        return pull_with_progress(reference, context.frontend, settings, source="cache").path
    except UserError:
        return pull_with_progress(
            reference, context.frontend, settings, include=_TOKENIZER_FILES
        ).path


def _positions(folder: Path) -> int | None:
    import json

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        positions = config.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):
        return None
    return positions if isinstance(positions, int) else None


def _chosen(options: ShowOptions, count: int) -> list[int]:
    for row in options.row:
        if not -count <= row < count:
            raise OptionError(
                _("There is no row {row}: {count} rows are trained on.", row=row, count=count)
            )
    if options.row:
        return options.row
    if options.random:
        return sorted(random.Random(options.seed).sample(range(count), min(options.rows, count)))
    return list(range(min(options.rows, count)))


def _view(options: ShowOptions, model: str, data: PreparedData, samples: list[Any]) -> TokenView:
    from swift_jupyter.engine.data.statistics import describe, histogram, padding_share
    from swift_jupyter.engine.training.batching import EFFECTIVE_BATCH_SIZE, plan_batches

    lengths = data.train.lengths()
    numbers = describe(lengths)
    batch = plan_batches(lengths, "cpu", None, None).batch_size
    plain = padding_share(lengths, batch)
    grouped = padding_share(lengths, batch, EFFECTIVE_BATCH_SIZE)
    trained = data.train.trained_tokens()
    facts = {
        _("rows"): str(numbers["rows"]),
        _("tokens"): f"{numbers['tokens']:,}",
        _("trained"): f"{trained / max(1, numbers['tokens']):.0%}",
        _("mean"): f"{numbers['mean']:.0f}",
        _("median"): str(numbers["median"]),
        _("95 %"): str(numbers["p95"]),
        _("longest"): str(numbers["longest"]),
        _("limit"): str(data.max_length or _("none")),
        _("too long"): str(data.rows_too_long),
        _("cut"): str(data.rows_truncated),
        _("unusable"): str(data.rows_bad),
        _("padding"): _(
            "{ours} (rows of a step sorted), {plain} unsorted, {batch} a batch",
            ours=f"{grouped:.0%}",
            plain=f"{plain:.0%}",
            batch=batch,
        ),
    }
    names = ", ".join(
        item if isinstance(item, str) else type(item).__name__ for item in options.dataset
    )
    return TokenView(
        title=_("{dataset} as {model} sees it", dataset=names, model=model),
        samples=samples,
        lengths=lengths,
        facts=facts,
        data={
            **data.to_dict(),
            **numbers,
            "batch_size": batch,
            "padding": grouped,
            "padding_unsorted": plain,
        },
        bins=histogram(lengths),
        notices=data.notices,
    )
