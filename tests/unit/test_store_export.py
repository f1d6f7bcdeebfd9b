"""Stored files as both hubs' clients find them: linked, checked, nothing of the user's lost."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_models import HUGGINGFACE_COMMIT, MODEL, fill, git_sha1, listing_of, sha256, write
from tmpfs import mounted_tmpfs

from swift_jupyter.errors import UserError
from swift_jupyter.hub.listing import RemoteFile, RepoListing, UnsafePath
from swift_jupyter.hub.store import links
from swift_jupyter.hub.store.export import export_folder, export_huggingface, export_modelscope
from swift_jupyter.hub.store.store import Store

ROOT = Path(__file__).parents[2]
CHANGED = {**MODEL, "config.json": b'{"model_type": "qwen2"}'}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "own" / "store")
    fill(store, CHANGED)
    fill(store, MODEL)
    return store


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def huggingface(store: Store, tmp_path: Path, listing: RepoListing, **options: object) -> Path:
    return export_huggingface(store, listing, listing.files, tmp_path / "hf", "lab/tiny", **options)  # type: ignore[arg-type]


def modelscope(store: Store, tmp_path: Path, listing: RepoListing, **options: object) -> Path:
    return export_modelscope(store, listing, listing.files, tmp_path / "ms", "lab/tiny", **options)  # type: ignore[arg-type]


def folder(store: Store, tmp_path: Path, listing: RepoListing, **options: object) -> Path:
    return export_folder(store, listing, listing.files, tmp_path / "mine", **options)  # type: ignore[arg-type]


def test_huggingface_layout(store: Store, tmp_path: Path) -> None:
    # When a model of Hugging Face is shown in its cache
    path = huggingface(store, tmp_path, listing_of(MODEL, hub="huggingface"))
    # Then it is as the client writes it
    repo = tmp_path / "hf" / "models--lab--tiny"
    assert path == repo / "snapshots" / HUGGINGFACE_COMMIT
    assert read(path) == MODEL
    assert (repo / "refs" / "main").read_text() == HUGGINGFACE_COMMIT
    for name, content in MODEL.items():
        etag = sha256(content) if name.endswith(".safetensors") else git_sha1(content)
        assert (path / name).readlink() == Path("..", "..", "blobs", etag)
        # And no byte is there twice
        assert (repo / "blobs" / etag).samefile(store.object_path(sha256(content)))


def test_modelscope_layout(store: Store, tmp_path: Path) -> None:
    path = modelscope(store, tmp_path, listing_of(MODEL))
    assert path == tmp_path / "ms" / "models" / "lab--tiny" / "snapshots" / "master"
    assert read(path) == MODEL
    for name, content in MODEL.items():
        assert (path / name).samefile(store.object_path(sha256(content)))


@pytest.mark.parametrize("hub", ["modelscope", "huggingface"])
def test_each_hub_in_the_other_ones_layout(store: Store, tmp_path: Path, hub: str) -> None:
    listing = listing_of(MODEL, "Lab/other-name", hub)  # type: ignore[arg-type]
    path = huggingface(store, tmp_path, listing)
    assert read(path) == MODEL and path.name == listing.commit
    config = git_sha1(MODEL["config.json"])
    assert (path / "config.json").readlink().name == config, "known from adding, though not listed"
    assert modelscope(store, tmp_path, listing).name == "master"


def test_subfolders_of_snapshots(store: Store, tmp_path: Path) -> None:
    deep = {f"a/b/{name}": content for name, content in MODEL.items()}
    listing = listing_of(deep, hub="huggingface")
    assert read(huggingface(store, tmp_path, listing)) == deep
    assert read(modelscope(store, tmp_path, listing)) == deep
    assert read(folder(store, tmp_path, listing)) == deep


def test_a_branch_that_the_client_has_moved_is_left_alone(store: Store, tmp_path: Path) -> None:
    ref = write(tmp_path / "hf" / "models--lab--tiny" / "refs" / "main", b"d" * 40)
    huggingface(store, tmp_path, listing_of(MODEL, hub="huggingface"))
    assert ref.read_text() == "d" * 40


def test_a_branch_that_we_have_written_moves_on(store: Store, tmp_path: Path) -> None:
    old, new = listing_of(MODEL), listing_of(CHANGED)
    huggingface(store, tmp_path, old)
    huggingface(Store(store.root), tmp_path, new)
    ref = tmp_path / "hf" / "models--lab--tiny" / "refs" / "main"
    assert ref.read_text() == new.commit
    # Until the client has written another commit
    ref.write_text("d" * 40)
    huggingface(store, tmp_path, old)
    assert ref.read_text() == "d" * 40


def test_a_commit_gets_no_branch(store: Store, tmp_path: Path) -> None:
    huggingface(store, tmp_path, listing_of(MODEL, hub="huggingface", revision=HUGGINGFACE_COMMIT))
    assert not (tmp_path / "hf" / "models--lab--tiny" / "refs").exists()


def test_without_symbolic_links_the_files_themselves(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(1314, "a required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refuse)
    path = huggingface(store, tmp_path, listing_of(MODEL, hub="huggingface"))
    assert read(path) == MODEL
    assert not any(file.is_symlink() for file in path.iterdir())


@pytest.mark.parametrize("show", [huggingface, modelscope])
def test_a_right_file_stays_and_a_broken_one_is_replaced(
    store: Store, tmp_path: Path, show: object
) -> None:
    # Given a cache in which the client has left a right file and a broken one
    listing = listing_of(MODEL, hub="huggingface")
    names = {
        name: sha256(content) if name.endswith("safetensors") else git_sha1(content)
        for name, content in MODEL.items()
    }
    for name, content in MODEL.items():
        wrong = content[:-1] if name == "model.safetensors" else content
        write(tmp_path / "hf" / "models--lab--tiny" / "blobs" / names[name], wrong)
        write(tmp_path / "ms" / "models" / "lab--tiny" / "snapshots" / "master" / name, wrong)
    before = (tmp_path / "ms/models/lab--tiny/snapshots/master/config.json").stat().st_ino
    notices: list[str] = []
    # When the model is shown there
    path = show(store, tmp_path, listing, notice=notices.append)  # type: ignore[operator]
    # Then all is right, the right file was not touched, and the broken one was told
    assert read(path) == MODEL
    assert len(notices) == 1 and "quarantine" in notices[0]
    if show is modelscope:
        assert (path / "config.json").stat().st_ino == before
    show(store, tmp_path, listing, notice=notices.append)  # type: ignore[operator]
    assert len(notices) == 1


def test_a_new_revision_of_a_branch_replaces_our_own_files_quietly(
    store: Store, tmp_path: Path
) -> None:
    notices: list[str] = []
    modelscope(store, tmp_path, listing_of(MODEL), notice=notices.append)
    path = modelscope(store, tmp_path, listing_of(CHANGED), notice=notices.append)
    assert read(path) == CHANGED
    assert notices == []
    # And the store still has both
    assert store.find(sha256(MODEL["config.json"])) is not None


@pytest.mark.parametrize("layout", ["models/lab/tiny", "hub/models/lab/tiny"])
def test_an_old_layout_is_completed_in_place(store: Store, tmp_path: Path, layout: str) -> None:
    old = tmp_path / "ms" / layout
    write(old / "config.json", MODEL["config.json"])
    assert modelscope(store, tmp_path, listing_of(MODEL)) == old
    assert read(old) == MODEL


def test_folder_gets_small_files_of_its_own(store: Store, tmp_path: Path) -> None:
    # Given a model in a folder of the user's, one file of which is large
    content = {**MODEL, "model.safetensors": bytes(2 << 20)}
    fill(store, content)
    listing = listing_of(content)
    path = folder(store, tmp_path, listing)
    assert read(path) == content
    # When a configuration is edited in place
    with (path / "config.json").open("r+b") as stream:
        stream.write(b"!!")
    # Then the store is not touched, and the large file is there once
    assert store.find(sha256(MODEL["config.json"])) is not None
    large = store.object_path(sha256(content["model.safetensors"]))
    assert (path / "model.safetensors").samefile(large)
    # And the edited file is not overwritten by the next pull, unless that is wanted
    with pytest.raises(UserError, match=r"config\.json"):
        folder(store, tmp_path, listing)
    assert (path / "config.json").read_bytes().startswith(b"!!")
    folder(store, tmp_path, listing, replace=True)
    assert read(path) == content


def test_foreign_files_in_a_folder_are_named_before_anything_is_written(
    store: Store, tmp_path: Path
) -> None:
    write(tmp_path / "mine" / "config.json", b"my own")
    with pytest.raises(UserError, match=r"config\.json"):
        folder(store, tmp_path, listing_of(MODEL))
    assert read(tmp_path / "mine") == {"config.json": b"my own"}
    folder(store, tmp_path, listing_of(MODEL), ours=lambda path, _state: path == "config.json")
    assert read(tmp_path / "mine") == MODEL


@pytest.mark.parametrize("show", [huggingface, modelscope, folder])
@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "a\0b", "C:/x"])
def test_no_path_leaves_the_folder(store: Store, tmp_path: Path, show: object, path: str) -> None:
    good = listing_of(MODEL, hub="huggingface")
    bad = RemoteFile(path, good.files[0].size, sha256(MODEL["config.json"]))
    listing = RepoListing("huggingface", "lab/tiny", "model", "main", good.commit, (bad,))
    with pytest.raises(UnsafePath):
        show(store, tmp_path, listing)  # type: ignore[operator]
    assert {entry.name for entry in tmp_path.iterdir()} <= {"own", "hf", "ms", "mine"}


@pytest.mark.parametrize("show", [huggingface, modelscope, folder])
def test_no_link_leads_out_of_the_folder(store: Store, tmp_path: Path, show: object) -> None:
    # Given a snapshot whose subfolder is a link to somewhere else
    outside = tmp_path / "outside"
    outside.mkdir()
    listing = listing_of({"sub/config.json": MODEL["config.json"]}, hub="huggingface")
    for snapshot in (
        tmp_path / "hf" / "models--lab--tiny" / "snapshots" / HUGGINGFACE_COMMIT,
        tmp_path / "ms" / "models" / "lab--tiny" / "snapshots" / "master",
        tmp_path / "mine",
    ):
        snapshot.mkdir(parents=True)
        (snapshot / "sub").symlink_to(outside)
    # When a file is to go there, then nothing is written
    with pytest.raises(UserError, match="leads out"):
        show(store, tmp_path, listing)  # type: ignore[operator]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("show", [huggingface, modelscope])
def test_a_file_that_is_a_link_is_replaced_not_followed(
    store: Store, tmp_path: Path, show: object
) -> None:
    victim = write(tmp_path / "victim", b"precious")
    listing = listing_of(MODEL, hub="huggingface")
    path = show(store, tmp_path, listing)  # type: ignore[operator]
    (path / "config.json").unlink()
    (path / "config.json").symlink_to(victim)
    show(store, tmp_path, listing)  # type: ignore[operator]
    assert (path / "config.json").read_bytes() == MODEL["config.json"]
    assert victim.read_bytes() == b"precious"


def test_hostile_hashes_name_no_file(store: Store, tmp_path: Path) -> None:
    bad = RemoteFile("f", 1, None, "../../../x")
    listing = RepoListing("huggingface", "lab/tiny", "model", "main", "a" * 40, (bad,))
    with pytest.raises(UserError, match="vanished"):
        huggingface(store, tmp_path, listing)
    config = MODEL["config.json"]
    bad = RemoteFile("f", len(config), sha256(config), "../../../x")
    listing = RepoListing("huggingface", "lab/tiny", "model", "main", "a" * 40, (bad,))
    with pytest.raises((UnsafePath, UserError)):
        huggingface(store, tmp_path, listing)
    assert not (tmp_path / "x").exists()


@settings(deadline=None, max_examples=60)
@given(
    names=st.lists(
        st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=10),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_the_path_only_the_folder_changes(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    root = tmp_path_factory.mktemp("paths")
    store = Store(root / "own" / "store")
    fill(store, {"x": b"content"})
    path = "/".join(names)
    file = RemoteFile(path, 7, sha256(b"content"))
    listing = RepoListing("modelscope", "lab/tiny", "model", "master", "a" * 40, (file,))
    try:
        modelscope(store, root, listing)
    except (UnsafePath, UserError, OSError):
        pass
    else:
        snapshot = root / "ms" / "models" / "lab--tiny" / "snapshots" / "master"
        assert snapshot.joinpath(*path.split("/")).read_bytes() == b"content"
    assert {entry.name for entry in root.iterdir()} <= {"own", "ms"}


@pytest.mark.parametrize("show", [huggingface, modelscope, folder])
def test_on_another_disk_the_files_are_copies(tmp_path: Path, show: object) -> None:
    with mounted_tmpfs(tmp_path / "disk", 1000) as disk:
        store = Store(disk / "store")
        fill(store, MODEL)
        path = show(store, tmp_path, listing_of(MODEL))  # type: ignore[operator]
        assert read(path) == MODEL
        # And the store knows them without reading
        for name, content in MODEL.items():
            assert store.is_verified(sha256(content), (path / name).stat())


def test_full_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill(store, {"model.safetensors": os.urandom(300_000)})
    content = {"model.safetensors": next(store.objects())}
    data = Path(content["model.safetensors"].path).read_bytes()
    listing = listing_of({"model.safetensors": data})
    with mounted_tmpfs(tmp_path / "ms", 64) as disk:
        with pytest.raises(UserError, match="full"):
            modelscope(store, tmp_path, listing)
        assert not [path for path in disk.rglob("*") if path.is_file()], "no half file is left"
    assert store.find(sha256(data)) is not None


def test_without_hard_links_a_copy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(links.os, "link", refuse)
    path = modelscope(store, tmp_path, listing_of(MODEL))
    assert read(path) == MODEL
    assert (path / "config.json").stat().st_nlink == 1
    assert not list(path.glob(".*"))


def test_an_object_that_vanished_is_told(store: Store, tmp_path: Path) -> None:
    store.object_path(sha256(MODEL["config.json"])).unlink()
    with pytest.raises(UserError, match=r"config\.json vanished"):
        modelscope(store, tmp_path, listing_of(MODEL))


def test_five_hundred_files_are_quick(tmp_path: Path) -> None:
    content = {f"part-{number}.json": str(number).encode() * 9 for number in range(500)}
    store = Store(tmp_path / "store")
    fill(store, content)
    listing = listing_of(content, kind="dataset", hub="huggingface")
    times = []
    for attempt in range(3):
        started = time.perf_counter()
        root = tmp_path / str(attempt)
        huggingface(store, root, listing)
        modelscope(store, root, listing)
        times.append(time.perf_counter() - started)
    assert min(times) < 0.2


def test_two_programs_show_the_same_model(tmp_path: Path) -> None:
    # Given two programs that show the same two hundred files in both caches, at once
    content = {f"part-{number}.json": str(number).encode() * 9 for number in range(200)}
    fill(Store(tmp_path / "store"), content)
    program = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests/support")
from stored_models import listing_of
from swift_jupyter.hub.store.export import export_huggingface, export_modelscope
from swift_jupyter.hub.store.store import Store
root = Path(sys.argv[1])
content = {f"part-{number}.json": str(number).encode() * 9 for number in range(200)}
listing = listing_of(content, kind="dataset", hub="huggingface")
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
for show, cache in ((export_huggingface, "hf"), (export_modelscope, "ms")):
    show(Store(root / "store"), listing, listing.files, root / cache, "lab/tiny")
"""
    start = str(time.time() + 0.6)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), start],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _number in range(2)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    # Then all is there once, and nothing is left over
    repo = tmp_path / "hf" / "datasets--lab--tiny"
    assert read(repo / "snapshots" / HUGGINGFACE_COMMIT) == content
    assert read(tmp_path / "ms" / "datasets" / "lab--tiny" / "snapshots" / "master") == content
    assert len(list((repo / "blobs").iterdir())) == 200
