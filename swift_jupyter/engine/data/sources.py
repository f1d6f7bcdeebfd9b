"""From a dataset spec to its rows: registered sets, files, folders, hubs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.readers import (
    READERS,
    data_files,
    read_file,
    read_folder,
    reader_of,
)
from swift_jupyter.engine.data.records import is_object_dataset
from swift_jupyter.engine.data.rows import Origin, SourceRow
from swift_jupyter.engine.data.spec import DatasetSpec, exists_on_disk, parse_spec
from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.reference import RepoReference, is_repo_id
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings, load_settings

PullReport = Callable[[PullProgress], None]

SELF_COGNITION = "self-cognition"
REGISTERED: dict[str, Path] = {
    SELF_COGNITION: Path(__file__).parent / "self_cognition.jsonl",
}


def load_rows(
    spec: DatasetSpec, settings: Settings | None = None, report: PullReport | None = None
) -> list[SourceRow]:
    """Return all rows of the data set that `spec` names; ``#N`` is not applied.

    Parameters
    ----------
    spec : DatasetSpec
        What to read.
    settings : Settings, optional
        The preferences for pulling from a hub; those in force when left out.
    report : callable, optional
        Takes a `PullProgress` now and then while the data set is pulled.

    Raises
    ------
    UserError
        When there is no such data set, it cannot be read, or it is empty.
    """
    rows = _reader(spec, settings, report)()
    if not rows:
        raise UserError(
            _("The dataset {name} is empty.", name=spec.name),
            next_step=_("Give it at least one row."),
        )
    return rows


def check_datasets(datasets: Iterable[Any]) -> None:
    """Find what is wrong with the names of `datasets`, without reading or pulling them.

    Parameters
    ----------
    datasets : iterable of (str or object)
        Dataset specs; objects are passed over.

    Raises
    ------
    UserError
        For a wrong spec, an unknown name, a missing file, or one that cannot
        be read.
    """
    for dataset in datasets:
        if is_object_dataset(dataset):
            continue
        spec = parse_spec(str(dataset))
        _reader(spec, None, None)
        path = Path(spec.name).expanduser()
        if exists_on_disk(spec.name) and not path.is_dir():
            reader_of(path)


def files_of(spec: DatasetSpec, settings: Settings, report: PullReport | None = None) -> list[Path]:
    """Return the files in which the rows of `spec` lie, pulling them first if need be.

    Raises
    ------
    UserError
        When there is no such data set.
    """
    if exists_on_disk(spec.name):
        path = Path(spec.name).expanduser()
        return data_files(path) if path.is_dir() else [path]
    if spec.hub is None and spec.short_name in REGISTERED and not _looks_like_path(spec.name):
        return [REGISTERED[spec.short_name]]
    _reader(spec, settings, report)  # Says what is wrong with a name that means nothing.
    return data_files(_pull_dataset(spec, settings, report))


def is_self_cognition(spec: DatasetSpec) -> bool:
    """Tell whether `spec` names the set that teaches a model who it is."""
    return Path(spec.short_name).stem.replace("_", "-") == SELF_COGNITION


def _reader(
    spec: DatasetSpec, settings: Settings | None, report: PullReport | None
) -> Callable[[], list[SourceRow]]:
    if exists_on_disk(spec.name):
        return lambda: _read_local(spec)
    if spec.hub is None and spec.short_name in REGISTERED and not _looks_like_path(spec.name):
        return lambda: _read_registered(spec)
    if _looks_like_path(spec.name):
        raise _missing_file(spec.name)
    if spec.hub or is_repo_id(spec.name):
        return lambda: _read_hub(spec, settings or load_settings(), report)
    raise UserError(
        _("There is no dataset '{name}'.", name=spec.name),
        did_you_mean(spec.name, [*REGISTERED, *_names_in(Path())]),
        _("Give a path, an id such as owner/name, or {names}.", names=", ".join(REGISTERED)),
    )


def _read_local(spec: DatasetSpec) -> list[SourceRow]:
    path = Path(spec.name).expanduser()
    if path.is_dir():
        return read_folder(path, spec.subsets)
    if spec.subsets:
        raise UserError(
            _("The file {path} has no subsets.", path=path),
            next_step=_("Leave out ':{subsets}'.", subsets="/".join(spec.subsets)),
        )
    return read_file(path)


def _read_registered(spec: DatasetSpec) -> list[SourceRow]:
    rows = [
        SourceRow(row.content, Origin(spec.short_name, row.origin.number, "line"))
        for row in read_file(REGISTERED[spec.short_name])
    ]
    subsets = set(spec.subsets)
    if subsets <= {"default", "all"}:
        return rows
    tags = sorted({row.content["tag"] for row in rows})
    unknown = subsets.difference(tags)
    if unknown:
        raise UserError(
            _(
                "There is no subset '{subset}' of {name}.",
                subset=sorted(unknown)[0],
                name=spec.name,
            ),
            _("There are {names}.", names=", ".join(["default", *tags])),
        )
    return [row for row in rows if row.content["tag"] in subsets]


def _read_hub(spec: DatasetSpec, settings: Settings, report: PullReport | None) -> list[SourceRow]:
    folder = _pull_dataset(spec, settings, report)
    return [
        SourceRow(row.content, _within(row.origin, folder, spec.name))
        for row in read_folder(folder, spec.subsets)
    ]


def _pull_dataset(spec: DatasetSpec, settings: Settings, report: PullReport | None) -> Path:
    from swift_jupyter.hub.pull import pull

    reference = RepoReference.of_hub(spec.name, "dataset")
    return pull(reference, settings, source=spec.hub or "auto", report=report).path


def _within(origin: Origin, folder: Path, name: str) -> Origin:
    file = Path(origin.source)
    inside = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name
    return Origin(f"{name}/{inside}", origin.number, origin.unit)


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith((".", "~", "/", "\\"))
        or "\\" in name
        or re.match(r"[A-Za-z]:/", name) is not None
        or Path(name).suffix.lower() in READERS
        or name.count("/") > 1
    )


def _missing_file(name: str) -> UserError:
    path = Path(name).expanduser()
    if not path.parent.is_dir():
        why = _("The folder {path} does not exist either.", path=path.parent)
    else:
        why = did_you_mean(path.name, _names_in(path.parent))
    return UserError(
        _("There is no file or folder {path}.", path=name),
        why,
        _("The current folder is {path}.", path=Path.cwd()) if not path.is_absolute() else "",
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []
