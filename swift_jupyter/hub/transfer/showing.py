"""After a pull: the files in the places where the hubs' clients and the user look for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.hub.cache.records import (
    PullRecord,
    ours_by,
    read_record,
    record_snapshot,
    write_record,
)
from swift_jupyter.hub.cache.verify import verify_files
from swift_jupyter.hub.endpoints import HubEnvironment
from swift_jupyter.hub.listing import HUB_NAMES, Hub, RemoteFile, RepoListing
from swift_jupyter.hub.store.export import (
    export_folder,
    export_huggingface,
    export_modelscope,
    modelscope_target,
)
from swift_jupyter.hub.store.store import Store
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

Notice = Callable[[str], None]


def show(
    store: Store,
    settings: Settings,
    environment: HubEnvironment,
    listing: RepoListing,
    files: Sequence[RemoteFile],
    ids: Mapping[Hub, str | None],
    local_dir: Path | None,
    source: str,
    notice: Notice,
) -> Path:
    """Link stored files into both hubs' caches, or into a folder of the user's.

    Parameters
    ----------
    store : Store
        Has all of `files`.
    settings, environment
        Where records and caches are.
    listing : RepoListing
        The revision.
    files : sequence of RemoteFile
        What was pulled of it.
    ids : mapping
        The repository's id at each hub.
    local_dir : Path, optional
        The user's folder, instead of the caches.
    source : str
        Where it came from, for people.
    notice : callable
        Takes what the user should know.

    Returns
    -------
    Path
        The folder to tell the user.

    Raises
    ------
    UserError
        When the folder cannot be written, or holds other files in their place.
    """
    if local_dir is not None:
        return _show_folder(store, settings, listing, files, local_dir, source, notice)
    path = None
    # The hub that it came from last: its snapshot is the one that is returned, and the
    # other's must not spoil it.
    for hub in sorted(ids, key=lambda hub: hub == listing.hub):
        repo_id = ids[hub]
        if not repo_id:
            continue
        try:
            path = _show_in_cache(
                store, settings, environment, listing, files, hub, repo_id, notice
            )
        except (UserError, OSError) as error:
            if hub == listing.hub:
                raise
            notice(
                _(
                    "{hub}'s cache was left as it is: {reason}",
                    hub=HUB_NAMES[hub],
                    reason=getattr(error, "what", None) or str(error),
                )
            )
            continue
        record_snapshot(settings, path, listing, source)
    assert path is not None
    return path


def _show_in_cache(
    store: Store,
    settings: Settings,
    environment: HubEnvironment,
    listing: RepoListing,
    files: Sequence[RemoteFile],
    hub: Hub,
    repo_id: str,
    notice: Notice,
) -> Path:
    if hub == "huggingface":
        return export_huggingface(
            store, listing, files, environment.huggingface_cache, repo_id, notice=notice
        )
    cache = environment.modelscope_cache
    record = read_record(settings, modelscope_target(cache, listing, repo_id))
    path = export_modelscope(
        store, listing, files, cache, repo_id, notice=notice, ours=ours_by(record)
    )
    _remove_outdated(path, record, listing)
    return path


def _remove_outdated(folder: Path, record: PullRecord | None, listing: RepoListing) -> None:
    """Remove what we put there for an earlier state of the branch and the hub has no more.

    A shard or a tokenizer file of the model's earlier state would be loaded along.
    """
    if record is None or record.repo_id != listing.repo_id:
        return
    present = {file.path for file in listing.files}
    for path in record.states.keys() - present:
        target = folder / path
        try:
            if record.is_unchanged(path, target.stat()):
                target.unlink()
        except OSError:
            continue


def _show_folder(
    store: Store,
    settings: Settings,
    listing: RepoListing,
    files: Sequence[RemoteFile],
    folder: Path,
    source: str,
    notice: Notice,
) -> Path:
    """Fill a folder of the user's; files that were edited there since the last pull stay."""
    record = read_record(settings, folder)
    edited = edited_files(record, files)
    export_folder(
        store,
        listing,
        [file for file in files if file.path not in edited],
        folder,
        notice=notice,
        ours=ours_by(record),
    )
    if edited:
        notice(edited_text(folder, edited))
    written = record_snapshot(settings, folder, listing, source)
    if record is not None and edited:
        # What the user wrote is never taken for what the hub has.
        states = {path: state for path, state in written.states.items() if path not in edited}
        states.update((path, record.states[path]) for path in edited)
        write_record(settings, replace(written, states=states))
    return folder


def edited_files(record: PullRecord | None, files: Iterable[RemoteFile]) -> set[str]:
    """Return the paths of pulled files that somebody has changed since, by their content."""
    if record is None:
        return set()
    pulled = [file for file in files if file.path in record.states]
    changed = [file for file in record.changed(pulled) if (record.path / file.path).exists()]
    return {mismatch.path for mismatch in verify_files(record.path, changed)}


def edited_text(folder: Path, edited: Iterable[str]) -> str:
    """Return what a user is told about edited files."""
    return _(
        "{files} in {folder} was changed there and is kept; delete it to have the hub's again.",
        files=", ".join(sorted(edited)),
        folder=folder,
    )
