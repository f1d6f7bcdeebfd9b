"""What is known about files without reading them: fingerprints, places, and git's hashes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from swift_jupyter.hub.store.hashing import Fingerprint
from swift_jupyter.hub.store.index import Row, ShardedIndex

# In the place of git's hash: this file is not what it was taken for.
_REVOKED = "-"


class Knowledge:
    """The indexes of a store.

    Parameters
    ----------
    root : Path
        The folder of the store: ``known/`` has a row for every verified file, with its
        SHA-256, fingerprint, place (empty for an object) and git's hash; ``git/`` leads from
        git's hash to the SHA-256.
    """

    def __init__(self, root: Path) -> None:
        self._known = ShardedIndex(root / "known", fields=6)
        self._git = ShardedIndex(root / "git", fields=3)

    def find_git(self, git_sha1: str, size: int | None) -> str | None:
        """Return the SHA-256 of the content with this git blob id, or None."""
        git_sha1 = git_sha1.lower()
        rows = self._git.rows(git_sha1)
        if not rows and self._git.refresh(git_sha1):
            rows = self._git.rows(git_sha1)
        for row in reversed(rows):
            if size is None or row[2] == str(size):
                return row[1]
        return None

    def git_sha1(self, sha256: str) -> str | None:
        """Return git's blob id of the content with this SHA-256, or None."""
        rows = self._known.rows(sha256.lower())
        return next((row[5] for row in reversed(rows) if row[5] not in ("", _REVOKED)), None)

    def note(self, sha256: str, fingerprint: Fingerprint, git_sha1: str | None, place: str) -> None:
        """Remember that a file in this state has this content.

        A disk that cannot be written is no trouble: the file is only read again then.
        """
        git = (git_sha1 or self.git_sha1(sha256) or "").lower()
        row = _row(sha256, fingerprint, place, git)
        if not self._is_last(row):
            append_if_possible(self._known, row)
        if git and not self.find_git(git, fingerprint.size):
            append_if_possible(self._git, (git, sha256, str(fingerprint.size)))

    def revoke(self, sha256: str, fingerprint: Fingerprint, place: str) -> None:
        """Remember that a file in this state has not this content."""
        append_if_possible(self._known, _row(sha256, fingerprint, place, _REVOKED))

    def places(self, sha256: str) -> list[str]:
        """Return where the content lies outside the store, the newest place first."""
        places: dict[str, bool] = {}
        for row in self._known.rows(sha256):
            if row[4]:
                places.pop(row[4], None)
                places[row[4]] = row[5] != _REVOKED
        return [place for place, there in reversed(places.items()) if there]

    def is_known(self, sha256: str, fingerprint: Fingerprint) -> bool:
        """Tell whether a file with this fingerprint was verified to have this content."""
        wanted = tuple(map(str, fingerprint))
        for _attempt in range(2):
            for row in reversed(self._known.rows(sha256)):
                if row[1:4] == wanted:
                    return row[5] != _REVOKED
            if not self._known.refresh(sha256):
                return False
        return False

    def forget_removed(self, object_path: Callable[[str], str]) -> None:
        """Drop what is said about files that are gone or have changed.

        Parameters
        ----------
        object_path : callable
            Returns where the object of a SHA-256 is.
        """

        def is_true(row: Row) -> bool:
            sha256, place = row[0], row[4]
            if row[5] == _REVOKED or (place and place not in self.places(sha256)):
                return False
            try:
                now = Fingerprint.of(os.stat(place or object_path(sha256)))
            except OSError:
                return False
            return row[1:4] == tuple(map(str, now)) and self.is_known(sha256, now)

        self._known.compact(is_true)
        self._git.compact(lambda row: bool(self._known.rows(row[1])))

    def _is_last(self, row: Row) -> bool:
        """Tell whether the newest row about this file says the same."""
        for known in reversed(self._known.rows(row[0])):
            if known[1:5] == row[1:5]:
                return known == row
        return False


class WrittenRefs:
    """Which commit we have let a branch in Hugging Face's cache point to.

    Parameters
    ----------
    folder : Path
        Where this is remembered.
    """

    def __init__(self, folder: Path) -> None:
        self._index = ShardedIndex(folder, fields=2)

    def is_ours(self, key: str, commit: str) -> bool:
        """Tell whether the last that we wrote for the branch of this key is `commit`."""
        self._index.refresh(key)
        rows = self._index.rows(key)
        return bool(rows) and rows[-1][1] == commit

    def note(self, key: str, commit: str) -> None:
        """Remember that we have let a branch point to `commit`."""
        append_if_possible(self._index, (key, commit))


def append_if_possible(index: ShardedIndex, row: Row) -> None:
    """Add a row; on a disk that cannot be written only this process knows it."""
    try:
        index.append([row])
    except OSError:
        return


def _row(sha256: str, fingerprint: Fingerprint, place: str, git: str) -> Row:
    return (sha256, *map(str, fingerprint), place, git)
