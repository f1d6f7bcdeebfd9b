"""Smaller parts of the node: listings of folders, the page, piece hashes, lists, intervals."""

from __future__ import annotations

import hashlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.node import huggingface, modelscope
from swift_jupyter.hub.node.addresses import Target
from swift_jupyter.hub.node.library import NotHere, Shelf
from swift_jupyter.hub.node.pieces import PIECE_SIZE, piece_hashes
from swift_jupyter.hub.node.status_page import status_page
from swift_jupyter.hub.node.sync import parse_interval, read_list
from swift_jupyter.hub.node.upstream import RepoNames

segments = st.sampled_from(["a", "b", "c.txt", "d"])
path_sets = st.sets(st.lists(segments, min_size=1, max_size=4).map("/".join), max_size=12)


def shelf_of(*files: RemoteFile) -> Shelf:
    listing = RepoListing("modelscope", "lab/x", "model", "master", "1" * 40, files)
    return Shelf(
        RepoNames("model", "modelscope", "lab/x", "lab/x"),
        listing,
        {file.path: file for file in files},
    )


@given(path_sets)
def test_walking_folder_by_folder_finds_what_the_whole_listing_has(paths: set[str]) -> None:
    # Given paths none of which is a folder of another
    kept = {p for p in paths if not any(other.startswith(f"{p}/") for other in paths)}
    shelf = shelf_of(*(RemoteFile(path, 1, "0" * 64) for path in kept))
    # When a client walks by Root, as it does when a listing is cut
    found: set[str] = set()
    waiting = [""]
    while waiting:
        root = waiting.pop()
        target = Target("files", path=root, query={"Recursive": "False"})
        for entry in modelscope.files(shelf, target)["Data"]["Files"]:
            assert entry["Path"].rpartition("/")[0] == root
            (waiting.append if entry["Type"] == "tree" else found.add)(entry["Path"])
    # Then it finds the same files, and the whole listing has them and their folders
    assert found == kept
    whole = modelscope.files(shelf, Target("files", query={"Recursive": "True"}))["Data"]["Files"]
    assert {entry["Path"] for entry in whole if entry["Type"] == "blob"} == kept
    assert len({entry["Path"] for entry in whole}) == len(whole)


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 400])
def test_pages_end(count: int) -> None:
    shelf = shelf_of(*(RemoteFile(f"f{n:04}", 1, "0" * 64) for n in range(count)))
    names: list[str] = []
    for page in range(1, 10):
        query = {"Recursive": "True", "PageNumber": str(page), "PageSize": "200"}
        target = Target("files", kind="dataset", query=query)
        entries = modelscope.files(shelf, target)["Data"]["Files"]
        names += [entry["Path"] for entry in entries]
        if len(entries) < 200:
            break
    assert names == [f"f{n:04}" for n in range(count)]


def test_an_unknown_folder_is_not_there() -> None:
    with pytest.raises(NotHere):
        huggingface.tree(shelf_of(RemoteFile("a", 1)), "nope", True)


def test_a_large_file_has_the_id_of_its_pointer() -> None:
    # Given git's blob id of the pointer that Git LFS writes for this content
    content = b"hello"
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 5\n"
    ).encode()
    blob = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
    # When the file is listed
    shelf = shelf_of(RemoteFile("w.bin", 5, sha256, lfs=True))
    (entry,) = huggingface.tree(shelf, "", True)
    # Then it is that id, and nothing names a chunk hash
    assert entry["oid"] == blob
    assert entry["lfs"] == {"oid": sha256, "size": 5, "pointerSize": len(pointer)}
    assert "xet" not in repr(entry).lower()


def test_small_files_have_gits_own_id() -> None:
    file = RemoteFile("c.json", 2, "a" * 64, "b" * 40)
    shelf = shelf_of(file)
    assert huggingface.etag(file, shelf) == "b" * 40
    assert huggingface.tree(shelf, "", True)[0]["oid"] == "b" * 40
    assert "lfs" not in huggingface.tree(shelf, "", True)[0]
    assert modelscope.etag(file, shelf) == "a" * 64


@pytest.mark.parametrize("size", [0, 1, PIECE_SIZE, PIECE_SIZE + 1])
def test_piece_hashes(tmp_path: Path, size: int) -> None:
    content = b"x" * size
    path, kept = tmp_path / "object", tmp_path / "kept"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    expected = [
        hashlib.sha256(content[start : start + PIECE_SIZE]).hexdigest()
        for start in range(0, size, PIECE_SIZE)
    ]
    assert piece_hashes(path, sha256, kept) == expected
    # When asked again, then nothing is read
    assert piece_hashes(path, sha256, kept, pytest.fail) == expected
    # And a damaged object gives none
    if size:
        path.write_bytes(b"y" + content[1:])
        assert piece_hashes(path, sha256, tmp_path / "other") is None


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def status(evil: str) -> dict[str, Any]:
    holding = {
        "hub": "modelscope",
        "kind": "model",
        "repo_id": evil,
        "paired_id": evil,
        "revisions": {evil: "1" * 40},
        "commits": 2,
        "files": 2,
        "files_held": 1,
        "bytes_total": 10,
        "bytes_held": 5,
        "last_sync": 0.0,
        "complete": False,
    }
    counts = ("requests", "hits", "fills", "bytes_served", "bytes_fetched", "bytes_saved", "errors")
    return {
        **dict.fromkeys(counts, 1),
        "version": "1",
        "root": evil,
        "on_demand": True,
        "asks_token": True,
        "upstream": [evil],
        "bytes_held": 5,
        "bytes_free": 5,
        "started": 0.0,
        "held": [holding],
        "filling": [{"path": evil, "done": 1, "total": None, "source": evil}],
        "active": [{"client": evil, "repo_id": evil, "path": evil, "total": 2, "sent": 1}],
        "clients": [
            {"address": evil, "program": evil, "requests": 1, "bytes": 1, "last_seen": 0.0}
        ],
    }


def test_the_page_escapes_what_is_foreign_and_loads_nothing() -> None:
    evil = "\"><script>alert(1)</script><img src=x onerror='y'>&"
    page = status_page(status(evil), f"http://{evil}")
    tags = _Tags()
    tags.feed(page)
    assert evil not in page
    for tag, attributes in tags.found:
        assert tag not in ("script", "img", "link", "iframe", "object")
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
    assert "url(" not in page and "@import" not in page


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1.5h", 5400), ("1d", 86400)]
)
def test_intervals(text: str, seconds: float) -> None:
    assert parse_interval(text, "--every", 10) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1w", "-1h", "5s", "0"])
def test_wrong_intervals(text: str) -> None:
    with pytest.raises(OptionError, match=r"--every|length of time"):
        parse_interval(text, "--every", 10)


def test_lists(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("# ours\nlab/a\n dataset: lab/b@v1 # rows\n\nmodel:lab/c\n", encoding="utf-8")
    assert list(read_list(file)) == [(None, "lab/a"), ("dataset", "lab/b@v1"), ("model", "lab/c")]
    with pytest.raises(UserError, match="cannot be read"):
        list(read_list(tmp_path / "absent"))
