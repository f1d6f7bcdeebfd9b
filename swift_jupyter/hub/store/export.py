"""Showing stored files to other programs: in the caches of both hubs' clients, or in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.files import write_text_atomically
from swift_jupyter.hub.cache.layouts import (
    DEFAULT_BRANCHES,
    HUGGINGFACE_BRANCH,
    MODELSCOPE_BRANCH,
    huggingface_repo_folder,
    legacy_modelscope_folder,
    modelscope_repo_folder,
)
from swift_jupyter.hub.listing import RemoteFile, RepoListing, check_path
from swift_jupyter.hub.reference import is_repo_id, is_revision
from swift_jupyter.hub.store.hashing import BOTH_HASHES_BELOW, hash_file
from swift_jupyter.hub.store.links import told_to_the_user
from swift_jupyter.hub.store.placing import (
    Notice,
    Ours,
    Placement,
    nothing_is_ours,
    say_nothing,
)
from swift_jupyter.hub.store.store import Store
from swift_jupyter.i18n import translate as _

# People edit small files, such as a configuration. In a folder of theirs each is a copy
# of its own, so that an edit does not reach the caches, which would take it for damage.
_COPIED_BELOW = 1 << 20
_SHOWN = 3


def export_huggingface(
    store: Store,
    listing: RepoListing,
    files: Iterable[RemoteFile],
    cache: Path,
    repo_id: str,
    *,
    notice: Notice = say_nothing,
    ours: Ours = nothing_is_ours,
) -> Path:
    """Show files in Hugging Face's cache as its own client would have put them there.

    Parameters
    ----------
    store : Store
        Has every one of `files`.
    listing : RepoListing
        The revision that they belong to.
    files : iterable of RemoteFile
        What is to be there.
    cache : Path
        The folder that holds the ``models--…`` folders.
    repo_id : str
        The id at Hugging Face, which may differ from the listing's.
    notice : callable, optional
        Told what had to be replaced.
    ours : callable, optional
        Tells which existing files may be replaced without a word.

    Returns
    -------
    Path
        The folder of the snapshot.

    Raises
    ------
    UserError
        When the disk is full or cannot be written.

    Notes
    -----
    The blobs have the names that the client gives them, so that it takes them for its
    own. A branch that it has pointed to another commit is left alone.
    """
    repo = huggingface_repo_folder(cache, _checked(repo_id), listing.kind)
    placement = Placement(store, repo, notice, ours)
    commit = check_path(listing.commit)
    with told_to_the_user(cache, _another("HF_HUB_CACHE")):
        for file in files:
            check_path(file.path)
            sha256 = _sha256(store, file)
            etag = _etag(store, file, sha256, placement)
            placement.place(file, f"blobs/{etag}", sha256)
            path = f"snapshots/{commit}/{file.path}"
            up = "../" * (file.path.count("/") + 2)
            if not placement.link(path, f"{up}blobs/{etag}"):
                placement.place(file, path, sha256)
        _write_ref(store, placement, listing)
    return repo / "snapshots" / commit


def export_modelscope(
    store: Store,
    listing: RepoListing,
    files: Iterable[RemoteFile],
    cache: Path,
    repo_id: str,
    *,
    notice: Notice = say_nothing,
    ours: Ours = nothing_is_ours,
) -> Path:
    """Show files in ModelScope's cache as its own client would have put them there.

    Parameters, result and errors are those of `export_huggingface`, with the cache's
    root and the id at ModelScope.

    Notes
    -----
    A folder that an older client left wins over the present layout, since the client
    looks there first; so it is completed in place.
    """
    folder = modelscope_target(cache, listing, _checked(repo_id))
    placement = Placement(store, folder, notice, ours)
    with told_to_the_user(cache, _another("MODELSCOPE_CACHE")):
        placement.target("x")
        for file in files:
            placement.place(file, file.path, _sha256(store, file))
    return folder


def modelscope_target(cache: Path, listing: RepoListing, repo_id: str) -> Path:
    """Return the folder in which ModelScope's client looks for a revision."""
    if _is_default(listing):
        legacy = legacy_modelscope_folder(cache, repo_id, listing.kind)
        if legacy is not None:
            return legacy
        branch = MODELSCOPE_BRANCH
    else:
        branch = listing.revision
    if not is_revision(branch):
        raise ValueError(f"no revision: {branch!r}")
    return modelscope_repo_folder(cache, repo_id, listing.kind) / "snapshots" / branch


