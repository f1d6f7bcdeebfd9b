"""The lock file's form: stable, checked, and clear about what differs."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.errors import UserError
from swift_jupyter.hub.cache.records import record_snapshot
from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.lock_file import LockEntry, compare, read_lock, update_lock
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.settings import Settings

HEX = "0123456789abcdef"
paths = st.from_regex(r"[a-z]{1,6}(/[a-z0-9]{1,6}){0,2}", fullmatch=True)
files = st.lists(
    st.builds(
        RemoteFile,
        paths,
        st.integers(0, 2**62),
        st.text(HEX, min_size=64, max_size=64),
        st.none() | st.text(HEX, min_size=40, max_size=40),
        st.booleans(),
    ),
    unique_by=lambda file: file.path,
    max_size=6,
)


@given(files)
def test_entry_survives_the_way_through_json(listed: list[RemoteFile]) -> None:
    entry = LockEntry("model", "huggingface", "a/b", "main", "0" * 40, tuple(listed))
    again = LockEntry.from_dict(json.loads(json.dumps(entry.to_dict())))
    assert again.to_dict() == entry.to_dict()
    assert not compare(entry.files, again.files)


def valid() -> dict[str, Any]:
    file = {"path": "x", "size": 1, "sha256": "0" * 64}
    return {
        "kind": "model",
        "hub": "modelscope",
        "repo_id": "a/b",
        "revision": "master",
        "commit": "0" * 40,
        "files": [file],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "space"},
        {"hub": "elsewhere"},
        {"repo_id": "../b"},
        {"revision": "a/../b"},
        {"commit": "main"},
        {"files": None},
        {"files": [{"path": "../x", "size": 1, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": -1, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": True, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": 1}]},
        {"files": [{"path": "x", "size": 1, "sha256": "../../evil"}]},
        {"files": [{"path": "x", "size": 1, "sha256": "0" * 64, "more": 1}]},
        {"files": [{"path": 5, "size": 1, "sha256": "0" * 64}]},
        {"files": [valid()["files"][0]] * 2},
    ],
)
def test_entries_that_somebody_made_up_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "swift-jupyter.lock"
    path.write_text(json.dumps({"format": 1, "repositories": [{**valid(), **change}]}))
    with pytest.raises(UserError, match=r"swift-jupyter\.lock cannot be read"):
        read_lock(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2, "repositories": []}', "[" * 100_000, "\xff"]
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "swift-jupyter.lock"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read"):
        read_lock(path)


def test_absent_lock_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no lock file") as caught:
        read_lock(tmp_path / "swift-jupyter.lock")
    assert "%swift download" in caught.value.next_step


def test_difference_in_words() -> None:
    locked = [RemoteFile("a", 1, "0" * 64), RemoteFile("b", 1, "1" * 64), RemoteFile("c", 1)]
    listed = [RemoteFile("a", 1, "2" * 64), RemoteFile("c", 1, "3" * 64), RemoteFile("d", 5)]
    difference = compare(locked, listed)
    assert difference.text == "changed: a; missing: b; not in the lock: d"
    assert difference
    assert not compare(locked, [*locked, RemoteFile("new", 1)])


def test_small_files_of_huggingface_are_compared_by_git_sha1() -> None:
    locked = [RemoteFile("a", 1, "0" * 64, "1" * 40)]
    assert compare(locked, [RemoteFile("a", 1, None, "2" * 40)]).changed == ("a",)
    assert not compare(locked, [RemoteFile("a", 1, None, "1" * 40)])


def snapshot(folder: Path, settings: Settings, repo_id: str) -> Snapshot:
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(b"1")
    listing = RepoListing(
        "modelscope",
        repo_id,
        "model",
        "master",
        "0" * 40,
        (RemoteFile("x", 1, "0" * 64), RemoteFile("left out", 5, "1" * 64)),
    )
    record_snapshot(settings, folder, listing, "ModelScope")
    return Snapshot(repo_id, "model", "ModelScope", folder, "master", 1)


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    settings = Settings(cache_dir=str(tmp_path / "own"), state_dir=str(tmp_path / "state"))
    path = tmp_path / "project" / "swift-jupyter.lock"
    snapshots = [snapshot(tmp_path / f"s{n}", settings, f"lab/m{n}") for n in range(8)]
    threads = [
        threading.Thread(target=update_lock, args=(path, [one], settings)) for one in snapshots
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = read_lock(path)
    assert [entry.repo_id for entry in entries] == [f"lab/m{n}" for n in range(8)]
    assert {file.path for entry in entries for file in entry.files} == {"x"}
    assert [child.name for child in path.parent.iterdir()] == ["swift-jupyter.lock"]
