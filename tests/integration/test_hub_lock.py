"""``swift-jupyter.lock``: written by a pull, and the same bytes again from whoever has them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from hub_machine import HUBS, MODEL, PULLED, REFERENCE, Machine, files_in, two_hubs

from swift_jupyter.errors import UserError
from swift_jupyter.hub.lock_file import LockEntry, read_lock, update_lock


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with two_hubs(tmp_path) as machine:
        yield machine


@pytest.fixture(params=sorted(HUBS))
def hub(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def lock(machine: Machine, path: Path, **options: object) -> LockEntry:
    update_lock(path, [machine.pull(**options)], machine.settings)  # type: ignore[arg-type]
    [entry] = read_lock(path)
    return entry


def fresh(machine: Machine, folder: Path) -> Machine:
    """Return another machine that sees the same hubs."""
    return Machine(folder, machine.hubs["modelscope"], machine.hubs["huggingface"])


def test_lock_names_every_pulled_file(machine: Machine, hub: str, tmp_path: Path) -> None:
    entry = lock(machine, tmp_path / "swift-jupyter.lock", source=hub)
    assert (entry.hub, entry.repo_id, entry.kind) == (hub, "lab/tiny", "model")
    assert {file.path for file in entry.files} == PULLED
    assert {file.size for file in entry.files} == {len(MODEL[name]) for name in PULLED}
    if hub == "huggingface":
        assert entry.commit == machine.hubs[hub].commit("model", "lab/tiny")


def test_locked_bytes_come_again_on_another_machine(
    machine: Machine, hub: str, tmp_path: Path
) -> None:
    entry = lock(machine, tmp_path / "swift-jupyter.lock", source=hub)
    snapshot = fresh(machine, tmp_path / "second").pull(REFERENCE, locked=entry)
    assert files_in(snapshot.path) == {name: MODEL[name] for name in PULLED}
    # And the lock of the second machine is the same, byte for byte
    second = fresh(machine, tmp_path / "second")
    again = tmp_path / "again.lock"
    update_lock(again, [second.pull(REFERENCE, locked=entry)], second.settings)
    assert again.read_bytes() == (tmp_path / "swift-jupyter.lock").read_bytes()


def test_the_other_hub_may_serve_a_lock(machine: Machine, hub: str, tmp_path: Path) -> None:
    entry = lock(machine, tmp_path / "swift-jupyter.lock", source=hub)
    del machine.hubs[hub].repositories["model", "lab/tiny"]
    snapshot = fresh(machine, tmp_path / "second").pull(REFERENCE, locked=entry)
    assert files_in(snapshot.path) == {name: MODEL[name] for name in PULLED}


def test_what_differs_from_the_lock_is_named(machine: Machine, hub: str, tmp_path: Path) -> None:
    entry = lock(machine, tmp_path / "swift-jupyter.lock", source=hub)
    # Given that both hubs have moved on
    for server in machine.hubs.values():
        files = server.repositories["model", "lab/tiny"]
        files["config.json"] = b'{"model_type": "other"}'
        files["new.json"] = b"{}"
        del files["sub folder/note-中.txt"]
    with pytest.raises(UserError) as caught:
        fresh(machine, tmp_path / "second").pull(REFERENCE, locked=entry)
    error = caught.value
    assert "as it is locked" in error.what
    for name in HUBS.values():
        assert f"{name}: it differs from the lock: changed: config.json" in error.why
    assert "missing: sub folder/note-中.txt" in error.why
    assert "new.json" in error.why
    # And the machine that has the bytes needs nobody
    machine.unplug()
    snapshot = machine.pull(REFERENCE, locked=entry)
    assert files_in(snapshot.path)["config.json"] == MODEL["config.json"]


def test_locked_commit_of_huggingface_is_asked_for(machine: Machine, tmp_path: Path) -> None:
    entry = lock(machine, tmp_path / "swift-jupyter.lock", source="huggingface")
    second = fresh(machine, tmp_path / "second")
    second.pull(REFERENCE, source="huggingface", locked=entry)
    asked = machine.hubs["huggingface"].requests
    assert f"GET /api/models/lab/tiny/revision/{entry.commit}" in asked


def test_an_old_lock_does_not_turn_the_branch_back(machine: Machine, tmp_path: Path) -> None:
    # Given a lock, and a later state of the branch on this machine
    entry = lock(machine, tmp_path / "swift-jupyter.lock", source="modelscope")
    new = b'{"model_type": "qwen3"}'
    machine.hubs["modelscope"].repositories["model", "lab/tiny"]["config.json"] = new
    latest = machine.pull(source="modelscope")
    # When the locked state is wanted
    snapshot = machine.pull(REFERENCE, locked=entry)
    # Then both are there
    assert files_in(snapshot.path)["config.json"] == MODEL["config.json"]
    assert files_in(latest.path)["config.json"] == new


def test_entries_of_other_repositories_stay(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "swift-jupyter.lock"
    lock(machine, path, source="modelscope")
    for server in machine.hubs.values():
        server.repositories["model", "a/first"] = {"config.json": b"{}", "m.safetensors": b"1"}
    from swift_jupyter.hub.reference import RepoReference

    added = machine.pull(RepoReference.of_hub("a/first"), source="modelscope")
    update_lock(path, [added], machine.settings)
    assert [entry.repo_id for entry in read_lock(path)] == ["a/first", "lab/tiny"]
    before = path.read_bytes()
    update_lock(path, [added], machine.settings)
    assert path.read_bytes() == before


def test_folder_that_nobody_pulled_cannot_be_locked(tmp_path: Path) -> None:
    from swift_jupyter.hub.reference import RepoReference

    with FakeHub({}) as server:
        machine = Machine(tmp_path, server, server)
    (tmp_path / "m").mkdir()
    snapshot = machine.pull(RepoReference("m", local_path=tmp_path / "m"))
    with pytest.raises(UserError, match="cannot be written into a lock file"):
        update_lock(tmp_path / "swift-jupyter.lock", [snapshot], machine.settings)
    assert not (tmp_path / "swift-jupyter.lock").exists()


def test_locked_wrong_bytes_are_refused(machine: Machine, hub: str, tmp_path: Path) -> None:
    # Given a lock that somebody has changed by hand
    path = tmp_path / "swift-jupyter.lock"
    lock(machine, path, source=hub)
    content = json.loads(path.read_text())
    for file in content["repositories"][0]["files"]:
        file["sha256"] = "0" * 64
        file.pop("git_sha1", None)
    path.write_text(json.dumps(content))
    [entry] = read_lock(path)
    with pytest.raises(UserError):
        fresh(machine, tmp_path / "second").pull(REFERENCE, locked=entry)
    assert not list((tmp_path / "second" / ".cache").rglob("model.safetensors"))
