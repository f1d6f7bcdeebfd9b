"""How much is below a folder, and which files, read in one go: a cache has many thousands."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from swift_jupyter.hub.cache.completeness import PARTIAL_SUFFIXES

InodeKey = tuple[int, int]


@dataclass(slots=True)
class Contents:
    """What was found below the folders that were read.

    Attributes
    ----------
    size : int
        Bytes of all real files, each counted once.
    count : int
        Their number.
    used : float
        When one of them was last read or written, in seconds since the epoch.
    shared : dict
        Bytes of those files that have other hard links, by device and inode.
    partial_bytes : int
        Bytes of files that a transfer left unfinished.
    partial_files : int
        Their number.
    """

    size: int = 0
    count: int = 0
    used: float = 0.0
    shared: dict[InodeKey, int] = field(default_factory=dict)
    partial_bytes: int = 0
    partial_files: int = 0

    def read(self, folder: str, files: dict[str, int] | None = None, prefix: str = "") -> None:
        """Take in everything below `folder`.

        Parameters
        ----------
        folder : str
            The folder. Links count for nothing and are followed for nothing but `files`.
        files : dict, optional
            Takes the size of every file by its path, also of those that are links to files.
        prefix : str
            Stands before the paths.

        Raises
        ------
        OSError
            When a folder cannot be read.
        """
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                try:
                    if entry.is_symlink():
                        if files is not None:
                            state = os.stat(entry.path)
                            if stat.S_ISREG(state.st_mode):
                                files[prefix + name] = state.st_size
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        self.read(entry.path, files, f"{prefix}{name}/")
                        continue
                    state = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # A dangling link, or a file that has gone in between.
                size = state.st_size
                if files is not None:
                    files[prefix + name] = size
                if name.endswith(PARTIAL_SUFFIXES):
                    self.partial_files += 1
                    self.partial_bytes += size
                if state.st_mtime > self.used:
                    self.used = state.st_mtime
                if state.st_atime > self.used:
                    self.used = state.st_atime
                if state.st_nlink > 1:
                    key = (state.st_dev, state.st_ino)
                    if key in self.shared:
                        continue
                    self.shared[key] = size
                self.size += size
                self.count += 1


def subfolders(folder: str) -> list[os.DirEntry[str]]:
    """Return the real folders in a folder by name; links and temporary folders are left out.

    Old clients left links beside the folders that they point to.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                entry
                for entry in entries
                if not entry.name.startswith(("._", ".lock"))
                and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
    found.sort(key=lambda entry: entry.name)
    return found
