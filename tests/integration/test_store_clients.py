"""The store and the hubs' unmodified clients: each takes what the other has left for its own."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, free_dead_url
from stored_models import fill, listing_of, sha256

from swift_jupyter.hub.cache.adoption import adopt_from_caches
from swift_jupyter.hub.cache.checking import checks_of, run_checks
from swift_jupyter.hub.cache.records import record_snapshot
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.hub.listing import RepoListing
from swift_jupyter.hub.store.export import export_huggingface, export_modelscope
from swift_jupyter.hub.store.store import Store, open_store
from swift_jupyter.settings import Settings

REPO = "lab/Tiny-2.5"
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": random.Random(3).randbytes(400_000),
    "sub folder/note-中.txt": b"hello",
}


class Machine:
    """A user's machine, and a server that speaks the protocols of both hubs."""

    def __init__(self, root: Path, server: FakeHub) -> None:
        self.root, self.server = root, server
        self.settings = Settings(cache_dir=str(root / "own"))
        self.store: Store = open_store(self.settings)
        self.environ = {"HOME": str(root)}
        self.modelscope = root / ".cache" / "modelscope"
        self.huggingface = root / ".cache" / "huggingface" / "hub"

    def by_huggingface(self, offline: bool = False) -> Path:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(
                REPO,
                cache_dir=self.huggingface,
                endpoint=self.server.url,
                local_files_only=offline,
                token=False,
            )
        )

    def by_modelscope(self, offline: bool = False) -> Path:
        from modelscope_hub import HubApi, HubConfig

        url = free_dead_url() if offline else self.server.url
        api = HubApi(HubConfig(endpoint=url, cache_dir=self.modelscope))
        return Path(api.download_repo(REPO, "model", local_files_only=offline))

    def show(self, listing: RepoListing) -> None:
        fill(self.store, MODEL)
        for path in (
            export_modelscope(self.store, listing, listing.files, self.modelscope, REPO),
            export_huggingface(self.store, listing, listing.files, self.huggingface, REPO),
        ):
            record_snapshot(self.settings, path, listing, "ModelScope")

    def byte_requests(self) -> list[str]:
        return [
            line
            for line in self.server.requests
            if line.startswith("GET") and ("/resolve/" in line or line.endswith("/repo"))
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with FakeHub({("model", REPO): dict(MODEL)}) as server:
        yield Machine(tmp_path, server)


def read(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("hub", ["modelscope", "huggingface"])
def test_both_clients_find_what_was_pulled_from_either(machine: Machine, hub: str) -> None:
    # Given a model that a pull from one hub has shown in both caches
    machine.show(listing_of(MODEL, REPO, hub))  # type: ignore[arg-type]
    # Then both clients find it without a network
    assert read(machine.by_huggingface(offline=True)) == MODEL
    assert read(machine.by_modelscope(offline=True)) == MODEL
    # And with one, neither fetches a byte: the other hub's commit only gets new links
    assert read(machine.by_huggingface()) == MODEL
    assert read(machine.by_modelscope()) == MODEL
    assert machine.byte_requests() == []


def test_their_own_scan_has_no_complaint(machine: Machine) -> None:
    from huggingface_hub import scan_cache_dir

    machine.show(listing_of(MODEL, REPO, "huggingface"))
    found = scan_cache_dir(machine.huggingface)
    assert not found.warnings
    [repo] = found.repos
    assert repo.repo_id == REPO and repo.size_on_disk == sum(map(len, MODEL.values()))


@pytest.mark.parametrize("client", ["by_modelscope", "by_huggingface"])
@pytest.mark.parametrize("hub", ["modelscope", "huggingface"])
def test_what_a_client_has_fetched_is_taken_in(machine: Machine, client: str, hub: str) -> None:
    # Given a model that one hub's own client has fetched
    folder = getattr(machine, client)()
    # When either hub lists it, then all of it is taken in, without a copy
    listing = listing_of(MODEL, REPO, hub)  # type: ignore[arg-type]
    ids = {"modelscope": REPO, "huggingface": REPO}
    had = adopt_from_caches(machine.store, "model", listing.files, ids, machine.environ)  # type: ignore[arg-type]
    assert had == set(MODEL)
    for name, content in MODEL.items():
        found = machine.store.find(sha256(content))
        assert found is not None and found.samefile(folder / name)
    # And shown to the other client, which fetches nothing
    machine.server.requests.clear()
    machine.show(listing)
    other = machine.by_huggingface if client == "by_modelscope" else machine.by_modelscope
    assert read(other()) == MODEL
    assert machine.byte_requests() == []


@pytest.mark.parametrize("client", ["by_modelscope", "by_huggingface"])
def test_what_a_client_has_fetched_is_listed_and_verified(machine: Machine, client: str) -> None:
    folder = getattr(machine, client)()
    [entry] = scan_cache(machine.settings, machine.environ).entries
    assert entry.complete and entry.repo_id == REPO
    assert entry.size_bytes >= sum(map(len, MODEL.values()))
    [verdict] = run_checks(machine.settings, checks_of(machine.settings, [entry]))
    assert verdict.wrong == ()
    if client == "by_huggingface":
        # Its names tell the hashes, so that damage is found.
        assert len(verdict.check.files) == len(MODEL)
        (folder / "config.json").resolve().write_bytes(b"other")
        [verdict] = run_checks(machine.settings, checks_of(machine.settings, [entry]))
        assert [wrong.path for wrong in verdict.wrong] == ["config.json"]
    else:
        assert verdict.check.unknown == len(MODEL)
