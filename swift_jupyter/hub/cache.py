"""What lies in the caches. Cheap to import: the Jupyter server uses it as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swift_jupyter.hub.completeness import has_partial_files, missing_from_model
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.flaws import find_flaw, known_listing
from swift_jupyter.hub.layouts import CachedSnapshot, references, stored_listing
from swift_jupyter.hub.packages import packages_root, read_origin
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

KINDS = ("model", "dataset")
# Folders at the top of ModelScope's cache that are not owners of repositories.
_NO_OWNERS = frozenset(
    {"hub", "models", "datasets", "studios", "skills", "downloads", "ast_indexer"}
)


@dataclass(frozen=True)
class CachedRepo:
    """One repository in a cache.

    Parameters
    ----------
    repo_id : str
        Its id.
    kind : str
        ``model`` or ``dataset``.
    hub : str
        ModelScope, Hugging Face, or local package.
    path : Path
        The folder with all its revisions.
    size_bytes : int
        Bytes on the disk, each file counted once.
    file_count : int
        Files, partial ones included.
    last_used : float
        When a file was last read or written, in seconds since the epoch.
        Reading does not count on disks that do not note it.
    complete : bool
        Whether its newest revision has all that loading it needs.
    revisions : tuple of str
        Branches, tags or commits that are there.
    """

    repo_id: str
    kind: str
    hub: str
    path: Path
    size_bytes: int
    file_count: int
    last_used: float
    complete: bool
    revisions: tuple[str, ...] = ()

    @property
    def size_str(self) -> str:
        """The size for people."""
        return size_text(self.size_bytes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            **asdict(self),
            "path": str(self.path),
            "revisions": list(self.revisions),
            "size_str": self.size_str,
        }


@dataclass(frozen=True)
class CacheListing:
    """The repositories in all caches, and what is wrong there."""

    entries: tuple[CachedRepo, ...]
    warnings: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(entry.size_bytes for entry in self.entries)


@dataclass
class _Scan:
    settings: Settings
    entries: list[CachedRepo] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[Settings, Path], CachedRepo | None], folder: Path) -> None:
        """Add what `read` makes of `folder`; what it cannot read becomes a warning."""
        try:
            entry = read(self.settings, folder)
        except (OSError, ValueError) as error:
            self.warnings.append(_("{folder} cannot be read: {error}", folder=folder, error=error))
            return
        if entry is None:
            self.warnings.append(_("{folder} is not a cached repository.", folder=folder))
        else:
            self.entries.append(entry)


def scan_cache(settings: Settings, environ: Mapping[str, str] | None = None) -> CacheListing:
    """List every repository in both hubs' caches and among the local packages.

    Parameters
    ----------
    settings : Settings
        The preferences in force.
    environ : mapping, optional
        Environment variables; the process's own when left out.

    Returns
    -------
    CacheListing
        The largest entry first. A broken entry is a warning, never an error.
    """
    environment = read_environment(environ)
    scan = _Scan(settings)
    for folder in _subfolders(environment.huggingface_cache):
        if folder.name.startswith(tuple(f"{kind}s--" for kind in KINDS)):
            scan.attempt(_read_huggingface, folder)
    for folder in _modelscope_folders(environment.modelscope_cache):
        scan.attempt(_read_modelscope, folder)
    for folder in _subfolders(packages_root(settings)):
        scan.attempt(_read_package, folder)
    entries = sorted(scan.entries, key=lambda entry: -entry.size_bytes)
    return CacheListing(tuple(entries), tuple(scan.warnings))


def cache_roots(settings: Settings, environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return the folders below which everything may be removed."""
    environment = read_environment(environ)
    return (
        environment.huggingface_cache,
        environment.modelscope_cache,
        packages_root(settings),
    )


