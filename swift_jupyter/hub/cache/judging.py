"""Whether a listed folder has all that is wanted, and which part of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from swift_jupyter.hub.cache.completeness import lacks_for_loading, lacks_processor
from swift_jupyter.hub.cache.contents import Contents
from swift_jupyter.hub.listing import RemoteFile, select_files


class Judgement(NamedTuple):
    """Whether all is there; and if not, which part, as far as that is known.

    What was `broken_off` is of no use by itself, other than a part that somebody wanted.
    """

    complete: bool
    progress: float | None = None
    broken_off: bool = False


def judge(
    kind: str,
    sizes: Mapping[str, int],
    folder: str,
    contents: Contents,
    listing: Sequence[RemoteFile] | None,
    pulled: Collection[str] = (),
) -> Judgement:
    """Judge a snapshot by its files.

    Parameters
    ----------
    kind : str
        ``model`` or ``dataset``.
    sizes : mapping
        Bytes by path of what is there.
    folder : str
        The snapshot; only an index of weights is read there.
    contents : Contents
        What is below the repository; tells of unfinished files.
    listing : sequence of RemoteFile or None
        What the hub lists, when that is known.
    pulled : collection of str
        The paths that a finished pull of ours has brought.

    Notes
    -----
    A model is complete without the files that a pull leaves out. Where no listing is
    known, a model is judged by what loading it needs, and a data set cannot be told from
    a part of it.
    """
    complete, progress = _completeness(kind, sizes, folder, contents, listing)
    if complete:
        return Judgement(True)
    if pulled:
        useless = not all(path in sizes for path in pulled)
    elif kind == "model":
        useless = lacks_for_loading(sizes, folder) is not None
    else:
        useless = not sizes
    known = listing is not None or contents.partial_files > 0
    return Judgement(False, progress, useless and known)


def _completeness(
    kind: str,
    sizes: Mapping[str, int],
    folder: str,
    contents: Contents,
    listing: Sequence[RemoteFile] | None,
) -> tuple[bool, float | None]:
    if listing is None:
        if contents.partial_files:
            return False, None
        if kind == "dataset":
            return bool(sizes), None
        return (lacks_for_loading(sizes, folder) or lacks_processor(sizes)) is None, None
    missing = _missing(sizes, listing)
    if missing:
        wanted = select_files(listing, kind)
        missing = _missing(sizes, wanted)
        if missing or not wanted:
            return False, _part(wanted, missing, contents.partial_bytes)
    return kind != "model" or lacks_for_loading(sizes, folder) is None, None


def _missing(sizes: Mapping[str, int], files: Sequence[RemoteFile]) -> list[RemoteFile]:
    found = []
    for file in files:
        size = sizes.get(file.path)
        if size is None or (file.size is not None and size != file.size):
            found.append(file)
    return found


def _part(
    wanted: Sequence[RemoteFile], missing: Sequence[RemoteFile], partial: int
) -> float | None:
    total = sum(file.size or 0 for file in wanted)
    if not total or any(file.size is None for file in wanted):
        return None
    absent = sum(file.size or 0 for file in missing)
    return max(0.0, min((total - absent + min(partial, absent)) / total, 1.0))
