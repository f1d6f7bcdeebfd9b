"""Python objects as data sets: DataFrames, and lists of dicts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.rows import Origin, SourceRow
from swift_jupyter.errors import UserError
from swift_jupyter.files import write_text_atomically
from swift_jupyter.i18n import translate as _


def rows_of(value: object) -> list[SourceRow]:
    """Return the rows of a DataFrame, a data set object or a list of dicts.

    Parameters
    ----------
    value : object
        A list of mappings, or something with ``to_dict(orient="records")``
        (pandas), ``to_dicts()`` (polars) or ``to_list()`` (datasets). Missing
        values (None, NaN, NaT) are left out of their rows.

    Raises
    ------
    UserError
        For another object, a list with something else in it, or a value that
        JSON cannot hold.
    """
    name = type(value).__name__
    rows = []
    for number, record in enumerate(_records(value), start=1):
        if not isinstance(record, Mapping):
            raise UserError(
                _(
                    "Row {number} of the {name} is not a dict but {kind}.",
                    number=number,
                    name=name,
                    kind=type(record).__name__,
                ),
                next_step=_("Each row must be a dict such as {example}.", example=_EXAMPLE),
            )
        rows.append(SourceRow(_plain_record(record, name, number), Origin(name, number)))
    return rows


_EXAMPLE = '{"query": "…", "response": "…"}'


def spool(value: object, path: Path) -> int:
    """Write the rows of `value` to `path` as JSON Lines, in one step.

    Parameters
    ----------
    value : object
        As in `rows_of`.
    path : Path
        The file to write; its folder exists.

    Returns
    -------
    int
        How many rows were written.

    Raises
    ------
    UserError
        As in `rows_of`, and when there is no row.
    """
    rows = rows_of(value)
    if not rows:
        raise UserError(
            _("The {name} given as dataset is empty.", name=type(value).__name__),
            next_step=_("Give it at least one row."),
        )
    lines = [json.dumps(row.content, ensure_ascii=False) for row in rows]
    write_text_atomically(path, "\n".join(lines) + "\n")
    return len(rows)


def is_object_dataset(value: object) -> bool:
    """Tell whether `value` is a data set itself rather than the name of one."""
    return not isinstance(value, (str, Path))


def _records(value: object) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (Mapping, str, bytes)):
        raise _wrong_object(value)
    if hasattr(value, "to_dicts"):
        return list(value.to_dicts())
    if hasattr(value, "iterrows") and hasattr(value, "to_dict"):
        return list(value.to_dict(orient="records"))
    if hasattr(value, "column_names") and hasattr(value, "to_list"):
        return list(value.to_list())
    raise _wrong_object(value)


def _wrong_object(value: object) -> UserError:
    return UserError(
        _("An object of type {kind} cannot be used as dataset.", kind=type(value).__name__),
        next_step=_("Give a DataFrame, a list of dicts, a path or an id."),
    )


def _plain_record(record: Mapping[Any, Any], name: str, number: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in record.items():
        if _is_missing(value):
            continue
        try:
            plain[str(key)] = _plain(value)
        except TypeError:
            raise UserError(
                _(
                    "Row {number} of the {name} holds an object of type {kind} in '{column}'.",
                    number=number,
                    name=name,
                    kind=type(value).__name__,
                    column=key,
                ),
                next_step=_("Turn the column into texts, numbers or lists of them."),
            ) from None
    return plain


def _is_missing(value: object) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return type(value).__name__ in ("NaTType", "NAType")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(type(value).__name__)
