"""Repositories that no clean-up may remove."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

from swift_jupyter.hub.store.links import told_to_the_user


class Pins:
    """The pins below one folder: an empty file each, so that programs need not agree on one.

    Parameters
    ----------
    folder : Path
        Holds ``<kind>s/<name>``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def pin(self, kind: str, repo_id: str) -> None:
        """Pin a repository.

        Raises
        ------
        UserError
            When that cannot be stored.
        """
        path = self._path(kind, repo_id)
        with told_to_the_user(self._folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def unpin(self, kind: str, repo_id: str) -> None:
        """Remove the pin of a repository; without one nothing happens.

        Raises
        ------
        UserError
            When it cannot be removed.
        """
        with told_to_the_user(self._folder):
            self._path(kind, repo_id).unlink(missing_ok=True)

    def all(self) -> frozenset[tuple[str, str]]:
        """Return kind and id, in lower case, of every pinned repository."""
        found: set[tuple[str, str]] = set()
        for kind in ("model", "dataset"):
            try:
                names = os.listdir(self._folder / f"{kind}s")
            except OSError:
                continue
            found.update((kind, unquote(name)) for name in names)
        return frozenset(found)

    def _path(self, kind: str, repo_id: str) -> Path:
        # Hubs do not tell capitals apart, and neither do some file systems.
        name = quote(repo_id.lower(), safe="")
        return self._folder / f"{kind}s" / (name if name.strip(".") else f"%2E{name[1:]}")
