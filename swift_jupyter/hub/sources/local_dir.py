"""The folder that ``--local_dir`` names: found filled, or filled from this machine."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.files import check_room
from swift_jupyter.hub.cache.layouts import DEFAULT_BRANCHES
from swift_jupyter.hub.cache.records import (
    PullRecord,
    read_record,
    touch_record,
    write_record,
)
from swift_jupyter.hub.listing import RemoteFile, select_files
from swift_jupyter.hub.progress import Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import PullRequest, SourceUnavailable
from swift_jupyter.hub.store.hashing import Fingerprint
from swift_jupyter.hub.transfer.showing import edited_files, edited_text
from swift_jupyter.i18n import translate as _


@dataclass(frozen=True)
class LocalDirSource:
    """Find a repository in the folder where it was pulled to before."""

    @property
    def name(self) -> str:
        """The name for people."""
        return "cache"

    def offers(self, reference: RepoReference) -> bool:
        """Tell whether the reference has an id of a hub."""
        return bool(reference.modelscope_id or reference.huggingface_id)

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Return the folder when nothing lacks there.

        Files that the user has changed since stay, and are told in the
        snapshot's notices.

        Raises
        ------
        SourceUnavailable
            When it has something else, or not all.
        """
        folder = request.local_dir
        record = read_record(request.settings, folder) if folder is not None else None
        if folder is None or record is None or not _is_of(record, reference):
            raise SourceUnavailable(_("not there"), "not_found")
        wanted = select_files(record.files, reference.kind, request.include, request.exclude)
        if not wanted:
            raise SourceUnavailable(_("no file matches the patterns"), "not_found")
        for file in wanted:
            if not (folder / file.path).is_file():
                reason = _("the copy is incomplete: {file} is missing", file=file.path)
                raise SourceUnavailable(reason, "incomplete")
        edited = edited_files(record, wanted)
        touch_record(request.settings, folder)
        return Snapshot(
            record.repo_id,
            reference.kind,
            self.name,
            folder,
            record.commit if record.hub == "huggingface" else record.revision,
            sum(file.size or 0 for file in wanted),
            record.hub,
            record.commit,
            (edited_text(folder, edited),) if edited else (),
        )


def _is_of(record: PullRecord, reference: RepoReference) -> bool:
    """Tell whether a record is of this repository, in this revision."""
    repo_id = reference.modelscope_id if record.hub == "modelscope" else reference.huggingface_id
    if record.repo_id != repo_id or record.kind != reference.kind:
        return False
    wanted = reference.revision
    if wanted in DEFAULT_BRANCHES:
        return record.revision in DEFAULT_BRANCHES
    return wanted in (record.revision, record.commit)


def copy_into(snapshot: Snapshot, request: PullRequest, folder: Path) -> Snapshot:
    """Copy the wanted files of a snapshot on this machine, links as what they point to.

    Raises
    ------
    UserError
        When other files are in the way, before anything is written; or when
        the folder cannot be written.
    """
    if folder.resolve() == snapshot.path.resolve():
        return snapshot
    before = read_record(request.settings, folder)
    origin = read_record(request.settings, snapshot.path)
    files = origin.files if origin is not None else tuple(_files_in(snapshot.path))
    chosen = [
        file
        for file in select_files(files, snapshot.kind, request.include, request.exclude)
        if (snapshot.path / file.path).is_file()
    ]
    edited = edited_files(before, chosen)
    absent = [
        file
        for file in chosen
        if file.path not in edited and _is_to_copy(file, snapshot.path, folder, before)
    ]
    check_room(folder, sum(file.size or 0 for file in absent))
    try:
        for file in absent:
            _copy_file(snapshot.path / file.path, folder / file.path)
        if origin is not None:
            _record(origin, before, chosen, edited, request, folder)
    except OSError as error:
        raise UserError(
            _("The files cannot be copied to {folder}.", folder=folder), str(error)
        ) from None
    size = sum(file.size or 0 for file in chosen)
    notices = (edited_text(folder, edited),) if edited else ()
    return replace(snapshot, path=folder, size_bytes=size, notices=notices)


def _files_in(folder: Path) -> Iterator[RemoteFile]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size)


def _is_to_copy(file: RemoteFile, source: Path, folder: Path, before: PullRecord | None) -> bool:
    """Tell whether a file lacks in `folder` or is an earlier state that we put there."""
    target = folder / file.path
    if not target.exists():
        return True
    if filecmp.cmp(source / file.path, target, shallow=False):
        return False
    if before is not None and before.is_unchanged(file.path, target.stat()):
        return True
    raise UserError(
        _("{folder} has another file called {name}.", folder=folder, name=file.path),
        _("It may be yours, so it is not replaced."),
        _("Move it away or choose another --local_dir."),
    )


def _copy_file(source: Path, target: Path) -> None:
    """Copy in one step, so that an interrupt leaves no half file under the right name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.incomplete")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _record(
    origin: PullRecord,
    before: PullRecord | None,
    chosen: Sequence[RemoteFile],
    edited: set[str],
    request: PullRequest,
    folder: Path,
) -> None:
    states = {
        file.path: Fingerprint.of((folder / file.path).stat())
        for file in chosen
        if file.path not in edited
    }
    if before is not None:
        # What the user wrote is never taken for what the hub has.
        states.update((path, before.states[path]) for path in edited)
    write_record(request.settings, replace(origin, path=folder, states=states))
