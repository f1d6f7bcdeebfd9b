"""One model in both hubs' caches: one row, its bytes once, and removal that frees just those."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from stored_models import MODEL, fill, listing_of, sha256, write

from swift_jupyter.hub.cache.checking import checks_of, run_checks
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.prune import plan_prune
from swift_jupyter.hub.cache.records import (
    read_record,
    record_snapshot,
    records_folder,
    touch_record,
)
from swift_jupyter.hub.cache.removal import plan_removal
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.hub.listing import RepoListing
from swift_jupyter.hub.store.export import export_folder, export_huggingface, export_modelscope
from swift_jupyter.hub.store.manifests import ManifestKey
from swift_jupyter.hub.store.store import open_store
from swift_jupyter.settings import Settings

BYTES = sum(map(len, MODEL.values()))
SMALL = {name: content for name, content in MODEL.items() if name.endswith("json")}
OTHER = {**SMALL, "model.safetensors": b"other weights" * 99}


class World:
    """Caches and a store, filled as pulls do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = Settings(cache_dir=str(root / "own"))
        self.store = open_store(self.settings)
        self.environ: Mapping[str, str] = {"HOME": str(root)}
        self.modelscope = root / ".cache" / "modelscope"
        self.huggingface = root / ".cache" / "huggingface" / "hub"

    def pull(
        self,
        content: dict[str, bytes],
        repo_id: str = "lab/tiny",
        other_id: str | None = None,
    ) -> RepoListing:
        listing = listing_of(content, repo_id)
        fill(self.store, content)
        self.store.write_manifest(listing)
        for path in (
            export_modelscope(self.store, listing, listing.files, self.modelscope, repo_id),
            export_huggingface(
                self.store, listing, listing.files, self.huggingface, other_id or repo_id
            ),
        ):
            record_snapshot(self.settings, path, listing, "ModelScope")
        return listing

    def entries(self) -> tuple[CachedRepo, ...]:
        listing = scan_cache(self.settings, self.environ)
        assert listing.warnings == ()
        return listing.entries

    def entry(self, name: str = "lab/tiny") -> CachedRepo:
        [entry] = [entry for entry in self.entries() if entry.is_called(name)]
        return entry

    def remove(self, *names: str) -> int:
        removal = plan_removal([self.entry(n) for n in names], self.settings, self.environ)
        before = self.used()
        freed = removal.execute()
        # What was foretold is what is free now.
        assert freed == removal.expected_freed_bytes
        assert before - self.used() == freed
        return freed

    def used(self) -> int:
        """Return the bytes of all content, every inode once; not the notes about it."""
        states = {}
        for folder in (
            self.root / ".cache",
            self.store.root / "objects",
            self.store.root / "parts",
        ):
            for path in folder.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    states[path.stat().st_ino] = path.stat().st_size
        return sum(states.values())

    def age(self, days: float = 3.0) -> None:
        """Let everything be older."""
        past = time.time() - days * 86_400
        for path in self.root.rglob("*"):
            os.utime(path, (past, past), follow_symlinks=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_one_row_for_both_caches(world: World) -> None:
    world.pull(MODEL)
    [entry] = world.entries()
    assert entry.hubs == ("ModelScope", "Hugging Face") and entry.hub == "ModelScope"
    assert entry.complete
    assert entry.size_bytes == BYTES + 40, "the branch's file is there as well"
    assert len(entry.paths) == 2 and entry.path == entry.paths[0]
    assert scan_cache(world.settings, world.environ).size_bytes == BYTES + 40


def test_both_names_of_a_paired_model_mean_the_one_row(world: World) -> None:
    world.pull(MODEL, "AI-Lab/tiny", "lab/Tiny-Instruct")
    entry = world.entry("lab/tiny-instruct")
    assert entry.repo_id == "AI-Lab/tiny" and entry.names == ("AI-Lab/tiny", "lab/Tiny-Instruct")


def test_a_row_for_each_where_two_clients_pulled_it(world: World) -> None:
    for folder in (
        world.modelscope / "models" / "lab--tiny" / "snapshots" / "master",
        world.huggingface / "models--lab--tiny" / "snapshots" / ("a" * 40),
    ):
        for name, content in MODEL.items():
            write(folder / name, content)
    assert sorted(entry.hub for entry in world.entries()) == ["Hugging Face", "ModelScope"]


def test_shared_files_count_once_in_all(world: World) -> None:
    world.pull(MODEL)
    world.pull(OTHER, "lab/other")
    listing = scan_cache(world.settings, world.environ)
    shared = sum(map(len, SMALL.values()))
    assert listing.size_bytes == sum(entry.size_bytes for entry in listing.entries) - shared


def test_removal_frees_the_store_as_well(world: World) -> None:
    world.pull(MODEL)
    assert world.remove("lab/tiny") == BYTES + 40
    assert world.used() == 0
    assert world.entries() == ()
    assert list(world.store.objects()) == []
    assert list(world.store.manifests()) == []


def test_removal_keeps_what_another_model_shows(world: World) -> None:
    world.pull(MODEL)
    world.pull(OTHER, "lab/other")
    assert world.remove("lab/tiny") == len(MODEL["model.safetensors"]) + 40
    assert world.entry("lab/other").complete
    for content in OTHER.values():
        assert world.store.find(sha256(content)) is not None
    # And the last one takes the rest
    world.remove("lab/other")
    assert world.used() == 0


def test_removal_of_both_at_once(world: World) -> None:
    world.pull(MODEL)
    world.pull(OTHER, "lab/other")
    world.remove("lab/tiny", "lab/other")
    assert world.used() == 0


def test_removal_keeps_what_a_node_holds(world: World) -> None:
    listing = world.pull(MODEL)
    key = ManifestKey("modelscope", "model", "lab/tiny", listing.commit)
    world.store.set_held(key, True)
    assert world.remove("lab/tiny") == 40, "the branch's file"
    for content in MODEL.values():
        assert world.store.find(sha256(content)) is not None
    # And it is a row of its own now, which can be removed as well
    [entry] = world.entries()
    assert entry.complete and entry.size_bytes == BYTES
    world.remove("lab/tiny")
    assert world.used() == 0


def test_removal_leaves_a_folder_of_the_user_s(world: World) -> None:
    listing = world.pull(MODEL)
    mine = export_folder(world.store, listing, listing.files, world.root / "mine")
    record_snapshot(world.settings, mine, listing, "ModelScope")
    world.remove("lab/tiny")
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == MODEL
    # And a later pull finds its files there
    assert world.store.find(sha256(MODEL["config.json"])) == mine / "config.json"


def test_files_with_a_name_elsewhere_are_not_freed(world: World) -> None:
    world.pull(MODEL)
    weights = world.entry().path / "snapshots" / "master" / "model.safetensors"
    os.link(weights, world.root / "kept")
    removal = plan_removal([world.entry()], world.settings, world.environ)
    assert removal.expected_freed_bytes == BYTES + 40 - len(MODEL["model.safetensors"])
    assert removal.execute() == removal.expected_freed_bytes
    assert (world.root / "kept").read_bytes() == MODEL["model.safetensors"]


def test_last_used_is_when_a_pull_found_it(world: World) -> None:
    world.pull(MODEL)
    world.age()
    used = world.entry().last_used
    touch_record(world.settings, world.entry().path / "snapshots" / "master")
    assert world.entry().last_used > used + 86_400


def test_progress_of_a_pull_that_was_broken_off(world: World) -> None:
    # Given a pull of which nothing is shown in a cache yet
    listing = listing_of(MODEL)
    world.store.write_manifest(listing)
    fill(world.store, SMALL)
    weights = MODEL["model.safetensors"]
    part = world.store.parts() / f"sha256-{sha256(weights)}.part"
    part.write_bytes(weights[: len(weights) // 2])
    # Then it is a row that tells how far it came
    entry = world.entry()
    assert not entry.complete
    expected = (BYTES - len(weights) + len(weights) // 2) / BYTES
    assert entry.progress == pytest.approx(expected)
    # And removing it takes the parts as well
    world.remove("lab/tiny")
    assert world.used() == 0 and not part.exists()


def test_progress_counts_what_the_listing_wants(world: World) -> None:
    listing = listing_of({**MODEL, "pytorch_model.bin": b"redundant" * 500})
    fill(world.store, SMALL)
    small = [file for file in listing.files if file.path in SMALL]
    path = export_modelscope(world.store, listing, small, world.modelscope, "lab/tiny")
    record_snapshot(world.settings, path, listing, "ModelScope")
    entry = world.entry()
    assert entry.progress == pytest.approx(sum(map(len, SMALL.values())) / BYTES)


def test_verify_finds_marks_and_quarantines(world: World) -> None:
    # Given a model, into whose weights somebody has written, with the old time
    listing = world.pull(MODEL)
    path = world.entry().path / "snapshots" / "master"
    weights = path / "model.safetensors"
    state = weights.stat()
    with weights.open("r+b") as stream:
        stream.write(b"X")
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    record = read_record(world.settings, path)
    assert record is not None and record.changed(listing.files) == [], "stat alone cannot tell"
    # When it is verified
    read: list[int] = []
    checks = checks_of(world.settings, world.entries())
    verdicts = list(run_checks(world.settings, checks, lambda _path, count: read.append(count)))
    # Then both snapshots are told to be wrong, the files were read once
    assert [[wrong.path for wrong in verdict.wrong] for verdict in verdicts] == [
        ["model.safetensors"],
        ["model.safetensors"],
    ]
    # And the next pull knows what to fetch
    record = read_record(world.settings, path)
    assert record is not None
    assert [file.path for file in record.changed(listing.files)] == ["model.safetensors"]
    assert world.store.find(sha256(MODEL["model.safetensors"])) is None
    assert not world.entry().complete
    # And putting it in again mends both caches
    world.pull(MODEL)
    assert world.entry().complete
    checks = checks_of(world.settings, world.entries())
    assert not any(verdict.wrong for verdict in run_checks(world.settings, checks))


def test_verify_knows_the_hashes_in_huggingface_s_names(world: World) -> None:
    # Given what Hugging Face's client leaves, without any listing
    repo = world.huggingface / "models--lab--tiny"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name, content in MODEL.items():
        write(repo / "blobs" / sha256(content), content)
        (snapshot / name).symlink_to(f"../../blobs/{sha256(content)}")
    blob = repo / "blobs" / sha256(MODEL["config.json"])
    blob.write_bytes(b"other")
    [verdict] = run_checks(world.settings, checks_of(world.settings, world.entries()))
    assert [wrong.path for wrong in verdict.wrong] == ["config.json"]
    # And the next look at it says that it lacks
    assert not world.entry().complete


def test_verify_says_what_it_cannot_know(world: World) -> None:
    write(world.modelscope / "models/lab--tiny/snapshots/master/config.json")
    [check] = checks_of(world.settings, world.entries())
    assert check.files == () and check.unknown == 1


def test_prune_takes_what_was_broken_off_and_what_nobody_needs(world: World) -> None:
    # Given a complete model, an old revision of it, and several sorts of leftovers
    world.pull(OTHER, "lab/keep")
    fill(world.store, {"orphan": b"orphan" * 10})
    partial = write(world.modelscope / "models/lab--keep/snapshots/master/x.incomplete", b"12345")
    write(world.modelscope / "hub/models/._____temp/lab/x/y.bin", b"123")
    write(world.huggingface / "models--lab--half/blobs/abc.incomplete", b"1234567")
    write(world.huggingface / "models--lab--keep/blobs/.x.0123456789ab.tmp", b"1234")
    part = write(world.store.root / "parts" / ("sha256-" + "0" * 64 + ".part"), b"123456789")
    world.age()
    # An object's age is that of its name, which cannot be set: two days from now.
    later = time.time() + 2 * 86_400
    fresh = write(world.modelscope / "models/lab--keep/snapshots/master/y.incomplete", b"1")
    os.utime(fresh, (later, later))
    # When it is planned, then nothing is gone
    plan = plan_prune(world.settings, world.environ, now=later)
    before = world.used()
    assert plan.expected_freed_bytes == 60 + 5 + 3 + 7 + 4 + 9
    assert world.used() == before
    # When it is done, then just that is free
    assert plan.execute() == plan.expected_freed_bytes
    assert before - world.used() == plan.expected_freed_bytes
    assert not partial.exists() and not part.exists() and fresh.exists()
    [entry] = world.entries()
    assert entry.is_called("lab/keep")
    for content in OTHER.values():
        assert world.store.find(sha256(content)) is not None


def test_prune_leaves_what_is_new_pinned_or_held(world: World) -> None:
    # Given three models that have not come far
    for name in ("lab/new", "lab/pinned", "lab/held"):
        content = {**MODEL, "name.txt": name.encode()}
        world.store.write_manifest(listing_of(content, name), held=name == "lab/held")
        fill(world.store, {"name.txt": name.encode()})
    world.store.pins.pin("model", "Lab/Pinned")
    # Then a day counts as being at work
    assert plan_prune(world.settings, world.environ).is_empty
    # And later only the one that nobody wants goes
    world.age()
    later = time.time() + 2 * 86_400
    plan = plan_prune(world.settings, world.environ, now=later)
    names = [entry.repo_id for entry in plan.incomplete.entries]
    assert "lab/new" in names and "lab/pinned" not in names
    plan.execute()
    assert world.store.find(sha256(b"lab/pinned")) is not None
    assert world.store.find(sha256(b"lab/new")) is None
    assert world.entry("lab/pinned").pinned


def test_prune_forgets_snapshots_that_are_gone(world: World) -> None:
    # Given a model whose folders another program has removed
    import shutil

    world.pull(MODEL)
    shutil.rmtree(world.root / ".cache")
    later = time.time() + 2 * 86_400
    # Then its bytes are found in the store, and freed
    plan = plan_prune(world.settings, world.environ, now=later)
    assert plan.execute() == plan.expected_freed_bytes == BYTES
    assert world.entries() == ()
    assert not list((world.root / "own" / "snapshots").iterdir())


def test_prune_leaves_a_part_that_was_wanted(world: World) -> None:
    # Given a pull of the configuration alone, and a model without the listed README
    listing = listing_of(MODEL)
    fill(world.store, SMALL)
    small = [file for file in listing.files if file.path in SMALL]
    path = export_modelscope(world.store, listing, small, world.modelscope, "lab/tiny")
    record_snapshot(world.settings, path, listing, "ModelScope")
    repo = world.huggingface / "models--lab--loadable"
    tree = {name: {"size": 2, "blob_id": "0"} for name in ("README.md", "config.json")}
    write(repo / "trees" / ("a" * 40 + ".json"), json.dumps({"files": tree}).encode())
    for name in ("config.json", "model.safetensors"):
        write(repo / "snapshots" / ("a" * 40) / name)
    world.age()
    # Then both are incomplete, and neither is thrown away
    assert [entry.complete for entry in world.entries()] == [False, False]
    plan = plan_prune(world.settings, world.environ, now=time.time() + 2 * 86_400)
    assert plan.incomplete.entries == ()
    # Until a file of the wanted ones is gone
    (path / "config.json").unlink()
    world.age()
    plan = plan_prune(world.settings, world.environ, now=time.time() + 2 * 86_400)
    assert [entry.repo_id for entry in plan.incomplete.entries] == ["lab/tiny"]


def test_a_pull_at_work_is_not_pruned(world: World) -> None:
    # Given a pull that began days ago and still writes
    listing = listing_of(MODEL)
    world.store.write_manifest(listing, point=False)
    world.age()
    weights = MODEL["model.safetensors"]
    write(world.store.root / "parts" / f"sha256-{sha256(weights)}.part", weights[:100])
    assert world.store.read_manifest(None, "model", "lab/tiny") is None, "no name points there"
    # Then it is shown, and left alone
    assert world.entry().progress == pytest.approx(100 / BYTES)
    assert plan_prune(world.settings, world.environ).is_empty


@pytest.mark.parametrize(
    "files", ["3", "[3]", "[[]]", '[["a"]]', '[["config.json", 2, null, null, 0, "x", 1, 2]]']
)
def test_a_broken_record_is_not_fatal(world: World, files: str) -> None:
    world.pull(MODEL)
    for record in records_folder(world.settings).iterdir():
        content = json.loads(record.read_text())
        record.write_text(json.dumps({**content, "files": json.loads(files)}))
    listing = scan_cache(world.settings, world.environ)
    assert len(listing.entries) + len(listing.warnings) >= 1
    assert all(entry.repo_id == "lab/tiny" for entry in listing.entries)
