"""What a store may throw away, as its own user and as a mirror node."""

import os
import time
from pathlib import Path

import pytest
from stored_models import MODEL, fill, listing_of, sha256, write

from swift_jupyter.hub.store.gc import GarbagePlan, find_garbage
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import Store

OLD = {**MODEL, "model.safetensors": b"old weights" * 50}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def hold(store: Store, content: dict[str, bytes]) -> ManifestKey:
    listing = listing_of(content)
    fill(store, content)
    store.write_manifest(listing, held=True)
    return ManifestKey(listing.hub, listing.kind, listing.repo_id, listing.commit)


def plan(store: Store, days: float = 1.0) -> GarbagePlan:
    later = time.time() + days * 86_400
    return find_garbage(store, keep_manifest=store.manifest_files.is_held, now=later)


def test_a_node_keeps_old_revisions_until_they_are_released(store: Store) -> None:
    # Given two revisions of a model that a node holds
    old, new = hold(store, OLD), hold(store, MODEL)
    assert plan(store).files == () and plan(store).manifests == ()
    # When the old one is released
    store.set_held(old, False)
    # Then just what it alone has is freed
    garbage = plan(store)
    assert garbage.manifests == (old,)
    assert garbage.expected_freed_bytes == len(OLD["model.safetensors"])
    assert garbage.execute() == len(OLD["model.safetensors"])
    assert list(store.manifest_files.all_keys()) == [new]
    assert store.revisions("modelscope", "model", "lab/tiny") == {"main": new.commit}
    for content in MODEL.values():
        assert Store(store.root).find(sha256(content)) is not None
    assert store.find(sha256(OLD["model.safetensors"])) is None


def test_what_is_new_is_left_alone(store: Store) -> None:
    fill(store, MODEL)
    store.write_manifest(listing_of(MODEL))
    assert plan(store, days=0.0) == GarbagePlan(store, (), ())
    assert plan(store).execute() == sum(map(len, MODEL.values()))


def test_what_has_another_name_is_left_alone(store: Store, tmp_path: Path) -> None:
    fill(store, MODEL)
    os.link(store.object_path(sha256(MODEL["config.json"])), tmp_path / "shown")
    names = {Path(file.path).name for file in plan(store).files}
    assert sha256(MODEL["config.json"]) not in names and len(names) == 2


def test_what_changed_after_the_plan_is_left_alone(store: Store, tmp_path: Path) -> None:
    fill(store, MODEL)
    garbage = plan(store)
    os.link(store.object_path(sha256(MODEL["config.json"])), tmp_path / "shown")
    assert garbage.execute() == sum(map(len, MODEL.values())) - len(MODEL["config.json"])
    assert store.find(sha256(MODEL["config.json"])) is not None


def test_old_parts_and_quarantined_files_go(store: Store) -> None:
    part = write(store.parts() / "x.part", b"12345")
    wrong = write(store.root / "quarantine" / "y", b"123")
    assert plan(store).files == ()
    garbage = plan(store, days=8)
    assert {file.sort for file in garbage.files} == {"part", "quarantined"}
    assert garbage.execute() == 8
    assert not part.exists() and not wrong.exists()


def test_the_indexes_forget_what_is_gone(store: Store) -> None:
    fill(store, {f"f{number}": str(number).encode() for number in range(300)})
    keep = hold(store, MODEL)
    before = sum(path.stat().st_size for path in (store.root / "known").iterdir())
    plan(store).execute()
    after = sum(path.stat().st_size for path in (store.root / "known").iterdir())
    assert after < before / 10
    fresh = Store(store.root)
    for content in MODEL.values():
        path = fresh.find(sha256(content))
        assert path is not None and fresh.is_verified(sha256(content), path.stat())
    assert fresh.manifest_files.is_held(keep)
