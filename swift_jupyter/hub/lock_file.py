"""``swift-jupyter.lock``: which bytes a project was made with, so that they can be had again.

The file is JSON, one entry per repository, in an order that depends on nothing
but the entries, so that version control shows what changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from swift_jupyter.errors import UserError
from swift_jupyter.files import write_json_atomically
from swift_jupyter.hub.cache.records import read_record
from swift_jupyter.hub.listing import (
    GIT_SHA1,
    SHA256,
    Hub,
    RemoteFile,
    RepoListing,
    UnsafePath,
    check_path,
)
from swift_jupyter.hub.reference import RepoKind, RepoReference, is_repo_id, is_revision
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

LOCK_FILE = "swift-jupyter.lock"
FORMAT = 1
_LARGEST_FILE = 256 << 20
_SHOWN_FILES = 5


@dataclass(frozen=True)
class LockEntry:
    """One repository in a lock file.

    Parameters
    ----------
    kind : {"model", "dataset"}
        What it is.
    hub : {"modelscope", "huggingface"}
        The hub whose listing was pulled.
    repo_id : str
        Its id there.
    revision : str
        The name that was asked for.
    commit : str
        40 hex digits; see `RepoListing`.
    files : tuple of RemoteFile
        The pulled files by path, each with size and SHA-256.
    """

    kind: RepoKind
    hub: Hub
    repo_id: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def reference(self) -> RepoReference:
        """What to pull, by the id at its hub."""
        return RepoReference(
            self.repo_id,
            self.kind,
            self.repo_id if self.hub == "modelscope" else None,
            self.repo_id if self.hub == "huggingface" else None,
            revision=self.revision,
        )

    @property
    def listing(self) -> RepoListing:
        """The entry as if a hub had listed it."""
        return RepoListing(
            self.hub, self.repo_id, self.kind, self.revision, self.commit, self.files
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "kind": self.kind,
            "hub": self.hub,
            "repo_id": self.repo_id,
            "revision": self.revision,
            "commit": self.commit,
            "files": [_to_dict(file) for file in sorted(self.files, key=lambda file: file.path)],
        }

    @classmethod
    def from_dict(cls, content: Any) -> LockEntry:
        """Build an entry from JSON values.

        Raises
        ------
        ValueError
            When a value does not fit; the file may come from anybody.
        """
        if not isinstance(content, dict) or not isinstance(content.get("files"), list):
            raise ValueError(_("an entry has no files"))
        names = ("kind", "hub", "repo_id", "revision", "commit")
        kind, hub, repo_id, revision, commit = (str(content.get(name, "")) for name in names)
        if (
            kind not in get_args(RepoKind)
            or hub not in get_args(Hub)
            or not is_repo_id(repo_id)
            or not is_revision(revision)
            or not GIT_SHA1.fullmatch(commit)
        ):
            raise ValueError(_("the entry {repo_id} is not one", repo_id=repr(repo_id)))
        files = tuple(_file(file) for file in content["files"])
        if len({file.path for file in files}) < len(files):
            raise ValueError(_("the entry {repo_id} names a file twice", repo_id=repo_id))
        return cls(kind, hub, repo_id, revision, commit, files)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LockDifference:
    """How what a hub lists differs from a lock entry: paths, sorted."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.missing)

    @property
    def text(self) -> str:
        """The difference in words."""
        parts = (
            (self.changed, _("changed: {names}", names=_names(self.changed))),
            (self.missing, _("missing: {names}", names=_names(self.missing))),
            (self.extra, _("not in the lock: {names}", names=_names(self.extra))),
        )
        return "; ".join(text for paths, text in parts if paths)


def compare(locked: Iterable[RemoteFile], listed: Iterable[RemoteFile]) -> LockDifference:
    """Tell how a hub's listing differs from locked files.

    Without a hash in common, the sizes are compared.
    """
    wanted = {file.path: file for file in locked}
    found = {file.path: file for file in listed}
    return LockDifference(
        tuple(p for p in sorted(wanted) if p in found and _differs(wanted[p], found[p])),
        tuple(p for p in sorted(wanted) if p not in found),
        tuple(p for p in sorted(found) if p not in wanted),
    )


