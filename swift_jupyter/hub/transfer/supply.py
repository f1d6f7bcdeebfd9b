"""Which origins can give which of the wanted files."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from swift_jupyter.hub.listing import RemoteFile

CANNOT, EQUAL, WHOLE = 0, 1, 2


class OriginLike(Protocol):
    """What is asked of an origin; see `swift_jupyter.hub.api.base.Origin`."""

    @property
    def name(self) -> str:
        """The name for people."""

    @property
    def endpoint(self) -> str:
        """Its key for health."""

    @property
    def hub(self) -> str:
        """Whose protocol it speaks."""

    @property
    def is_node(self) -> bool:
        """Whether it is a mirror node of our own."""

    def request(self, path: str) -> tuple[str, dict[str, str]]:
        """Return the address and the headers for the bytes of `path`."""


@dataclass(frozen=True)
class Conflict:
    """A file that an origin lists with other content than the one that is wanted.

    Parameters
    ----------
    path : str
        The path in the repository.
    origin : str
        The name of the origin.
    expected, found : str
        The hash or the size, with its sort.
    """

    path: str
    origin: str
    expected: str
    found: str


class Supply:
    """The origins of one transfer. Threads may add some while it runs.

    Parameters
    ----------
    wanted : sequence of RemoteFile
        The files, as the first listing has them.
    """

    def __init__(self, wanted: Sequence[RemoteFile]) -> None:
        self.wanted = wanted
        self._index = {file.path: number for number, file in enumerate(wanted)}
        self._lock = threading.Lock()
        self._origins: list[tuple[OriginLike, bytearray]] = []
        self._closed = False

    def add(self, origin: OriginLike, listing: Sequence[RemoteFile]) -> list[Conflict]:
        """Let `origin` give what its `listing` has in common with what is wanted.

        Parameters
        ----------
        origin : Origin
            The place.
        listing : sequence of RemoteFile
            What it has. The same hash makes it interchangeable with the
            others, even inside one file. Without a common hash but with the
            same size, it may give whole files, which are judged by the hash
            that is wanted.

        Returns
        -------
        list of Conflict
            The files with other content; they are never taken from it.
        """
        first_hub = self._origins[0][0].hub if self._origins else origin.hub
        offers = bytearray(len(self.wanted))
        conflicts: list[Conflict] = []
        for offered in listing:
            number = self._index.get(offered.path)
            if number is None:
                continue
            wanted = self.wanted[number]
            difference = _difference(wanted, offered)
            if difference is not None:
                conflicts.append(Conflict(wanted.path, origin.name, *difference))
            elif _same_hash(wanted, offered):
                offers[number] = EQUAL
            elif wanted.sha256 or wanted.git_sha1:
                offers[number] = WHOLE
            elif origin.hub == first_hub:
                # Nothing could tell a wrong file, so only the same hub is believed.
                offers[number] = EQUAL if not self._origins else WHOLE
        with self._lock:
            self._origins.append((origin, offers))
        return conflicts

    def close(self) -> None:
        """Say that no more origins will come."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether no more origins will come."""
        return self._closed

    def origins(self, known: int = 0) -> list[tuple[OriginLike, bytearray]]:
        """Return the origins after the first `known`, each with what it offers.

        The offer has one of CANNOT, EQUAL and WHOLE for each wanted file.
        """
        with self._lock:
            return self._origins[known:]


def _difference(wanted: RemoteFile, offered: RemoteFile) -> tuple[str, str] | None:
    pairs = (
        ("sha256", wanted.sha256, offered.sha256),
        ("git sha1", wanted.git_sha1, offered.git_sha1),
    )
    for sort, expected, found in pairs:
        if expected and found and expected.lower() != found.lower():
            return f"{sort} {expected}", f"{sort} {found}"
    if wanted.size is not None and offered.size is not None and wanted.size != offered.size:
        return f"{wanted.size} bytes", f"{offered.size} bytes"
    return None


def _same_hash(wanted: RemoteFile, offered: RemoteFile) -> bool:
    return any(
        expected is not None and found is not None and expected.lower() == found.lower()
        for expected, found in (
            (wanted.sha256, offered.sha256),
            (wanted.git_sha1, offered.git_sha1),
        )
    )
