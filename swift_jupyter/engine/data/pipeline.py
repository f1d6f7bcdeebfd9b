"""From dataset options to rows that can be trained on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.chat_template import chat_template_of
from swift_jupyter.engine.data.encoded_cache import EncodedCache
from swift_jupyter.engine.data.encoding import EncodingOptions, Progress, encode
from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.data.outcome import Account, nothing_to_train, notices
from swift_jupyter.engine.data.prepared import PreparedData
from swift_jupyter.engine.data.reading import DatasetReader, one_by_one
from swift_jupyter.engine.data.sources import PullReport
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings, load_settings

_UNLIMITED = 10**9  # Tokenizers write "no limit" as a number far above this.


def prepare(
    options: DataOptions,
    tokenizer: Any,
    model_max_length: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    settings: Settings | None = None,
    report: PullReport | None = None,
    keep_conversations: bool = False,
    processes: int = 1,
) -> PreparedData:
    """Read, check, split, sample and encode the data sets of `options`.

    Parameters
    ----------
    options : DataOptions
        What to train on.
    tokenizer : PreTrainedTokenizerBase
        The model's tokenizer.
    model_max_length : int, optional
        How many positions the model has.
    progress : callable, optional
        Called with the number of rows encoded and their total.
    should_stop : callable, optional
        Asked between batches of rows.
    settings : Settings, optional
        The preferences for pulling from hubs; those in force when left out.
    report : callable, optional
        Takes a `PullProgress` now and then while a data set is pulled.
    keep_conversations : bool, optional
        Whether the result holds what its rows were encoded from.
    processes : int, optional
        How many processes may share the encoding.

    Raises
    ------
    UserError
        For anything that the user can mend, such as an empty data set.
    Interrupted
        When `should_stop` said so.
    """
    # What is wrong with the options or the model is said before anything is read or pulled.
    _check(options)
    encoding = EncodingOptions(
        _limit(options, tokenizer, model_max_length),
        options.truncation_strategy,
        _system_text(options.system),
        options.strict,
    )
    template = chat_template_of(tokenizer, options.chat_template or None)
    settings = settings or load_settings()
    cache = None
    if not keep_conversations:
        cache = EncodedCache.of(options, encoding, template, settings, report)
        if cache is not None and (known := cache.load()) is not None:
            return known
    account = Account()
    train, val = DatasetReader(options, account, settings, report).read_all()
    # A row that was sampled several times is encoded once.
    distinct = list({id(row): row for row in (*train, *val)}.values())
    result = encode(
        distinct, tokenizer, encoding, template.source, progress, should_stop, processes
    )
    places = {id(row): place for row, place in zip(distinct, result.places, strict=True)}
    used = [row for row in train if places[id(row)] is not None]
    if not used:
        raise nothing_to_train(result, encoding.max_length)
    val_places = [place for row in val if (place := places[id(row)]) is not None]
    lost = len(val) > 0 and not val_places
    prepared = PreparedData(
        train=result.packed.select(places[id(row)] or 0 for row in used),
        val=result.packed.select(val_places),
        notices=notices(account, result, encoding.max_length, lost_validation=lost),
        max_length=encoding.max_length,
        rows_read=account.read,
        rows_bad=len(account.problems) + len(result.problems),
        rows_too_long=len(result.lengths_deleted),
        rows_truncated=result.cut,
        rows_unlabelled=len(result.unlabelled),
        rejects=[*account.problems, *result.problems],
        conversations=used if keep_conversations else [],
    )
    if cache is not None:
        cache.store(prepared)
    return prepared


def _check(options: DataOptions) -> None:
    if not one_by_one(options.dataset):
        raise UserError(
            _("There is no dataset."),
            next_step=_("Give one, for example: --dataset self-cognition"),
        )
    if not 0 <= options.split_dataset_ratio < 1:
        raise UserError(
            _(
                "split_dataset_ratio must be at least 0 and below 1, not {ratio}.",
                ratio=options.split_dataset_ratio,
            )
        )


def _limit(options: DataOptions, tokenizer: Any, model_max_length: int | None) -> int | None:
    if options.max_length is not None:
        return options.max_length
    if model_max_length is not None:
        return model_max_length
    own = getattr(tokenizer, "model_max_length", None)
    return int(own) if own and own < _UNLIMITED else None


def _system_text(system: str) -> str:
    path = Path(system).expanduser() if system.endswith(".txt") else None
    if path is not None:
        try:
            return path.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                _("The system text {path} cannot be read.", path=system), str(error)
            ) from None
    return system.replace("\\n", "\n")
