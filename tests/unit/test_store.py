"""The content store: right bytes or none, whatever happens to the files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stored_models import MODEL, fill, git_sha1, listing_of, remote_file, sha256, write
from tmpfs import mounted_tmpfs

from swift_jupyter.errors import UserError
from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store

ROOT = Path(__file__).parents[2]
CONTENT = b"some weights" * 1000
HASH = sha256(CONTENT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def add(store: Store, content: bytes = CONTENT) -> Path:
    return store.add(write(store.parts() / "x.part", content), sha256(content), git_sha1(content))


def edit(path: Path, content: bytes) -> None:
    """Write into a file without replacing it, as an editor does."""
    with path.open("r+b") as stream:
        stream.write(content)


def test_an_added_file_is_found_by_every_program(store: Store) -> None:
    path = add(store)
    assert path.read_bytes() == CONTENT
    assert not list(store.parts().iterdir())
    for reader in (store, Store(store.root)):
        assert reader.find(HASH) == path
        assert reader.find(HASH, len(CONTENT)) == path
        assert reader.find_git(git_sha1(CONTENT), len(CONTENT)) == HASH
        assert reader.find_git(git_sha1(CONTENT), 1) is None
        assert reader.git_sha1(HASH) == git_sha1(CONTENT)
    assert store.find("0" * 64) is None


def test_adding_twice_changes_nothing(store: Store) -> None:
    first = add(store).stat()
    second = add(store).stat()
    assert first.st_ino == second.st_ino
    assert not list(store.parts().iterdir())


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 63, "G" * 64, "\0"])
def test_what_is_no_hash_names_no_file(store: Store, name: str) -> None:
    add(store)
    assert store.find(name) is None
    with pytest.raises(ValueError, match="no SHA-256"):
        store.add(write(store.parts() / "y"), name)


def test_a_known_object_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from swift_jupyter.hub.store import store as module

    add(store)
    monkeypatch.delattr(module, "hash_file")
    assert Store(store.root).find(HASH) is not None


def test_a_touched_object_is_read_again_and_stays(store: Store) -> None:
    path = add(store)
    os.utime(path, (1, 1))
    assert store.find(HASH) == path


@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize("damage", [b"X", b""])
def test_a_wrong_object_goes_into_quarantine(store: Store, size: int | None, damage: bytes) -> None:
    # Given an object into which somebody wrote, or that was cut short
    path = add(store)
    if damage:
        edit(path, damage)
    else:
        os.truncate(path, 10)
    # Then it is not found, also by its old fingerprint, and the bytes are kept aside
    assert store.find(HASH, size) is None
    assert not path.exists()
    assert len(list((store.root / "quarantine").iterdir())) == 1
    # And a new one takes its place
    assert add(store) == path
    assert Store(store.root).find(HASH) == path


def test_a_rejected_file_is_wrong_although_its_fingerprint_is_known(store: Store) -> None:
    path = add(store)
    state = path.stat()
    store.reject(HASH)
    assert store.find(HASH) is None
    assert not store.is_verified(HASH, state)
    assert not Store(store.root).is_verified(HASH, state)


def test_adopting_links_and_reads_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file in some cache
    file = write(tmp_path / "cache" / "model.safetensors", CONTENT)
    expected = remote_file("model.safetensors", CONTENT)
    # When it is adopted, it is a link, and both hashes are known
    assert store.adopt(file, expected)
    found = store.find(HASH)
    assert found is not None and found.samefile(file)
    assert store.find_git(git_sha1(CONTENT)) == HASH
    # And it is not read a second time
    from swift_jupyter.hub.store import store as module

    monkeypatch.delattr(module, "hash_file")
    assert Store(store.root).adopt(file, expected)


@pytest.mark.parametrize(
    "expected",
    [
        RemoteFile("f", len(CONTENT), "0" * 64),
        RemoteFile("f", len(CONTENT), None, "0" * 40),
        RemoteFile("f", 1, HASH),
        RemoteFile("f", len(CONTENT)),
        RemoteFile("f"),
    ],
)
def test_other_files_are_not_adopted(store: Store, tmp_path: Path, expected: RemoteFile) -> None:
    assert not store.adopt(write(tmp_path / "f", CONTENT), expected)
    assert store.find(HASH) is None


def test_a_git_hash_is_enough_to_adopt(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path / "f", CONTENT)
    assert store.adopt(file, RemoteFile("f", len(CONTENT), None, git_sha1(CONTENT)))
    assert store.find(HASH) is not None


def test_a_link_is_adopted_as_what_it_points_to(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path / "blobs" / HASH, CONTENT)
    (tmp_path / "link").symlink_to(file)
    assert store.adopt(tmp_path / "link", remote_file("f", CONTENT))
    found = store.find(HASH)
    assert found is not None and not found.is_symlink() and found.samefile(file)


def test_a_file_on_another_disk_stays_there_and_is_remembered(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", 1000) as disk:
        store = Store(tmp_path / "store")
        file = write(disk / "f", CONTENT)
        assert store.adopt(file, remote_file("f", CONTENT))
        assert Store(store.root).find(HASH) == file
        # When it changes, it is not found any more, and left alone
        edit(file, b"X")
        assert store.find(HASH) is None
        assert file.exists()


def test_full_disk_keeps_the_part_and_says_so(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", 64) as disk:
        store = Store(disk / "store")
        part = write(tmp_path / "x.part", os.urandom(200_000))
        with pytest.raises(UserError, match="full"):
            store.add(part, sha256(part.read_bytes()))
        assert part.stat().st_size == 200_000
        assert not [path for path in (disk / "store").rglob("*") if path.is_file()]


def test_a_store_that_cannot_be_written_still_gives(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", 1000) as disk:
        add(Store(disk / "store"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        store = Store(disk / "store")
        assert store.find(HASH) is not None
        part = write(tmp_path / "x.part", b"new")
        with pytest.raises(UserError, match="cannot be written"):
            store.add(part, sha256(b"new"))
        with pytest.raises(UserError, match="cannot be written"):
            store.write_manifest(listing_of(MODEL))
        assert part.exists()
        assert not store.adopt(part, remote_file("f", b"other"))
        assert store.adopt(part, remote_file("f", b"new"))


def test_two_programs_add_the_same_object(tmp_path: Path) -> None:
    # Given two programs that put the same two hundred files in, at once
    program = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests/support")
from stored_models import git_sha1, sha256
from swift_jupyter.hub.store.store import Store
store, name = Store(Path(sys.argv[1])), sys.argv[2]
parts = store.parts()
time.sleep(max(0.0, float(sys.argv[3]) - time.time()))
for number in range(200):
    content = str(number).encode() * 50
    part = parts / f"{name}-{number}.part"
    part.write_bytes(content)
    store.add(part, sha256(content), git_sha1(content))
"""
    start = str(time.time() + 0.6)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "store"), name, start],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for name in ("one", "two")
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    # Then each is there once, right, and known without reading
    store = Store(tmp_path / "store")
    assert not list(store.parts().iterdir())
    for number in range(200):
        content = str(number).encode() * 50
        path = store.find(sha256(content), len(content))
        assert path is not None and path.read_bytes() == content
        assert store.is_verified(sha256(content), path.stat())
        assert store.find_git(git_sha1(content)) == sha256(content)


