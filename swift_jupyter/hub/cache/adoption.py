"""Taking files that are in some cache already into the store, so that a pull fetches the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swift_jupyter.hub.cache.layouts import (
    huggingface_repo_folder,
    legacy_modelscope_folders,
    modelscope_repo_folder,
)
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.listing import Hub, RemoteFile
from swift_jupyter.hub.reference import is_repo_id
from swift_jupyter.hub.store.store import Store

_READERS = 2  # Hashing is bound by processor and disk; more of them only fight.


def adopt_from_caches(
    store: Store,
    kind: str,
    files: Iterable[RemoteFile],
    repo_ids: Mapping[Hub, str | None],
    environ: Mapping[str, str] | None = None,
    *,
    extra_folders: Iterable[Path] = (),
    progress: Callable[[str, int], None] = lambda path, count: None,
) -> set[str]:
    """Take in every one of `files` that lies in a cache of either hub, without copying it.

    Parameters
    ----------
    store : Store
        Takes the files in.
    kind : str
        ``model`` or ``dataset``.
    files : iterable of RemoteFile
        What is wanted, with hashes.
    repo_ids : mapping
        The repository's id at each hub.
    environ : mapping, optional
        Says where the caches are; the process's own environment when left out.
    extra_folders : iterable of Path, optional
        Other folders that may hold the files under their paths.
    progress : callable, optional
        Told the path and the number of bytes just read, from several threads. It may
        raise to stop.

    Returns
    -------
    set of str
        The paths of those files that the store has now.

    Notes
    -----
    Only files of the right size or with the blob's name are read.
    """
    places = _Places(kind, repo_ids, environ, extra_folders)
    had, doubtful = set(), []
    for file in files:
        if store.resolve(file) is not None:
            had.add(file.path)
        elif file.sha256 or file.git_sha1:
            doubtful.append(file)

    def adopt(file: RemoteFile) -> str | None:
        def read(count: int) -> None:
            progress(file.path, count)

        for candidate in places.candidates(file):
            if store.adopt(Path(candidate), file, read):
                return file.path
        return None

    if not doubtful or places.are_empty:
        return had
    with ThreadPoolExecutor(_READERS) as pool:
        had.update(path for path in pool.map(adopt, doubtful) if path is not None)
    return had


class _Places:
    """Where the files of one repository may lie."""

    def __init__(
        self,
        kind: str,
        repo_ids: Mapping[Hub, str | None],
        environ: Mapping[str, str] | None,
        extra_folders: Iterable[Path],
    ) -> None:
        environment = read_environment(environ)
        names = {name for name in repo_ids.values() if name and is_repo_id(name)}
        blobs, snapshots = [], [os.fspath(folder) for folder in extra_folders]
        for name in sorted(names):
            repo = os.fspath(huggingface_repo_folder(environment.huggingface_cache, name, kind))
            blobs.append(f"{repo}/blobs")
            snapshots += _children(f"{repo}/snapshots")
            cache = environment.modelscope_cache
            snapshots += _children(f"{modelscope_repo_folder(cache, name, kind)}/snapshots")
            snapshots += map(os.fspath, legacy_modelscope_folders(cache, name, kind))
        self._blobs = [folder for folder in blobs if os.path.isdir(folder)]
        self._snapshots = [folder for folder in snapshots if os.path.isdir(folder)]

    @property
    def are_empty(self) -> bool:
        """Whether there is no such place."""
        return not self._blobs and not self._snapshots

    def candidates(self, file: RemoteFile) -> Iterator[str]:
        """Yield files that may be `file`, each once."""
        seen = set()
        for path in self._named(file):
            try:
                state = os.stat(path)
            except OSError:
                continue
            if file.size is not None and state.st_size != file.size:
                continue
            if (state.st_dev, state.st_ino) not in seen:
                seen.add((state.st_dev, state.st_ino))
                yield path

    def _named(self, file: RemoteFile) -> Iterator[str]:
        for folder in self._blobs:
            for name in (file.sha256, file.git_sha1):
                if name and name.isalnum():
                    yield f"{folder}/{name.lower()}"
        for folder in self._snapshots:
            yield f"{folder}/{file.path}"


def _children(folder: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []
