"""From a pull to damage, to the remedy that ``%swift cache verify`` names, to removal."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, free_dead_url

from swift_jupyter.errors import UserError
from swift_jupyter.hub.cache.checking import checks_of, run_checks
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.prune import plan_prune
from swift_jupyter.hub.cache.removal import plan_removal
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.store.store import open_store
from swift_jupyter.settings import Settings

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": random.Random(5).randbytes(500_000),
}


class Machine:
    """A user's machine and one server that is both hubs."""

    def __init__(self, root: Path, server: FakeHub) -> None:
        self.root, self.server = root, server
        self.settings = Settings(cache_dir=str(root / "own"))
        self.environ = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(root),
            "LANGUAGE": "en",
            "NO_PROXY": "127.0.0.1",
            "MODELSCOPE_ENDPOINT": server.url,
            "HF_ENDPOINT": server.url,
        }

    def pull(self) -> Snapshot:
        return pull(RepoReference.of_hub("lab/tiny"), self.settings, environ=self.environ)

    def entry(self) -> CachedRepo:
        [entry] = scan_cache(self.settings, self.environ).entries
        return entry

    def wrong(self) -> set[str]:
        checks = checks_of(self.settings, [self.entry()])
        return {
            wrong.path for verdict in run_checks(self.settings, checks) for wrong in verdict.wrong
        }


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with FakeHub({("model", "lab/tiny"): dict(MODEL)}) as server:
        yield Machine(tmp_path, server)


def test_damage_is_found_and_mended_in_both_caches(machine: Machine) -> None:
    # Given a pulled model into whose weights somebody has written, with the old time
    weights = machine.pull().path / "model.safetensors"
    assert machine.wrong() == set()
    state = weights.stat()
    with weights.open("r+b") as stream:
        stream.write(b"damage")
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    # When it is verified, then it is found, and not handed out any more
    assert machine.wrong() == {"model.safetensors"}
    endpoints = dict(machine.environ)
    machine.environ["MODELSCOPE_ENDPOINT"] = machine.environ["HF_ENDPOINT"] = free_dead_url()
    with pytest.raises(UserError):
        machine.pull()
    # When it is pulled again, then all is right again, in both caches
    machine.environ = endpoints
    machine.server.requests.clear()
    snapshot = machine.pull()
    assert (snapshot.path / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
    assert machine.wrong() == set()
    assert machine.entry().complete and len(machine.entry().paths) == 2
    # And only the wrong file was fetched
    fetched = [line for line in machine.server.requests if line.endswith("/repo")]
    assert len(fetched) <= 2


def test_removal_gives_everything_back(machine: Machine) -> None:
    machine.pull()
    removal = plan_removal([machine.entry()], machine.settings, machine.environ)
    assert removal.expected_freed_bytes >= sum(map(len, MODEL.values()))
    assert removal.execute() == removal.expected_freed_bytes
    store = open_store(machine.settings)
    assert list(store.objects()) == [] and list(store.manifests()) == []
    assert plan_prune(machine.settings, machine.environ, days=0.0).is_empty
    assert scan_cache(machine.settings, machine.environ).entries == ()


def test_prune_takes_nothing_of_a_pulled_model(machine: Machine) -> None:
    machine.pull()
    plan = plan_prune(machine.settings, machine.environ, days=0.0)
    assert plan.is_empty
    plan.execute()
    assert machine.wrong() == set()
