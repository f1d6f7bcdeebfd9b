"""What Hugging Face's clients ask, answered from a shelf.

Nothing here names a chunk hash (xet): a client that sees one asks for chunks, which
only the hub itself has.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from typing import Any

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.node.library import Missing, Shelf

ERROR_CODES: dict[Missing, str] = {
    "repo": "RepoNotFound",
    "revision": "RevisionNotFound",
    "file": "EntryNotFound",
    "denied": "GatedRepo",
}


def info(shelf: Shelf, repo_id: str, with_sizes: bool) -> dict[str, Any]:
    """Return what there is to say about one revision."""
    siblings = []
    for file in shelf.files.values():
        entry: dict[str, Any] = {"rfilename": file.path}
        if with_sizes:
            entry.update(size=file.size, blobId=_oid(file, shelf), **_lfs(file, "sha256"))
        siblings.append(entry)
    return {
        "_id": hashlib.sha256(repo_id.encode()).hexdigest()[:24],
        "id": repo_id,
        ("modelId" if shelf.listing.kind == "model" else "datasetId"): repo_id,
        "author": repo_id.partition("/")[0],
        "sha": shelf.commit,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": siblings,
    }


def tree(shelf: Shelf, folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Return the entries of a folder.

    Raises
    ------
    NotHere
        When there is no such folder.
    """
    return [_entry(path, shelf) for path in shelf.below(folder, recursive)]


def paths_info(shelf: Shelf, paths: Iterable[str]) -> list[dict[str, Any]]:
    """Return the entries of those `paths` that exist; unknown ones are left out."""
    there = set(shelf.below("", True))
    wanted = dict.fromkeys(path.strip("/") for path in paths)
    return [_entry(path, shelf) for path in wanted if path in there]


def refs(shelf: Shelf, names: dict[str, str]) -> dict[str, Any]:
    """Return the branches; the default one is always there."""
    known = {"main": shelf.commit, **names}
    branches = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
        for name, commit in sorted(known.items())
    ]
    return {"branches": branches, "tags": [], "converts": []}


def etag(file: RemoteFile, shelf: Shelf) -> str:
    """Return the tag of a file: what the hub's cache calls the content.

    That is the SHA-256, or git's blob id for files inside git.
    """
    if file.lfs and file.sha256:
        return file.sha256
    return file.git_sha1 or file.sha256 or _oid(file, shelf)


def byte_headers(file: RemoteFile, shelf: Shelf) -> dict[str, str]:
    """Return what this protocol adds to the bytes of a file."""
    headers = {"X-Repo-Commit": shelf.commit, "X-Linked-ETag": f'"{etag(file, shelf)}"'}
    if file.size is not None:
        headers["X-Linked-Size"] = str(file.size)
    return headers


def refusal(missing: Missing | None, reason: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the body and the headers of an error."""
    headers = {"X-Error-Message": reason}
    if missing in ERROR_CODES:
        headers["X-Error-Code"] = ERROR_CODES[missing]
    return {"error": reason}, headers


def _entry(path: str, shelf: Shelf) -> dict[str, Any]:
    item = shelf.files.get(path)
    if item is None:
        text = f"{shelf.commit} {path}".encode(errors="replace")
        oid = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        return {"type": "directory", "oid": oid, "size": 0, "path": path}
    entry = {
        "type": "file",
        "oid": _oid(item, shelf),
        "size": item.size or 0,
        "path": item.path,
    }
    return {**entry, **_lfs(item, "oid")}


def _lfs(file: RemoteFile, hash_name: str) -> dict[str, Any]:
    if not file.sha256 or (file.git_sha1 and not file.lfs):
        return {}
    pointer = _pointer(file.sha256, file.size or 0)
    size = {hash_name: file.sha256, "size": file.size or 0, "pointerSize": len(pointer)}
    return {"lfs": size}


def _oid(file: RemoteFile, shelf: Shelf) -> str:
    """Return git's blob id: of the content, or of the pointer that git has in its place."""
    if file.git_sha1 and not file.lfs:
        return file.git_sha1
    if file.sha256:
        return _pointer_id(file.sha256, file.size or 0)
    text = f"{shelf.commit} {file.path}".encode(errors="replace")
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    """Return the file that stands in git for a large one (Git LFS specification)."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


@functools.lru_cache(maxsize=4096)
def _pointer_id(sha256: str, size: int) -> str:
    pointer = _pointer(sha256, size)
    blob = b"blob %d\0" % len(pointer) + pointer
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest()
