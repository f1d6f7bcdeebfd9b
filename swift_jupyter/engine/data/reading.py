"""From the named data sets to the conversations that are trained on and validated with."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.formats import has_question
from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.data.outcome import Account
from swift_jupyter.engine.data.placeholders import fill_placeholders, has_placeholder
from swift_jupyter.engine.data.records import is_object_dataset, rows_of
from swift_jupyter.engine.data.rows import Conversation
from swift_jupyter.engine.data.sampling import sample_indices, split_indices, validation_size
from swift_jupyter.engine.data.screening import screen
from swift_jupyter.engine.data.sources import PullReport, is_self_cognition, load_rows
from swift_jupyter.engine.data.spec import parse_spec
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


def one_by_one(datasets: Any) -> list[Any]:
    """Return `datasets` as a list; a single one, or bare rows, becomes its only item."""
    if isinstance(datasets, (str, Path)) or not isinstance(datasets, (list, tuple)):
        return [datasets]
    if datasets and all(isinstance(item, Mapping) for item in datasets):
        return [list(datasets)]
    return list(datasets)


@dataclass(frozen=True)
class _Dataset:
    """The good rows of one data set, and how many of them are wanted (``#N``)."""

    name: str
    rows: list[Conversation]
    count: int | None


@dataclass(frozen=True)
class DatasetReader:
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