def _read_huggingface(settings: Settings, folder: Path) -> CachedRepo | None:
    kind, _separator, name = folder.name.partition("s--")
    repo_id = name.replace("--", "/", 1)
    snapshots = list(_subfolders(folder / "snapshots"))
    if not snapshots and not (folder / "blobs").is_dir():
        return None
    names = references(folder)
    newest = max(snapshots, key=_changed, default=None)
    commit = names.get("main") or (newest.name if newest else "")
    shown = folder / "snapshots" / commit
    complete = (
        bool(commit)
        and shown.is_dir()
        and _is_complete(
            settings, CachedSnapshot(shown, commit, stored_listing(folder, commit)), kind, folder
        )
    )
    revisions = dict.fromkeys([*names, *(path.name for path in snapshots)])
    return _entry(repo_id, kind, "Hugging Face", folder, complete, tuple(revisions))


def _read_modelscope(settings: Settings, folder: Path) -> CachedRepo | None:
    kind = "dataset" if "datasets" in folder.parts[-3:] else "model"
    if "--" in folder.name:
        repo_id = folder.name.replace("--", "/", 1)
        snapshots = list(_subfolders(folder / "snapshots"))
    else:
        repo_id = f"{folder.parent.name}/{folder.name.replace('___', '.')}"
        snapshots = [folder]
    if not snapshots:
        return None
    default = folder / "snapshots" / "master"
    shown = default if default in snapshots else max(snapshots, key=_changed)
    complete = _is_complete(settings, CachedSnapshot(shown, None), kind, shown)
    revisions = tuple(path.name for path in snapshots if path != folder)
    return _entry(repo_id, kind, "ModelScope", folder, complete, revisions)


def _read_package(_settings: Settings, folder: Path) -> CachedRepo | None:
    if folder.name.startswith("."):
        return _entry(folder.name.lstrip("."), "model", "local package", folder, False, ())
    origin = read_origin(folder)
    if origin is None:
        return None
    complete = missing_from_model(folder) is None
    revisions = (str(origin["version"]),) if "version" in origin else ()
    return _entry(folder.name, "model", "local package", folder, complete, revisions)


def _is_complete(settings: Settings, snapshot: CachedSnapshot, kind: str, transfers: Path) -> bool:
    """Tell whether nothing lacks; `transfers` is where unfinished files would lie."""
    if known_listing(settings, snapshot) is None:
        if has_partial_files(transfers):
            return False
        if kind == "dataset":
            return any(snapshot.path.iterdir())
    return find_flaw(settings, snapshot, kind) is None


def _modelscope_folders(cache: Path) -> Iterator[Path]:
    """Yield the folders of repositories in every layout that ModelScope's clients have used."""
    for root in (cache, cache / "hub"):
        for kind in KINDS:
            for folder in _subfolders(root / f"{kind}s"):
                if "--" in folder.name:
                    yield folder
                elif folder.name not in _NO_OWNERS:
                    yield from _subfolders(folder)
        for owner in _subfolders(root):
            if owner.name not in _NO_OWNERS and "--" not in owner.name:
                yield from (path for path in _subfolders(owner) if _looks_like_repo(path))


def _looks_like_repo(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (".msc", ".mdl", "config.json", "README.md"))


def _subfolders(folder: Path) -> Iterator[Path]:
    """Yield real folders only: old clients left links beside the folder that they point to."""
    try:
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except OSError:
        return
    for child in children:
        hidden_temporary = child.name.startswith(("._", ".lock"))
        if child.is_dir(follow_symlinks=False) and not hidden_temporary:
            yield Path(child.path)


def _entry(
    repo_id: str, kind: str, hub: str, path: Path, complete: bool, revisions: tuple[str, ...]
) -> CachedRepo:
    size = count = 0
    used = path.stat().st_mtime
    for state in _file_states([path]):
        size += state.st_size
        count += 1
        used = max(used, state.st_atime, state.st_mtime)
    return CachedRepo(repo_id, kind, hub, path, size, count, used, complete, revisions)


def _file_states(folders: Iterable[Path]) -> Iterator[os.stat_result]:
    """Yield the state of every real file once, links not followed, hard links once."""
    seen: set[tuple[int, int]] = set()
    for folder in folders:
        for directory, _folders, names in os.walk(folder):
            for name in names:
                path = Path(directory, name)
                if path.is_symlink():
                    continue
                try:
                    state = path.stat()
                except OSError:
                    continue
                key = (state.st_dev, state.st_ino)
                if state.st_nlink == 1 or key not in seen:
                    seen.add(key)
                    yield state


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
