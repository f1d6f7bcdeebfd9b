"""Listing and removing what lies in both hubs' caches, in every layout."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from swift_jupyter.errors import UserError
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.removal import plan_removal
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.settings import Settings

COMMIT = "a" * 40


class World:
    """Caches of an imagined user below a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = Settings(cache_dir=str(root / "own"))
        self.environ: Mapping[str, str] = {"HOME": str(root)}
        self.modelscope = root / ".cache" / "modelscope"
        self.huggingface = root / ".cache" / "huggingface" / "hub"

    def scan(self) -> dict[str, CachedRepo]:
        listing = scan_cache(self.settings, self.environ)
        assert listing.warnings == ()
        return {f"{entry.hub}:{entry.repo_id}": entry for entry in listing.entries}

    def huggingface_model(
        self, repo_id: str = "org/name", weights: bytes | None = b"x" * 1000, kind: str = "model"
    ) -> Path:
        folder = self.huggingface / f"{kind}s--{repo_id.replace('/', '--')}"
        files = {"config.json": b"{}", "tokenizer.json": b"{}"} | (
            {"model.safetensors": weights} if weights else {}
        )
        for name, content in files.items():
            write(folder / "blobs" / f"hash-{name}", content)
            link = folder / "snapshots" / COMMIT / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path("..", "..", "blobs", f"hash-{name}"))
        write(folder / "refs" / "main", COMMIT.encode())
        return folder


