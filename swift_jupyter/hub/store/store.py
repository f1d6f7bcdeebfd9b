"""The store: every file once, by its SHA-256, with what is known about it."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.store.hashing import (
    BOTH_HASHES_BELOW,
    Fingerprint,
    Hashes,
    hash_file,
)
from swift_jupyter.hub.store.knowledge import Knowledge, WrittenRefs
from swift_jupyter.hub.store.links import move, told_to_the_user
from swift_jupyter.hub.store.manifests import ManifestKey, Manifests
from swift_jupyter.hub.store.pins import Pins
from swift_jupyter.settings import Settings

_SHA256 = re.compile(r"[0-9a-f]{64}")


def open_store(settings: Settings) -> Store:
    """Return the store of the user's own cache; nothing is created before the first write."""
    return Store(settings.cache_path.absolute() / "store")


class Store:
    """Files of all repositories, each once.

    Parameters
    ----------
    root : Path
        Its folder.

    Attributes
    ----------
    manifest_files : Manifests
        Which files make up which revision.
    pins : Pins
        The repositories that no clean-up may remove.
    refs : WrittenRefs
        The branches in Hugging Face's cache that we have pointed to a commit.

    Notes
    -----
    Below the root: ``objects/sha256/ab/<hash>``; ``known/`` with the fingerprint that
    each file had when it was verified, here or at another place; ``git/`` from git's
    blob id to the SHA-256; ``manifests/``, ``pins/``, ``parts/`` of running transfers, and
    ``quarantine/`` for objects that turned out wrong. Safe with threads and processes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest_files = Manifests(root / "manifests")
        self._objects = f"{root}/objects/sha256"
        self._knowledge = Knowledge(root)
        self.pins = Pins(root / "pins")
        self.refs = WrittenRefs(root / "refs")

    def object_path(self, sha256: str) -> Path:
        """Return where the object of a hash is or would be.

        Raises
        ------
        ValueError
            When `sha256` is no SHA-256.
        """
        return Path(self._object(_checked(sha256)))

    def find(self, sha256: str, size: int | None = None) -> Path | None:
        """Return a file with this content, or None.

        A file whose fingerprint changed since it was verified is read again. An object
        that is wrong is put into quarantine; a wrong file elsewhere is only forgotten.
        """
        sha256 = sha256.lower()
        if not _SHA256.fullmatch(sha256):
            return None
        for path in ("", *self._knowledge.places(sha256)):
            real = path or self._object(sha256)
            try:
                state = os.stat(real)
            except OSError:
                continue
            if size is not None and state.st_size != size and not path:
                self.reject(sha256)
            elif self._knowledge.is_known(sha256, Fingerprint.of(state)) or self._verify(
                sha256, path
            ):
                return Path(real)
        return None

    def find_git(self, git_sha1: str, size: int | None = None) -> str | None:
        """Return the SHA-256 of the content with this git blob id, if it is known."""
        return self._knowledge.find_git(git_sha1, size)

    def git_sha1(self, sha256: str) -> str | None:
        """Return git's blob id of the content with this SHA-256, if it is known."""
        return self._knowledge.git_sha1(sha256)

    def add(self, part: Path, sha256: str, git_sha1: str | None = None) -> Path:
        """Move a verified file in, and return its new path.

        Parameters
        ----------
        part : Path
            The file. It is gone afterwards, also when the object was there already.
        sha256, git_sha1 : str
            Its hashes, which the caller has just computed.

        Raises
        ------
        UserError
            When the disk is full or cannot be written; `part` is still there.
        """
        sha256 = _checked(sha256)
        target = self._object(sha256)
        source = os.fspath(part)
        with told_to_the_user(self.root):
            try:
                known = self._knowledge.is_known(sha256, Fingerprint.of(os.stat(target)))
            except OSError:
                known = False
            if known and os.path.exists(source):
                if source != target:
                    os.unlink(source)
            else:
                self._make_room(target)
                move(source, target)
            self.note(sha256, Fingerprint.of(os.stat(target)), git_sha1)
        return Path(target)

    def parts(self) -> Path:
        """Return the folder of unfinished transfers, which is made.

        Raises
        ------
        UserError
            When it cannot be made.
        """
        folder = self.root / "parts"
        with told_to_the_user(self.root):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def adopt(
        self,
        path: Path,
        expected: RemoteFile,
        progress: Callable[[int], None] = lambda count: None,
    ) -> bool:
        """Take in a file of some cache, without copying it, if it is what `expected` says.

        Parameters
        ----------
        path : Path
            The file; links are followed.
        expected : RemoteFile
            Its size and hashes. Without a hash nothing is taken in.
        progress : callable, optional
            Told the number of bytes just read. It may raise to stop.

        Returns
        -------
        bool
            Whether the store has the content now.

        Notes
        -----
        It is read, unless its fingerprint is that of a verified file. On another file
        system it stays where it is, and the store remembers the place.
        """
        real = os.path.realpath(path)
        try:
            fingerprint = Fingerprint.of(os.stat(real))
        except OSError:
            return False
        if not (expected.sha256 or expected.git_sha1) or (
            expected.size is not None and expected.size != fingerprint.size
        ):
            return False
        sha256 = expected.sha256 or self.find_git(expected.git_sha1 or "", expected.size)
        hashes = None
        if sha256 and _SHA256.fullmatch(sha256.lower()):
            sha256 = sha256.lower()
            if self._knowledge.is_known(sha256, fingerprint):
                hashes = Hashes(sha256, expected.git_sha1 or self.git_sha1(sha256))
        if hashes is None:
            wants_git = not expected.sha256 or fingerprint.size < BOTH_HASHES_BELOW
            try:
                hashes, fingerprint = hash_file(real, wants_git, progress)
            except OSError:
                return False
            right = (
                hashes.sha256 == expected.sha256.lower()
                if expected.sha256
                else hashes.git_sha1 == (expected.git_sha1 or "").lower()
            )
            if not right:
                return False
        self._link_in(real, hashes, fingerprint)
        return True

    def note(
        self,
        sha256: str,
        fingerprint: Fingerprint,
        git_sha1: str | None = None,
        place: str | Path = "",
    ) -> None:
        """Remember that a file was verified: an object, or a file at another place.

        A disk that cannot be written is no trouble: the file is only read again then.
        """
        self._knowledge.note(_checked(sha256), fingerprint, git_sha1, os.fspath(place))

    def is_verified(self, sha256: str, state: os.stat_result) -> bool:
        """Tell whether a file in this state was verified to have this hash, by stat alone."""
        return self._knowledge.is_known(sha256.lower(), Fingerprint.of(state))

    def reject(self, sha256: str, path: Path | None = None) -> None:
        """Forget a file that turned out wrong: the object, which goes into quarantine, or a place.

        Parameters
        ----------
        sha256 : str
            The hash that it should have.
        path : Path, optional
            The wrong file, when it is not the object; it is left as it is.
        """
        sha256 = _checked(sha256)
        wrong = path or Path(self._object(sha256))
        try:
            fingerprint = Fingerprint.of(wrong.stat())
        except OSError:
            fingerprint = Fingerprint(0, 0, 0)
        self._knowledge.revoke(sha256, fingerprint, os.fspath(path or ""))
        if path is None:
            self.set_aside(wrong)

    def set_aside(self, path: Path) -> Path | None:
        """Move a file that is in the way into quarantine; None when that is impossible."""
        target = f"{self.root}/quarantine/{path.name[:80]}.{secrets.token_hex(6)}"
        try:
            self._make_room(target)
            os.replace(path, target)
        except OSError:
            return None
        return Path(target)

    def write_manifest(self, listing: RepoListing, held: bool = False, point: bool = True) -> None:
        """Store which files make up a revision, with the hashes that pulling them has taught.

        Parameters
        ----------
        listing : RepoListing
            The hub's listing.
        held : bool
            Whether the files stay without a snapshot in a cache, as at a mirror node.
        point : bool
            Whether the revision's name points to it now; at the start of a pull it should
            not, since the files are not there yet.

        Raises
        ------
        UserError
            When it cannot be written.
        """
        with told_to_the_user(self.root):
            self.manifest_files.write(self._completed(listing), held, point)

    def read_manifest(
        self, hub: Hub | None, kind: RepoKind, repo_id: str, revision: str | None = None
    ) -> RepoListing | None:
        """Return the listing of a branch, tag or commit, with every hash that is known by now.

        Parameters
        ----------
        hub : {"modelscope", "huggingface"} or None
            The hub; None takes ModelScope's, else Hugging Face's.
        kind, repo_id : str
            The repository.
        revision : str, optional
            ``main``, ``master``, ``default``, ``latest`` and None mean the default branch.
        """
        listing = self.manifest_files.read(hub, kind, repo_id, revision)
        return listing and self._completed(listing)

    def manifests(self) -> Iterator[RepoListing]:
        """Yield every readable manifest."""
        for key in self.manifest_files.all_keys():
            listing = self.manifest_files.read_key(key)
            if listing is not None:
                yield listing

    def revisions(self, hub: Hub, kind: RepoKind, repo_id: str) -> dict[str, str]:
        """Return commit by name for every branch and tag; the default branch is ``main``."""
        return self.manifest_files.revisions(hub, kind, repo_id)

    def set_held(self, key: ManifestKey, held: bool) -> None:
        """Say whether a manifest's files stay without a snapshot, as at a mirror node."""
        with told_to_the_user(self.root):
            self.manifest_files.set_held(key, held)

    def resolve(self, file: RemoteFile) -> Path | None:
        """Return a file with the content that a listing names, or None."""
        sha256 = file.sha256 or (file.git_sha1 and self.find_git(file.git_sha1, file.size))
        return self.find(sha256, file.size) if sha256 else None

    def part_state(self, file: RemoteFile) -> os.stat_result | None:
        """Return the state of what an unfinished transfer has left of a file, or None."""
        for key in (f"sha256-{file.sha256}", f"git-{file.git_sha1}"):
            try:
                return os.stat(f"{self.root}/parts/{key}.part")
            except (OSError, ValueError):
                continue
        return None

    def objects(self) -> Iterator[os.DirEntry[str]]:
        """Yield the entry of every object; its name is the hash."""
        try:
            shards = list(os.scandir(self._objects))
        except OSError:
            return
        for shard in shards:
            if len(shard.name) == 2:
                with os.scandir(shard.path) as entries:
                    yield from (entry for entry in entries if _SHA256.fullmatch(entry.name))

    def forget_removed(self) -> None:
        """Drop what the indexes say about files that are gone."""
        with told_to_the_user(self.root):
            self._knowledge.forget_removed(self._object)

    def _object(self, sha256: str) -> str:
        return f"{self._objects}/{sha256[:2]}/{sha256}"

    def _completed(self, listing: RepoListing) -> RepoListing:
        files = tuple(self._complete(file) for file in listing.files)
        return listing if files == listing.files else replace(listing, files=files)

    def _complete(self, file: RemoteFile) -> RemoteFile:
        if file.sha256 is None and file.git_sha1 is not None:
            found = self.find_git(file.git_sha1, file.size)
            return replace(file, sha256=found) if found else file
        if file.git_sha1 is None and file.sha256 is not None:
            found = self.git_sha1(file.sha256)
            return replace(file, git_sha1=found) if found else file
        return file

    def _verify(self, sha256: str, place: str) -> bool:
        """Read a file anew: remember it when it is right, else forget it."""
        real = place or self._object(sha256)
        try:
            size = os.stat(real).st_size
            hashes, fingerprint = hash_file(real, size < BOTH_HASHES_BELOW)
        except OSError:
            return False
        if hashes.sha256 == sha256:
            self.note(sha256, fingerprint, hashes.git_sha1, place)
            return True
        self.reject(sha256, Path(place) if place else None)
        return False

    def _link_in(self, real: str, hashes: Hashes, fingerprint: Fingerprint) -> None:
        target = self._object(hashes.sha256)
        if self.find(hashes.sha256, fingerprint.size) is None or not os.path.exists(target):
            try:
                self._make_room(target)
                os.link(real, target)
            except FileExistsError:
                pass
            except OSError:
                # Another file system, or one that has no hard links.
                self.note(hashes.sha256, fingerprint, hashes.git_sha1, real)
                return
            if Fingerprint.of(os.stat(target)) != fingerprint:
                self.find(hashes.sha256, fingerprint.size)  # Changed in between: judged anew.
                return
            self.note(hashes.sha256, fingerprint, hashes.git_sha1)
        else:
            self.note(hashes.sha256, fingerprint, hashes.git_sha1, real)

    def _make_room(self, target: str) -> None:
        folder = os.path.dirname(target)
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)


def _checked(sha256: str) -> str:
    sha256 = sha256.lower()
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"no SHA-256: {sha256!r}")
    return sha256