def export_folder(
    store: Store,
    listing: RepoListing,
    files: Sequence[RemoteFile],
    folder: Path,
    *,
    replace: bool = False,
    notice: Notice = say_nothing,
    ours: Ours = nothing_is_ours,
) -> Path:
    """Put files into a folder of the user's.

    Parameters
    ----------
    store, listing, files, notice, ours
        As for `export_huggingface`.
    folder : Path
        The folder, made if it is not there.
    replace : bool, optional
        Whether other files under the same names may be replaced.

    Raises
    ------
    UserError
        When another file is in the way, before anything is written; or when the disk is
        full or cannot be written.

    Notes
    -----
    Small files are copies of their own, which may be edited. Large ones share their
    blocks with the store where the file system can.
    """
    placement = Placement(store, folder, notice, ours)
    with told_to_the_user(folder, _("Choose another --local_dir.")):
        in_the_way = [] if replace else _in_the_way(placement, files)
        if in_the_way:
            names = ", ".join(in_the_way[:_SHOWN]) + (" …" if len(in_the_way) > _SHOWN else "")
            raise UserError(
                _(
                    "{folder} has other files under these names: {names}",
                    folder=folder,
                    names=names,
                ),
                _("They are not what {repo_id} has, and may be yours.", repo_id=listing.repo_id),
                _("Move them away or choose another --local_dir."),
            )
        for file in files:
            small = file.size is None or file.size < _COPIED_BELOW
            placement.place(file, file.path, _sha256(store, file), copy=small)
    return folder


def _another(variable: str) -> str:
    return _("Set {variable} to another folder, or give --local_dir.", variable=variable)


def _in_the_way(placement: Placement, files: Iterable[RemoteFile]) -> list[str]:
    found = []
    for file in files:
        target = f"{placement.root}/{check_path(file.path)}"
        try:
            state = os.lstat(target)
        except OSError:
            continue
        source, sha256 = placement.source(file), _sha256(placement.store, file)
        right = placement.is_right(target, source, sha256)
        if not right and placement.is_in_the_way(file.path, state):
            found.append(file.path)
    return found


def _sha256(store: Store, file: RemoteFile) -> str:
    known = file.sha256 or store.find_git(file.git_sha1 or "", file.size)
    if not known:
        raise UserError(
            _("{file} vanished from the store.", file=file.path),
            next_step=_("Type the same command again: it fetches only what is missing."),
        )
    return known.lower()


def _etag(store: Store, file: RemoteFile, sha256: str, placement: Placement) -> str:
    """Return the name that Hugging Face's client gives to the blob of a file."""
    if file.lfs:
        return sha256
    known = file.git_sha1 or store.git_sha1(sha256)
    if known is None and (file.size or 0) < BOTH_HASHES_BELOW:
        hashes, fingerprint = hash_file(placement.source(file), git=True)
        if hashes.sha256 == sha256:
            store.note(sha256, fingerprint, hashes.git_sha1)
            known = hashes.git_sha1
    return (known or sha256).lower()


def _write_ref(store: Store, placement: Placement, listing: RepoListing) -> None:
    """Point the branch or tag to the commit, unless the client points it to another one."""
    if listing.revision == listing.commit or not is_revision(listing.revision):
        return
    name = HUGGINGFACE_BRANCH if _is_default(listing) else listing.revision
    target = placement.target(f"refs/{name}")
    key = hashlib.sha256(os.fsencode(target)).hexdigest()
    try:
        with open(target, encoding="utf-8") as stream:
            there = stream.read().strip()
    except (OSError, ValueError):
        there = ""
    if there and (there == listing.commit or not store.refs.is_ours(key, there)):
        return
    write_text_atomically(Path(target), listing.commit)
    store.refs.note(key, listing.commit)


def _is_default(listing: RepoListing) -> bool:
    return listing.revision in DEFAULT_BRANCHES


def _checked(repo_id: str) -> str:
    if not is_repo_id(repo_id):
        raise ValueError(f"no repository: {repo_id!r}")
    return repo_id