def read_lock(path: Path) -> tuple[LockEntry, ...]:
    """Return the entries of a lock file.

    Raises
    ------
    UserError
        When it is absent, cannot be read, or is no lock file.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ValueError(_("it is too large"))
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(_("it is not a lock file of this version"))
        entries = content.get("repositories")
        if not isinstance(entries, list):
            raise ValueError(_("it names no repositories"))
        return tuple(LockEntry.from_dict(entry) for entry in entries)
    except FileNotFoundError:
        raise UserError(
            _("There is no lock file {path}.", path=path),
            "",
            _("%swift download <name> --lock {path} writes it.", path=path),
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            _("The lock file {path} cannot be read.", path=path),
            getattr(error, "strerror", None) or str(error),
            _("Mend it, or delete it and download again."),
        ) from None


def lock_entry(snapshot: Snapshot, settings: Settings) -> LockEntry:
    """Return the entry for a snapshot.

    Raises
    ------
    UserError
        When it is not known of every file which bytes it should have, as in
        a folder that nobody pulled.
    """
    record = read_record(settings, snapshot.path)
    if record is None or not record.hub or not record.commit:
        raise _cannot_lock(snapshot, _("It was not pulled by Swift-Jupyter."))
    files = tuple(file for file in record.files if (snapshot.path / file.path).exists())
    unknown = [file.path for file in files if not file.sha256 or file.size is None]
    if unknown:
        raise _cannot_lock(snapshot, _("The hash of {names} is not known.", names=_names(unknown)))
    return LockEntry(
        record.kind,  # type: ignore[arg-type]
        record.hub,
        record.repo_id,
        record.revision or "main",
        record.commit,
        files,
    )


def update_lock(path: Path, snapshots: Sequence[Snapshot], settings: Settings) -> None:
    """Write the entries of `snapshots` into a lock file, in place of those of the same name.

    Entries of other repositories stay. Two processes may do it at once.

    Raises
    ------
    UserError
        When a snapshot cannot be locked, or the file cannot be read or written.
    """
    added = [lock_entry(snapshot, settings) for snapshot in snapshots]
    with _alone(path, settings):
        kept = read_lock(path) if path.exists() else ()
        entries = {(entry.kind, entry.repo_id, entry.hub): entry for entry in (*kept, *added)}
        content = {
            "format": FORMAT,
            "repositories": [entries[key].to_dict() for key in sorted(entries)],
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomically(path, content)
        except OSError as error:
            raise UserError(
                _("The lock file {path} cannot be written.", path=path),
                error.strerror or str(error),
            ) from None


@contextlib.contextmanager
def _alone(path: Path, settings: Settings) -> Iterator[None]:
    """Keep other processes out; the guard does not lie about in the user's project."""
    import filelock

    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    folder = settings.state_path / "locks"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(filelock.FileLock(folder / f"{name}.lock", timeout=30))
        yield


def _to_dict(file: RemoteFile) -> dict[str, Any]:
    """Return the fields that say something."""
    values = file.to_dict()
    return {
        name: value for name, value in values.items() if value is not None and value is not False
    }


def _file(content: Any) -> RemoteFile:
    try:
        file = RemoteFile(**content)
        check_path(file.path)
    except (TypeError, UnsafePath):
        raise ValueError(_("a file is not one")) from None
    if (
        type(file.size) is not int
        or file.size < 0
        or not isinstance(file.sha256, str)
        or not SHA256.fullmatch(file.sha256)
        or not (file.git_sha1 is None or GIT_SHA1.fullmatch(str(file.git_sha1)))
        or not isinstance(file.lfs, bool)
    ):
        raise ValueError(_("the file {path} lacks its size or hash", path=repr(file.path)))
    return file


def _differs(first: RemoteFile, second: RemoteFile) -> bool:
    if first.sha256 and second.sha256:
        return first.sha256 != second.sha256
    if first.git_sha1 and second.git_sha1:
        return first.git_sha1 != second.git_sha1
    return None not in (first.size, second.size) and first.size != second.size


def _names(paths: Sequence[str]) -> str:
    rest = len(paths) - _SHOWN_FILES
    shown = ", ".join(paths[:_SHOWN_FILES])
    return shown if rest <= 0 else _("{names} and {count} more", names=shown, count=rest)


def _cannot_lock(snapshot: Snapshot, why: str) -> UserError:
    return UserError(
        _("{name} cannot be written into a lock file.", name=snapshot.repo_id),
        why,
        _("Pull it again from a hub: --source modelscope or --source huggingface."),
    )
