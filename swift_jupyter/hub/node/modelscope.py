"""What ModelScope's clients ask, answered from a shelf."""

from __future__ import annotations

import time
from typing import Any

from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.node.addresses import Target
from swift_jupyter.hub.node.library import Shelf

_MOST_ON_A_PAGE = 10_000
_NOT_FOUND = 10010205001
_GENERAL = 4  # What ModelScope calls a data set without a loading script.
_MODE = "33188"


def envelope(data: Any, **more: Any) -> dict[str, Any]:
    """Return an answer in ModelScope's form."""
    return {"Code": 200, "Data": data, "Message": "success", "Success": True, **more}


def refusal(status: int, problem: str) -> dict[str, Any]:
    """Return an error in ModelScope's form."""
    code = _NOT_FOUND if status == 404 else status
    return {"Code": code, "Data": None, "Message": problem, "Success": False}


def files(shelf: Shelf, target: Target) -> dict[str, Any]:
    """Return the entries of a listing: of all files, or of one folder.

    A data set's listing comes in pages, since its client asks until one is not full.
    """
    recursive = target.query.get("Recursive", "").lower() in ("true", "1")
    found = shelf.below(target.path, recursive)
    if target.kind == "model" and "PageNumber" not in target.query:
        entries = [_entry(path, shelf) for path in found]
        return envelope({"Files": entries}, TotalCount=len(found))
    size = min(max(1, _number(target.query.get("PageSize"), 200)), _MOST_ON_A_PAGE)
    page = max(1, _number(target.query.get("PageNumber"), 1))
    shown = [_entry(path, shelf) for path in found[(page - 1) * size : page * size]]
    return envelope({"Files": shown}, TotalCount=len(found), PageNumber=page, PageSize=size)


def info(shelf: Shelf, repo_id: str, number: int) -> dict[str, Any]:
    """Return what there is to say about a repository."""
    owner, _slash, name = repo_id.partition("/")
    size = sum(file.size or 0 for file in shelf.files.values())
    data = {
        "Id": number,
        "Path": owner,
        "Name": name,
        "Namespace": owner,
        "Type": _GENERAL,
        "Revision": "master",
        "Visibility": 5,
        "StorageSize": size,
    }
    return envelope(data)


def revisions(names: dict[str, str]) -> dict[str, Any]:
    """Return the branches in the form of the endpoint of the same name."""
    now = int(time.time())
    known = ["master", *sorted(name for name in names if name != "main")]
    entries = [{"Revision": name, "CreatedAt": now} for name in known]
    return envelope({"RevisionMap": {"Branches": entries, "Tags": []}})


def region() -> dict[str, Any]:
    """Answer the question for an address inside the hub's own cloud: there is none."""
    return envelope({"InternalRegionQueryAddress": ""})


def etag(file: RemoteFile, shelf: Shelf) -> str:
    """Return the tag of a file: its SHA-256 where that is known."""
    return file.sha256 or file.git_sha1 or f"{shelf.commit}-{file.size}"


def byte_headers(file: RemoteFile) -> dict[str, str]:
    """Return what this protocol adds to the bytes of a file."""
    return {"X-Linked-ETag": f'"{file.sha256}"'} if file.sha256 else {}


def _entry(path: str, shelf: Shelf) -> dict[str, Any]:
    item = shelf.files.get(path)
    if item is None:
        # MsDataset reads the hash of folders, too.
        return {
            "Path": path,
            "Name": path.rpartition("/")[2],
            "Type": "tree",
            "Size": 0,
            "Sha256": "",
            "Revision": shelf.commit,
            "Mode": "16384",
        }
    return {
        "Path": item.path,
        "Name": item.path.rpartition("/")[2],
        "Type": "blob",
        "Size": item.size or 0,
        "Sha256": item.sha256 or "",
        "IsLFS": item.lfs,
        "Revision": shelf.commit,
        "Mode": _MODE,
    }


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else default
