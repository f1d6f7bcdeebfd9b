"""What to train on, and how rows become tokens."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from swift_jupyter.options import option


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The options of every command that reads data sets."""

    dataset: list[Any] = option(
        [],
        help="Data sets: self-cognition, a file (jsonl, json, csv), a folder, a hub id, or a "
        "DataFrame or list of rows as $name. Text may end in #N for N rows.",
        completer="dataset",
        objects=True,
        short="d",
    )
    val_dataset: list[Any] = option(
        [], help="Data sets for evaluation, as for dataset.", completer="dataset", objects=True
    )
    split_dataset_ratio: float = option(
        0.0, help="The share of every data set that is held out for evaluation."
    )
    dataset_shuffle: bool = option(True, help="Sample and split at random, else from the start.")
    columns: dict[str, str] = option({}, help="Old column names to new ones, before detection.")
    strict: bool = option(False, help="Stop at the first bad row instead of leaving it out.")
    model_name: list[str] = option(
        [],
        help="What self-cognition data call the model: one name, or the Chinese and the English.",
    )
    model_author: list[str] = option(
        [], help="Who made it: one name, or the Chinese and the English."
    )
    system: str = option(
        "", help="The system text of rows that have none, or the path of a .txt file."
    )
    max_length: int | None = option(
        None, help="The most tokens of a row; by default what the model can take."
    )
    truncation_strategy: str = option(
        "delete",
        help="What happens to longer rows: left out, or cut on one side.",
        choices=("delete", "left", "right"),
    )
    chat_template: str = option(
        "", help="A Jinja text or file instead of the tokenizer's own chat template."
    )
    seed: int = option(42, help="The seed of everything random.")
    data_seed: int | None = option(None, help="Another seed for the choice of rows.")

    @classmethod
    def of(cls, options: DataOptions, **changed: Any) -> DataOptions:
        """Return only these options of a command that has more, with some `changed`."""
        names = (field.name for field in dataclasses.fields(DataOptions))
        return DataOptions(**{name: getattr(options, name) for name in names} | changed)