def write(path: Path, content: bytes = b"{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def plain_model(folder: Path, weights: bytes = b"x" * 500) -> Path:
    write(folder / "config.json")
    write(folder / "tokenizer.json")
    write(folder / "model.safetensors", weights)
    return folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_no_cache_at_all_is_an_empty_listing(world: World) -> None:
    assert world.scan() == {}


def test_huggingface_model(world: World) -> None:
    # Given a model whose snapshot consists of links to blobs
    world.huggingface_model()
    # When the cache is scanned
    entry = world.scan()["Hugging Face:org/name"]
    # Then blobs count once, and links not at all
    assert entry.complete
    assert entry.size_bytes == 1004 + len(COMMIT)
    assert entry.file_count == 4
    assert entry.revisions == ("main", COMMIT)
    assert entry.size_str == "1.0 kB"
    assert json.loads(json.dumps(entry.to_dict()))["path"] == str(entry.path)


def test_huggingface_model_whose_blob_is_gone_is_incomplete(world: World) -> None:
    folder = world.huggingface_model()
    (folder / "blobs" / "hash-model.safetensors").unlink()
    assert not world.scan()["Hugging Face:org/name"].complete


def test_weights_without_a_tokenizer_are_incomplete(world: World) -> None:
    folder = world.huggingface_model()
    (folder / "snapshots" / COMMIT / "tokenizer.json").unlink()
    assert not world.scan()["Hugging Face:org/name"].complete


def test_huggingface_transfer_under_way_is_incomplete(world: World) -> None:
    folder = world.huggingface_model()
    write(folder / "blobs" / "hash.1a2b.incomplete", b"x" * 10)
    assert not world.scan()["Hugging Face:org/name"].complete


def test_stored_listing_overrules_a_leftover_of_an_old_transfer(world: World) -> None:
    # Given a leftover that no client will ever continue, and a listing that is satisfied
    folder = world.huggingface_model()
    write(folder / "blobs" / "hash.1a2b.incomplete", b"x" * 10)
    files = {
        "config.json": {"size": 2, "blob_id": "0"},
        "model.safetensors": {"size": 1000, "blob_id": "0"},
    }
    tree = write(folder / "trees" / f"{COMMIT}.json", json.dumps({"files": files}).encode())
    # Then the model is complete, until a listed file lacks
    assert world.scan()["Hugging Face:org/name"].complete
    files["vocab.json"] = {"size": 5, "blob_id": "0"}
    tree.write_text(json.dumps({"files": files}))
    assert not world.scan()["Hugging Face:org/name"].complete


def test_datasets_are_told_from_models(world: World) -> None:
    world.huggingface_model("org/rows", kind="dataset")
    write(world.modelscope / "datasets" / "org--data" / "snapshots" / "master" / "a.csv")
    found = world.scan()
    assert found["Hugging Face:org/rows"].kind == "dataset"
    assert found["ModelScope:org/data"].kind == "dataset"
    assert found["ModelScope:org/data"].complete


@pytest.mark.parametrize(
    "layout",
    [
        "models/Qwen--Qwen2.5-0.5B/snapshots/master",
        "models/Qwen/Qwen2___5-0___5B",
        "hub/models/Qwen/Qwen2___5-0___5B",
        "hub/Qwen/Qwen2.5-0.5B",
        "Qwen/Qwen2___5-0___5B",
    ],
)
def test_every_modelscope_layout_is_read(world: World, layout: str) -> None:
    plain_model(world.modelscope / layout)
    found = world.scan()
    assert list(found) == ["ModelScope:Qwen/Qwen2.5-0.5B"]
    entry = found["ModelScope:Qwen/Qwen2.5-0.5B"]
    assert entry.complete and entry.kind == "model" and entry.size_bytes == 504


def test_links_and_temporary_folders_of_old_clients_are_no_entries(world: World) -> None:
    folder = plain_model(world.modelscope / "hub" / "models" / "Qwen" / "Qwen2___5-0___5B")
    (folder.parent / "Qwen2.5-0.5B").symlink_to(folder)
    plain_model(world.modelscope / "hub" / "models" / "._____temp" / "x")
    write(world.modelscope / "hub" / ".lock" / "org___x")
    assert list(world.scan()) == ["ModelScope:Qwen/Qwen2.5-0.5B"]


def test_modelscope_partial_file_makes_it_incomplete(world: World) -> None:
    folder = plain_model(world.modelscope / "models" / "a--b" / "snapshots" / "master")
    write(folder / "tokenizer.json.incomplete")
    assert not world.scan()["ModelScope:a/b"].complete


def test_local_package(world: World) -> None:
    folder = plain_model(world.root / "own" / "packages" / "smollm2-demo")
    write(folder / "swift_jupyter.json", b'{"id": "smollm2-demo", "version": "0.1.2"}')
    entry = world.scan()["local package:smollm2-demo"]
    assert entry.complete and entry.revisions == ("0.1.2",)


def test_broken_conversion_left_by_a_crash_is_shown_as_incomplete(world: World) -> None:
    plain_model(world.root / "own" / "packages" / ".smollm2-demo-x1" / "model")
    assert not world.scan()["local package:smollm2-demo-x1"].complete


def test_last_used_is_the_newest_access(world: World) -> None:
    folder = plain_model(world.modelscope / "models" / "a--b" / "snapshots" / "master")
    for path in folder.iterdir():
        os.utime(path, (1_000, 500))
    future = time.time() + 100
    os.utime(folder / "config.json", (future, 500))
    assert world.scan()["ModelScope:a/b"].last_used == pytest.approx(future)


def test_broken_entries_become_warnings(world: World) -> None:
    # Given entries that are broken in several ways beside a good one
    (world.huggingface / "models--only--refs" / "refs").mkdir(parents=True)
    (world.modelscope / "models" / "a--b").mkdir(parents=True)
    world.huggingface_model("good/one")
    folder = world.huggingface_model("bad/utf8")
    (folder / "refs" / "main").write_bytes(b"\xff\xfe")
    (folder / "trees").mkdir()
    (folder / "trees" / f"{COMMIT}.json").write_bytes(b"\xff{")
    # When the cache is scanned
    listing = scan_cache(world.settings, world.environ)
    # Then the good one is there, and the broken ones are told
    assert {entry.repo_id for entry in listing.entries} == {"good/one", "bad/utf8"}
    assert len(listing.warnings) == 2
    assert "only--refs" in "".join(listing.warnings)


def test_removal_tells_first_and_then_frees(world: World) -> None:
    # Given two models
    keep = world.huggingface_model("keep/it")
    world.huggingface_model("drop/it")
    write(world.huggingface / ".locks" / "models--drop--it" / "x.lock")
    entry = world.scan()["Hugging Face:drop/it"]
    # When one is to be removed
    removal = plan_removal([entry, entry], world.settings, world.environ)
    assert removal.expected_freed_bytes == entry.size_bytes
    assert entry.path.is_dir(), "planning removes nothing"
    freed = removal.execute()
    # Then it is gone, the other one is not
    assert freed >= entry.size_bytes
    assert not entry.path.exists()
    assert not (world.huggingface / ".locks" / "models--drop--it").exists()
    assert keep.is_dir()


def test_removal_does_not_follow_links(world: World, tmp_path: Path) -> None:
    precious = write(tmp_path / "elsewhere" / "precious.txt", b"keep me")
    folder = plain_model(world.modelscope / "models" / "a" / "b")
    (folder / "link").symlink_to(precious.parent)
    (folder.parent / "b.b").symlink_to(folder)
    plan_removal([world.scan()["ModelScope:a/b"]], world.settings, world.environ).execute()
    assert precious.read_bytes() == b"keep me"


@pytest.mark.parametrize(
    "where", ["elsewhere/models--a--b", ".cache/modelscope/../../elsewhere/x", ""]
)
def test_removal_outside_the_caches_is_refused(world: World, where: str) -> None:
    folder = world.root / where
    folder.mkdir(parents=True, exist_ok=True)
    entry = CachedRepo("a/b", "model", "ModelScope", folder, 1, 1, 0.0, True)
    with pytest.raises(UserError, match="not inside a cache"):
        plan_removal([entry], world.settings, world.environ)
    assert folder.is_dir()


def test_removal_of_a_cache_root_or_of_a_link_out_of_it_is_refused(world: World) -> None:
    outside = plain_model(world.root / "outside")
    world.modelscope.mkdir(parents=True)
    link = world.modelscope / "models--a--b"
    link.symlink_to(outside)
    for path in (world.modelscope, link):
        entry = CachedRepo("a/b", "model", "ModelScope", path, 1, 1, 0.0, True)
        with pytest.raises(UserError):
            plan_removal([entry], world.settings, world.environ)


def test_scanning_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, swift_jupyter.hub.cache.scan, swift_jupyter.hub.cache.removal,"
        " swift_jupyter.hub.pull,"
        " swift_jupyter.engine.models.catalogue\n"
        "heavy = {'torch', 'transformers', 'datasets', 'modelscope', 'modelscope_hub',"
        " 'huggingface_hub', 'pandas', 'numpy', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
