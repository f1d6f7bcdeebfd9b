"""From dataset options to rows that can be trained on."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.chat_template import chat_template_of
from swift_jupyter.engine.data.encoding import EncodingOptions, Progress, encode
from swift_jupyter.engine.data.formats import has_question
from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.data.outcome import Account, nothing_to_train, notices
from swift_jupyter.engine.data.placeholders import fill_placeholders, has_placeholder
from swift_jupyter.engine.data.records import is_object_dataset, rows_of
from swift_jupyter.engine.data.rows import Conversation, EncodedRow
from swift_jupyter.engine.data.sampling import sample_indices, split_indices, validation_size
from swift_jupyter.engine.data.screening import screen
from swift_jupyter.engine.data.sources import PullReport, is_self_cognition, load_rows
from swift_jupyter.engine.data.spec import parse_spec
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

_UNLIMITED = 10**9  # Tokenizers write "no limit" as a number far above this.


@dataclass(frozen=True)
class PreparedData:
    """Rows that can be trained on.

    Attributes
    ----------
    train, val : list of EncodedRow
        The rows; a row that was sampled twice is there twice.
    notices : list of str
        What a person should know: rows that were left out, and why.
    max_length : int or None
        The limit that was applied, in tokens.
    rows_read : int
        How many rows the data sets have.
    rows_bad, rows_too_long, rows_truncated, rows_unlabelled : int
        How many rows could not be used, were longer than the limit and left
        out, were cut, or had nothing to train left after the cut.
    """

    train: list[EncodedRow]
    val: list[EncodedRow]
    notices: list[str]
    max_length: int | None
    rows_read: int
    rows_bad: int
    rows_too_long: int
    rows_truncated: int
    rows_unlabelled: int

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, without the rows, as plain values."""
        lengths = [len(row) for row in self.train]
        return {
            "train_rows": len(self.train),
            "val_rows": len(self.val),
            "train_tokens": sum(lengths),
            "trained_tokens": sum(row.trained_tokens for row in self.train),
            "longest_row": max(lengths, default=0),
            "max_length": self.max_length,
            "rows_read": self.rows_read,
            "rows_bad": self.rows_bad,
            "rows_too_long": self.rows_too_long,
            "rows_truncated": self.rows_truncated,
            "rows_unlabelled": self.rows_unlabelled,
            "notices": list(self.notices),
        }


def prepare(
    options: DataOptions,
    tokenizer: Any,
    model_max_length: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    settings: Settings | None = None,
    report: PullReport | None = None,
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
    template = options.chat_template or None
    chat_template_of(tokenizer, template)

    account = Account()
    train, val = _Reader(options, account, settings, report).read_all()
    # A row that was sampled several times is encoded once.
    distinct = list({id(row): row for row in (*train, *val)}.values())
    result = encode(distinct, tokenizer, encoding, template, progress, should_stop)
    encoded = {id(row): done for row, done in zip(distinct, result.rows, strict=True)}
    train_rows = [done for row in train if (done := encoded[id(row)]) is not None]
    val_rows = [done for row in val if (done := encoded[id(row)]) is not None]
    if not train_rows:
        raise nothing_to_train(result, encoding.max_length)
    lost = len(val) > 0 and not val_rows
    return PreparedData(
        train=train_rows,
        val=val_rows,
        notices=notices(account, result, encoding.max_length, lost_validation=lost),
        max_length=encoding.max_length,
        rows_read=account.read,
        rows_bad=len(account.problems) + len(result.problems),
        rows_too_long=len(result.lengths_deleted),
        rows_truncated=result.cut,
        rows_unlabelled=len(result.unlabelled),
    )


def one_by_one(datasets: Any) -> list[Any]:
    """Return `datasets` as a list; a single one, or bare rows, becomes its only item."""
    if isinstance(datasets, (str, Path)) or not isinstance(datasets, (list, tuple)):
        return [datasets]
    if datasets and all(isinstance(item, Mapping) for item in datasets):
        return [list(datasets)]
    return list(datasets)


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


@dataclass(frozen=True)
class _Dataset:
    """The good rows of one data set, and how many of them are wanted (``#N``)."""

    name: str
    rows: list[Conversation]
    count: int | None


@dataclass(frozen=True)
class _Reader:
    """Reads the data sets of `options` and chooses their rows."""

    options: DataOptions
    account: Account
    settings: Settings | None
    report: PullReport | None

    def read_all(self) -> tuple[list[Conversation], list[Conversation]]:
        """Return the conversations to train on and those to validate with."""
        options = self.options
        rng = random.Random(options.seed if options.data_seed is None else options.data_seed)
        validation = one_by_one(options.val_dataset)
        ratio = 0.0 if validation else options.split_dataset_ratio
        train: list[Conversation] = []
        val: list[Conversation] = []
        for given in one_by_one(options.dataset):
            first, second = self._split(self._read(given), ratio, rng)
            train.extend(first)
            val.extend(second)
        for given in validation:
            dataset = self._read(given)
            # Validation is the same whatever the seed: the first rows, in order.
            chosen = sample_indices(len(dataset.rows), dataset.count, None)
            val.extend(dataset.rows[i] for i in chosen)
        return train, val

    def _read(self, given: Any) -> _Dataset:
        options, account = self.options, self.account
        name, count, required_by = type(given).__name__, None, ""
        if is_object_dataset(given):
            rows = rows_of(given)
            if not rows:
                raise UserError(_("The {name} given as dataset is empty.", name=name))
        else:
            spec = parse_spec(str(given))
            name, count = spec.name, spec.count
            required_by = name if is_self_cognition(spec) else ""
            rows = load_rows(spec, self.settings, self.report)
        good, problems = screen(rows, name, options.columns, options.strict)
        good = fill_placeholders(good, options.model_name, options.model_author, required_by)
        account.read += len(rows)
        account.problems.extend(problems)
        account.without_question += sum(not has_question(row) for row in good)
        account.with_placeholder += sum(has_placeholder(row) for row in good)
        return _Dataset(name, good, count)

    def _split(
        self, dataset: _Dataset, ratio: float, rng: random.Random
    ) -> tuple[list[Conversation], list[Conversation]]:
        rows = dataset.rows
        chance = rng if self.options.dataset_shuffle else None
        wanted = len(rows) if dataset.count is None else dataset.count
        usable = min(len(rows), wanted)
        held_out = validation_size(usable, ratio)
        if held_out >= usable:
            raise UserError(
                _("The dataset {name} is too small to be split.", name=dataset.name),
                _("It has {count} usable rows.", count=usable),
                _("Leave out split_dataset_ratio, or give a val_dataset."),
            )
        # Split before sampling, so that no row is on both sides.
        first, second = split_indices(len(rows), held_out, chance)
        chosen = sample_indices(len(first), wanted - held_out, chance)
        return [rows[first[i]] for i in chosen], [rows[i] for i in second]


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
