"""Data files: JSON Lines, JSON, CSV, Parquet, and folders of them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.rows import Origin, SourceRow
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

_LIST_KEYS = ("data", "rows", "train")
_METADATA_FILES = {
    "dataset_info.json",
    "dataset_infos.json",
    "configuration.json",
    "swift_jupyter.json",
}
_TEST_SPLITS = ("test", "validation", "valid", "val", "dev", "eval")


def read_file(path: Path) -> list[SourceRow]:
    """Read one data file.

    Raises
    ------
    UserError
        For an ending that is not known, a file that cannot be read, or
        content of another shape, with the line.
    """
    reader = reader_of(path)
    try:
        return reader(path)
    except UnicodeDecodeError as error:
        raise UserError(
            _("The file {path} is not UTF-8.", path=path),
            _("The byte at position {position} fits no character.", position=error.start),
            _("Save it as UTF-8, for example: iconv -f GB18030 -t UTF-8 {path}", path=path),
        ) from None
    except OSError as error:
        raise UserError(_("The file {path} cannot be read.", path=path), str(error)) from None


def reader_of(path: Path) -> Callable[[Path], list[SourceRow]]:
    """Return what reads `path`, by its ending.

    Raises
    ------
    UserError
        For an ending that is not known.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            _("The file {path} is not a data file that can be read.", path=path),
            _("Its ending is not one of {endings}.", endings=", ".join(READERS)),
        )
    return reader


def read_folder(folder: Path, subsets: tuple[str, ...] = ()) -> list[SourceRow]:
    """Read the data files of a folder and its sub-folders.

    Parameters
    ----------
    folder : Path
        Where to look.
    subsets : tuple of str
        Names of sub-folders or of files without their ending; empty for all.

    Notes
    -----
    Where files are named after splits, only the training split is read.

    Raises
    ------
    UserError
        When there is no data file, or none of a subset.
    """
    files = data_files(folder)
    if not files:
        raise UserError(
            _("There is no data file in the folder {path}.", path=folder),
            _("The endings that can be read are {endings}.", endings=", ".join(READERS)),
        )
    if subsets and not _means_everything(subsets, files, folder):
        files = [file for subset in subsets for file in _of_subset(files, folder, subset)]
    rows: list[SourceRow] = []
    for file in _training_split(files):
        rows.extend(read_file(file))
    return rows


def data_files(folder: Path) -> list[Path]:
    """Return the data files below `folder`, in the order of their names."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in READERS
        and path.name not in _METADATA_FILES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _means_everything(subsets: tuple[str, ...], files: list[Path], folder: Path) -> bool:
    # "default" is what hubs call the only subset of a data set without any.
    return subsets == ("all",) or (
        subsets == ("default",) and "default" not in _subset_names(files, folder)
    )


def _subset_names(files: list[Path], folder: Path) -> set[str]:
    folders = {part for file in files for part in file.relative_to(folder).parts[:-1]}
    return folders | {file.stem for file in files}


def _of_subset(files: list[Path], folder: Path, subset: str) -> list[Path]:
    found = [
        file
        for file in files
        if subset in file.relative_to(folder).parts[:-1] or file.stem == subset
    ]
    if found:
        return found
    names = _subset_names(files, folder)
    raise UserError(
        _("There is no subset '{subset}' in {path}.", subset=subset, path=folder),
        _("There are {names}.", names=", ".join(sorted(names))),
    )


def _training_split(files: list[Path]) -> list[Path]:
    def split(file: Path) -> str:
        name = file.stem.lower().replace("_", "-").split("-")[0]
        return "test" if name in _TEST_SPLITS else name

    if any(split(file) == "train" for file in files):
        return [file for file in files if split(file) != "test"]
    return files


def _read_json_lines(path: Path) -> list[SourceRow]:
    rows = []
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                rows.append(_json_line(path, number, line))
    return rows


def _json_line(path: Path, number: int, line: str) -> SourceRow:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(
            _("{path}, line {number} is not JSON.", path=path, number=number),
            str(error),
            _("Each line must be one JSON object, such as {example}.", example=_EXAMPLE),
        ) from None
    if not isinstance(value, dict):
        raise UserError(
            _(
                "{path}, line {number} is not a JSON object but {kind}.",
                path=path,
                number=number,
                kind=type(value).__name__,
            ),
            next_step=_("Each line must be one JSON object, such as {example}.", example=_EXAMPLE),
        )
    return SourceRow(value, Origin(str(path), number, "line"))


_EXAMPLE = '{"query": "…", "response": "…"}'


def _read_json(path: Path) -> list[SourceRow]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        value = json.loads(text)
    except ValueError as error:
        if getattr(error, "msg", "") == "Extra data":
            return _read_json_lines(path)  # JSON Lines under the name of JSON is common.
        raise UserError(_("{path} is not JSON.", path=path), str(error)) from None
    return list(_json_rows(path, value))


def _json_rows(path: Path, value: Any) -> Iterator[SourceRow]:
    if isinstance(value, dict):
        lists = [value[key] for key in _LIST_KEYS if isinstance(value.get(key), list)]
        value = lists[0] if lists else value
    if not isinstance(value, list):
        raise UserError(
            _("{path} holds no rows but {kind}.", path=path, kind=type(value).__name__),
            next_step=_("It must be a list of objects, or an object with such a list as data."),
        )
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise UserError(
                _(
                    "{path}, row {number} is not an object but {kind}.",
                    path=path,
                    number=number,
                    kind=type(row).__name__,
                ),
                next_step=_("Each row must be an object such as {example}.", example=_EXAMPLE),
            )
        yield SourceRow(row, Origin(str(path), number))


def _read_csv(path: Path) -> list[SourceRow]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # The default refuses long answers.
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            for content in reader:
                inner = sum(str(cell).count("\n") for cell in content.values())
                rows.append(_csv_row(path, reader.line_num - inner, content))
        except csv.Error as error:
            raise UserError(
                _("{path}, line {number} is not CSV.", path=path, number=reader.line_num),
                str(error),
            ) from None
    return rows


def _csv_row(path: Path, number: int, content: dict[str | Any, Any]) -> SourceRow:
    if None in content:
        raise UserError(
            _("{path}, line {number} has more cells than the header.", path=path, number=number),
            next_step=_("Put texts that contain a comma between double quotes."),
        )
    # An empty cell says nothing: it is an absent value.
    present = {key: value for key, value in content.items() if value}
    return SourceRow(present, Origin(str(path), number, "line"))


def _read_parquet(path: Path) -> list[SourceRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(_("{path} is not a Parquet file.", path=path), str(error)) from None
    return [
        SourceRow({k: v for k, v in row.items() if v is not None}, Origin(str(path), number))
        for number, row in enumerate(table.to_pylist(), start=1)
    ]


READERS: dict[str, Callable[[Path], list[SourceRow]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
