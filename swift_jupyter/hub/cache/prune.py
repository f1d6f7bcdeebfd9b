"""Cleaning up: what was broken off, and what nothing refers to. A plan first, then the deed."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.files import size_text
from swift_jupyter.hub.cache.completeness import PARTIAL_SUFFIXES
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.records import forget_records, iterate_records
from swift_jupyter.hub.cache.removal import Removal, is_below, plan_removal, record_hashes
from swift_jupyter.hub.cache.scan import cache_roots, scan_cache
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.store.gc import DAY, GarbagePlan, find_garbage
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store, open_store
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

# What a crash leaves while a file is being replaced.
_OUR_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")


@dataclass(frozen=True)
class Leftover:
    """An unfinished file, or a folder of them, that a hub's client or a crash has left."""

    path: Path
    size: int


@dataclass(frozen=True)
class PrunePlan:
    """What a clean-up removes.

    Parameters
    ----------
    settings : Settings
        The preferences in force.
    incomplete : Removal
        Repositories that were not finished and are not at work.
    leftovers : tuple of Leftover
        Unfinished files of both hubs' clients, in other repositories.
    garbage : GarbagePlan
        What the store holds for nobody.
    dead_records : tuple of Path
        Snapshots that are gone, of which a record is left.
    """

    settings: Settings
    incomplete: Removal
    leftovers: tuple[Leftover, ...]
    garbage: GarbagePlan
    dead_records: tuple[Path, ...]

    @property
    def expected_freed_bytes(self) -> int:
        """What all of it frees."""
        return (
            self.incomplete.expected_freed_bytes
            + sum(leftover.size for leftover in self.leftovers)
            + self.garbage.expected_freed_bytes
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to clean up."""
        return not (self.incomplete.entries or self.leftovers or self.garbage.files)

    def execute(self) -> int:
        """Remove it and return the bytes that were freed.

        Raises
        ------
        UserError
            When something cannot be removed; the rest is gone then.
        """
        freed, problems = 0, []
        for leftover in self.leftovers:
            try:
                _remove(leftover.path)
                freed += leftover.size
            except OSError as error:
                problems.append(str(error))
        for part in (self.incomplete, self.garbage):
            try:
                freed += part.execute()
            except UserError as error:
                problems.append(error.why or error.what)
        forget_records(self.settings, self.dead_records)
        if problems:
            raise UserError(
                _("Not everything could be removed; {size} are free.", size=size_text(freed)),
                "; ".join(problems),
            )
        return freed


def plan_prune(
    settings: Settings,
    environ: Mapping[str, str] | None = None,
    *,
    days: float = 1.0,
    now: float | None = None,
) -> PrunePlan:
    """Find what was broken off or is needed by nothing.

    Parameters
    ----------
    settings : Settings
        The preferences in force.
    environ : mapping, optional
        Environment variables; the process's own when left out.
    days : float
        What was written later is left alone: a transfer may be at work.
    now : float, optional
        Seconds since the epoch; the present when left out.

    Notes
    -----
    Only what is of no use by itself goes: a part that somebody wanted, such as the
    configuration alone, stays, and so does a model that can be loaded. Pinned ones stay
    whatever they lack.
    """
    now = time.time() if now is None else now
    before = now - days * DAY
    store = open_store(settings)
    entries = scan_cache(settings, environ).entries
    broken = [
        entry
        for entry in entries
        if entry.broken_off and not entry.pinned and entry.last_used <= before
    ]
    removal = plan_removal(broken, settings, environ)
    going = {os.fspath(path) for entry in broken for path in entry.paths}
    leftovers = [
        leftover for leftover in _leftovers(environ, before) if not is_below(leftover.path, going)
    ]
    garbage = _garbage(store, settings, environ, entries, removal, days, now)
    dead = [record.path for record in iterate_records(settings) if not record.path.is_dir()]
    return PrunePlan(settings, removal, tuple(leftovers), garbage, tuple(dead))


def _garbage(
    store: Store,
    settings: Settings,
    environ: Mapping[str, str] | None,
    entries: Iterable[CachedRepo],
    removal: Removal,
    days: float,
    now: float,
) -> GarbagePlan:
    roots = {os.fspath(root.absolute()) for root in cache_roots(settings, environ)}
    records = [
        record
        for record in iterate_records(settings)
        if is_below(record.path, roots) and record.path.is_dir()
    ]
    shown = {(record.hub, record.repo_id, record.commit) for record in records}
    pinned = {name.lower() for entry in entries if entry.pinned for name in entry.names}

    def keep(key: ManifestKey) -> bool:
        return (
            (key.hub, key.repo_id, key.commit) in shown
            or key.repo_id.lower() in pinned
            or store.manifest_files.is_held(key)
        )

    hashes = set(record_hashes(store, records))
    plan = find_garbage(
        store,
        keep_manifest=keep,
        referenced=hashes,
        part_days=days,
        grace=days * DAY,
        now=now,
    )
    taken = {file.path for file in removal.stored.files}
    manifests = tuple(key for key in plan.manifests if key not in removal.stored.manifests)
    return GarbagePlan(
        store, tuple(file for file in plan.files if file.path not in taken), manifests
    )


def _leftovers(environ: Mapping[str, str] | None, before: float) -> Iterator[Leftover]:
    environment = read_environment(environ)
    for root in (environment.huggingface_cache, environment.modelscope_cache):
        for directory, folders, names in os.walk(root):
            for name in list(folders):
                if name.startswith("._____temp"):  # Where old clients of ModelScope wrote.
                    folders.remove(name)
                    yield from _temporary(Path(directory, name), before)
            for name in names:
                if name.endswith(PARTIAL_SUFFIXES) or _OUR_TEMPORARY.fullmatch(name):
                    leftover = _leftover(Path(directory, name), before)
                    if leftover is not None:
                        yield leftover


def _temporary(folder: Path, before: float) -> Iterator[Leftover]:
    for child in folder.iterdir():
        files = [path for path in child.rglob("*") if path.is_file() and not path.is_symlink()]
        states = [path.lstat() for path in (files if child.is_dir() else [child])]
        if all(state.st_mtime <= before for state in [*states, child.lstat()]):
            yield Leftover(child, sum(state.st_size for state in states))


def _leftover(path: Path, before: float) -> Leftover | None:
    try:
        state = path.lstat()
    except OSError:
        return None
    if state.st_mtime > before or path.is_symlink():
        return None
    return Leftover(path, state.st_size if state.st_nlink == 1 else 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
