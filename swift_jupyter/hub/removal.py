"""Removing repositories from the caches: a plan that tells what it will free, then the deed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.hub.cache import CachedRepo, cache_roots
from swift_jupyter.hub.records import forget_records
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


@dataclass(frozen=True)
class Removal:
    """Entries that are to be removed.

    Parameters
    ----------
    entries : tuple of CachedRepo
        What is to be removed.
    expected_freed_bytes : int
        What that frees, by the scan.
    settings : Settings
        The preferences in force.
    """

    entries: tuple[CachedRepo, ...]
    expected_freed_bytes: int
    settings: Settings

    @property
    def expected_freed_str(self) -> str:
        """What it frees, for people."""
        return size_text(self.expected_freed_bytes)

    def execute(self) -> int:
        """Remove the entries and return the bytes that were freed.

        Raises
        ------
        UserError
            When a file cannot be removed; the other entries are gone then.
        """
        freed, problems = 0, []
        for entry in self.entries:
            try:
                freed += _remove(entry)
            except OSError as error:
                problems.append(str(error))
            else:
                snapshots = [entry.path / "snapshots" / name for name in entry.revisions]
                forget_records(self.settings, [entry.path, *snapshots])
        if problems:
            raise UserError(
                _("Not everything could be removed; {size} are free.", size=size_text(freed)),
                "; ".join(problems),
            )
        return freed


def plan_removal(
    entries: Iterable[CachedRepo],
    settings: Settings,
    environ: Mapping[str, str] | None = None,
) -> Removal:
    """Check that `entries` may be removed and tell what that would free.

    Raises
    ------
    UserError
        For a path that is not inside one of the caches, or that is a link.
    """
    entries = tuple(dict.fromkeys(entries))
    roots = [root.resolve() for root in cache_roots(settings, environ)]
    for entry in entries:
        real = entry.path.resolve()
        inside = any(root in real.parents for root in roots)
        if not inside or entry.path.is_symlink():
            raise UserError(
                _("{path} is not inside a cache, so it is not removed.", path=entry.path)
            )
    return Removal(entries, sum(entry.size_bytes for entry in entries), settings)


def _remove(entry: CachedRepo) -> int:
    """Remove the folder of `entry`; links are removed, what they point to is not."""
    before = _used(entry.path)
    shutil.rmtree(entry.path)
    parent = entry.path.parent
    masked_link = parent / entry.repo_id.rpartition("/")[2]
    if masked_link.is_symlink() and not masked_link.exists():
        masked_link.unlink()
    if entry.hub == "Hugging Face":
        shutil.rmtree(parent / ".locks" / entry.path.name, ignore_errors=True)
    return before


def _used(folder: Path) -> int:
    """Return the bytes of files that vanish with `folder`: those with no other hard link."""
    total = 0
    for directory, _folders, names in os.walk(folder):
        for name in names:
            state = Path(directory, name).lstat()
            if state.st_nlink == 1:
                total += state.st_size
    return total
