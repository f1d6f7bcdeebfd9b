"""Why a cached snapshot cannot be used as it is."""

from __future__ import annotations

from collections.abc import Sequence

from swift_jupyter.hub.cache.completeness import (
    has_partial_files,
    missing_from_listing,
    missing_from_model,
    missing_processor,
)
from swift_jupyter.hub.cache.layouts import CachedSnapshot
from swift_jupyter.hub.cache.records import read_record
from swift_jupyter.hub.listing import RemoteFile, select_files
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


def known_listing(settings: Settings, snapshot: CachedSnapshot) -> tuple[RemoteFile, ...] | None:
    """Return the hub's listing of a snapshot: from our record, or from the hub's client."""
    record = read_record(settings, snapshot.path)
    return record.files if record is not None else snapshot.listing


def find_flaw(
    settings: Settings,
    snapshot: CachedSnapshot,
    kind: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> str | None:
    """Return why `snapshot` does not have all that is wanted, or None when it has.

    Only names and sizes are looked at. Without a listing, a model is judged
    by what loading it needs; of other things it cannot be told.
    """
    listing = known_listing(settings, snapshot)
    if listing is None:
        if kind != "model" or include:
            return _("it cannot be told whether the copy is complete")
        if has_partial_files(snapshot.path):
            return _("the copy is incomplete: a transfer was broken off")
        return _missing(missing_from_model(snapshot.path) or missing_processor(snapshot.path))
    wanted = select_files(listing, kind, include, exclude)
    if not wanted:
        return _("no file matches the patterns")
    # Whatever loading may need besides, the hub does not have it either.
    return _missing(missing_from_listing(snapshot.path, wanted))


def _missing(file: str | None) -> str | None:
    return file and _("the copy is incomplete: {file} is missing", file=file)