def test_manifests_are_found_by_every_name(store: Store) -> None:
    listing = listing_of(MODEL)
    store.write_manifest(listing)
    for name in (None, "master", "main", "default", "latest", listing.commit):
        found = store.read_manifest(None, "model", "lab/tiny", name)
        assert found is not None
        assert (found.commit, found.files) == (listing.commit, listing.files)
    assert store.read_manifest("huggingface", "model", "lab/tiny") is None
    assert store.read_manifest(None, "dataset", "lab/tiny") is None
    assert store.read_manifest(None, "model", "lab/tiny", "v1") is None
    assert store.read_manifest(None, "model", "../tiny") is None
    assert list(store.manifests()) == [listing]
    assert store.revisions("modelscope", "model", "lab/tiny") == {"main": listing.commit}


def test_a_branch_moves_and_the_old_commit_stays(store: Store) -> None:
    old, new = listing_of(MODEL), listing_of({**MODEL, "config.json": b"{}"})
    store.write_manifest(old)
    store.write_manifest(new)
    tag = RepoListing("modelscope", "lab/tiny", "model", "release/1.0", old.commit, old.files)
    store.write_manifest(tag)
    assert store.read_manifest(None, "model", "lab/tiny").commit == new.commit  # type: ignore[union-attr]
    assert store.read_manifest(None, "model", "lab/tiny", old.commit) is not None
    names = store.revisions("modelscope", "model", "lab/tiny")
    assert names == {"main": new.commit, "release/1.0": old.commit}


def test_hashes_that_a_pull_has_taught_are_in_the_manifest(store: Store) -> None:
    # Given a listing that names small files by git's hash only
    listing = listing_of(MODEL, hub="huggingface")
    store.write_manifest(listing)
    # When they have been pulled
    fill(store, MODEL)
    # Then it carries both hashes of all
    found = store.read_manifest("huggingface", "model", "lab/tiny")
    assert found is not None
    assert {file.path: file.sha256 for file in found.files} == {
        path: sha256(content) for path, content in MODEL.items()
    }
    store.write_manifest(listing)
    assert all(file.sha256 for file in next(store.manifests()).files)


def test_held_manifests_stay_held(store: Store) -> None:
    listing = listing_of(MODEL)
    key = ManifestKey("modelscope", "model", "lab/tiny", listing.commit)
    store.write_manifest(listing, held=True)
    store.write_manifest(listing)
    assert store.manifest_files.is_held(key)
    store.set_held(key, False)
    assert not store.manifest_files.is_held(key)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\n", b'{"files": 3}\n["a"]\n'])
def test_a_broken_manifest_is_none(store: Store, content: bytes) -> None:
    listing = listing_of(MODEL)
    store.write_manifest(listing)
    [path] = store.root.rglob("*.manifest")
    path.write_bytes(content)
    assert store.read_manifest(None, "model", "lab/tiny") is None
    assert list(store.manifests()) == []


def test_a_cut_manifest_is_not_taken_for_a_smaller_one(store: Store) -> None:
    store.write_manifest(listing_of(MODEL))
    [path] = store.root.rglob("*.manifest")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert store.read_manifest(None, "model", "lab/tiny") is None


@settings(deadline=None)
@given(name=st.text(min_size=1, max_size=12))
@example(name=".hidden")
@example(name="..")
@example(name="../../x")
@example(name="a/b")
def test_no_revision_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "inner")
    listing = listing_of(MODEL, revision=name)
    try:
        store.write_manifest(listing)
    except (ValueError, UserError):
        return
    finally:
        assert {path.name for path in store.root.parent.iterdir()} <= {"inner"}
    found = store.read_manifest(None, "model", "lab/tiny", name)
    assert found is not None and found.commit == listing.commit


def test_a_hundred_thousand_files_are_quick(store: Store) -> None:
    files = tuple(
        RemoteFile(f"data/part-{number:06}.json", number, f"{number:064x}")
        for number in range(100_000)
    )
    listing = RepoListing("modelscope", "lab/rows", "dataset", "master", "a" * 40, files)
    started = time.perf_counter()
    store.write_manifest(listing)
    assert store.read_manifest(None, "dataset", "lab/rows") == listing
    assert time.perf_counter() - started < 6
