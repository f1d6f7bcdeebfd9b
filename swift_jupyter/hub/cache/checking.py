"""Reading cached files again and comparing them with their hashes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swift_jupyter.hub.cache.contents import InodeKey, subfolders
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.layouts import stored_listing
from swift_jupyter.hub.cache.records import WRONG, PullRecord, read_record, write_record
from swift_jupyter.hub.cache.verify import Mismatch
from swift_jupyter.hub.listing import GIT_SHA1, SHA256, RemoteFile
from swift_jupyter.hub.store.hashing import Fingerprint, Hashes, hash_file
from swift_jupyter.hub.store.store import Store, open_store
from swift_jupyter.settings import Settings

Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Check:
    """What a snapshot should have.

    Parameters
    ----------
    entry : CachedRepo
        The repository.
    folder : Path
        The snapshot.
    files : tuple of RemoteFile
        Those of its files whose hash is known.
    unknown : int
        The number of its files whose hash is not known.
    record : PullRecord or None
        What our pull has recorded.
    """

    entry: CachedRepo
    folder: Path
    files: tuple[RemoteFile, ...]
    unknown: int
    record: PullRecord | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes to read, before files that several snapshots share are read once."""
        return sum(file.size or 0 for file in self.files)


@dataclass(frozen=True)
class Verdict:
    """What came out of a `Check`."""

    check: Check
    wrong: tuple[Mismatch, ...]


def checks_of(settings: Settings, entries: Iterable[CachedRepo]) -> list[Check]:
    """Return what is to be checked: every snapshot of every entry."""
    return [
        _check(settings, entry, folder)
        for entry in entries
        for path in entry.paths
        for folder in snapshot_folders(path)
    ]


def snapshot_folders(path: Path) -> list[Path]:
    """Return the snapshots of a repository; an old layout is one itself."""
    inner = path / "snapshots"
    if inner.is_dir():
        return [Path(entry.path) for entry in subfolders(os.fspath(inner))]
    return [path]


def run_checks(
    settings: Settings, checks: Iterable[Check], progress: Progress = lambda path, count: None
) -> Iterator[Verdict]:
    """Read every file, each once however many snapshots show it, and yield the verdicts.

    Notes
    -----
    A wrong file is marked, so that the next pull fetches it anew; if it is the store's, the
    store puts it into quarantine. A right one need not be read again until it changes.
    """
    reader = _Reader(open_store(settings), progress)
    for check in checks:
        states = dict(check.record.states) if check.record is not None else {}
        wrong = []
        for file in check.files:
            mismatch, fingerprint = reader.judge(check.folder, file)
            states[file.path] = fingerprint or WRONG
            if mismatch is not None:
                wrong.append(mismatch)
        if check.record is not None and states != check.record.states:
            write_record(settings, replace(check.record, states=states))
        elif check.record is None and wrong:
            _mark(settings, check, states)
        yield Verdict(check, tuple(wrong))


class _Reader:
    def __init__(self, store: Store, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._read: dict[InodeKey, tuple[Hashes, Fingerprint]] = {}

    def judge(self, folder: Path, file: RemoteFile) -> tuple[Mismatch | None, Fingerprint | None]:
        """Return what is wrong with a file, and its state when it is right."""
        path = folder / file.path
        try:
            state = path.stat()
            hashes, fingerprint = self._hashes(path, state, file)
        except OSError as error:
            return Mismatch(file.path, "a file", error.strerror or "nothing"), None
        if file.size is not None and fingerprint.size != file.size:
            found: tuple[str, str] | None = (f"{file.size} bytes", f"{fingerprint.size} bytes")
        elif file.sha256:
            found = _compare("sha256", file.sha256, hashes.sha256)
        else:
            found = _compare("git sha1", file.git_sha1 or "", hashes.git_sha1 or "")
        sha256 = file.sha256 or (file.git_sha1 and self._store.find_git(file.git_sha1, file.size))
        if found is None:
            self._store.note(hashes.sha256, fingerprint, hashes.git_sha1, path.resolve())
            return None, fingerprint
        if sha256:
            self._reject(sha256, path, state)
        return Mismatch(file.path, *found), None

    def _hashes(
        self, path: Path, state: os.stat_result, file: RemoteFile
    ) -> tuple[Hashes, Fingerprint]:
        key = (state.st_dev, state.st_ino)
        known = self._read.get(key)
        if known is None or (known[0].git_sha1 is None and not file.sha256):
            known = hash_file(path, not file.sha256, lambda count: self._progress(file.path, count))
            self._read[key] = known
        else:
            self._progress(file.path, state.st_size)
        return known

    def _reject(self, sha256: str, path: Path, state: os.stat_result) -> None:
        self._store.reject(sha256, path.resolve())
        try:
            stored = self._store.object_path(sha256).stat()
        except OSError:
            return
        if (stored.st_dev, stored.st_ino) == (state.st_dev, state.st_ino):
            self._store.reject(sha256)


def _compare(label: str, expected: str, found: str) -> tuple[str, str] | None:
    if expected.lower() == found:
        return None
    return f"{label} {expected}", f"{label} {found}"


def _check(settings: Settings, entry: CachedRepo, folder: Path) -> Check:
    record = read_record(settings, folder)
    listed: Sequence[RemoteFile] = ()
    if record is not None:
        listed = [file for file in record.files if _is_meant(record, file)]
    elif folder.parent.name == "snapshots":
        listed = stored_listing(folder.parent.parent, folder.name) or _named_by_blobs(folder)
        listed = [file for file in listed if os.path.lexists(folder / file.path)]
    known = tuple(file for file in listed if file.sha256 or file.git_sha1)
    paths = {file.path for file in known}
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    unknown = sum(path not in paths for path in present)
    return Check(entry, folder, known, unknown, record)


def _is_meant(record: PullRecord, file: RemoteFile) -> bool:
    """Tell whether a file was pulled, or came to be there otherwise."""
    return file.path in record.states or os.path.lexists(record.path / file.path)


def _named_by_blobs(snapshot: Path) -> list[RemoteFile]:
    """Return the files of a snapshot in Hugging Face's cache, whose links tell their hashes."""
    files = []
    for path in sorted(snapshot.rglob("*")):
        if not path.is_symlink():
            continue
        name = os.path.basename(os.readlink(path))
        where = path.relative_to(snapshot).as_posix()
        if SHA256.fullmatch(name):
            files.append(RemoteFile(where, None, name, None, True))
        elif GIT_SHA1.fullmatch(name):
            files.append(RemoteFile(where, None, None, name))
    return files


def _mark(settings: Settings, check: Check, states: dict[str, Fingerprint]) -> None:
    """Leave a record for a snapshot that no pull of ours has written."""
    is_huggingface = check.entry.hub == "Hugging Face"
    record = PullRecord(
        check.folder.absolute(),
        check.entry.hub,
        check.entry.repo_id,
        check.entry.kind,
        check.folder.name,
        check.files,
        "huggingface" if is_huggingface else "modelscope",
        check.folder.name if is_huggingface else None,
        states,
    )
    write_record(settings, record)
