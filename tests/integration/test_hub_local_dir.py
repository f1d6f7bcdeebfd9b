"""Pulling into a folder of the user's: warm calls, the user's edits, other files in the way."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_machine import HUBS, MODEL, PULLED, REFERENCE, WEIGHTS, Machine, files_in, two_hubs

from swift_jupyter.errors import UserError
from swift_jupyter.hub.reference import RepoReference

EDIT = b'{"model_type": "llama", "rope_scaling": null}'


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with two_hubs(tmp_path) as machine:
        yield machine


@pytest.fixture(params=sorted(HUBS))
def hub(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_second_call_is_warm(machine: Machine, hub: str, tmp_path: Path) -> None:
    first = machine.pull(source=hub, local_dir=tmp_path / "here")
    machine.unplug()
    started = time.perf_counter()
    second = machine.pull(local_dir=tmp_path / "here")
    assert time.perf_counter() - started < 0.2
    assert (second.path, second.source, second.notices) == (first.path, "cache", ())
    assert second.size_bytes == first.size_bytes
    # And nothing of it is taken for another revision or another model
    for reference in (
        RepoReference.of_hub("lab/tiny", revision="v2"),
        RepoReference.of_hub("lab/else"),
    ):
        with pytest.raises(UserError):
            machine.pull(reference, local_dir=tmp_path / "here")


def test_no_cache_is_filled_beside_the_folder(machine: Machine, hub: str, tmp_path: Path) -> None:
    machine.pull(source=hub, local_dir=tmp_path / "here")
    assert not (tmp_path / ".cache").exists()


def test_edit_stays_and_is_told(machine: Machine, hub: str, tmp_path: Path) -> None:
    # Given a pulled folder in which a file was edited
    folder = tmp_path / "here"
    machine.pull(source=hub, local_dir=folder)
    (folder / "config.json").write_bytes(EDIT)
    # When it is pulled again: warm, from the hub, and after the hub has changed the file
    for options in ({}, {"source": hub}, {"source": hub}):
        snapshot = machine.pull(local_dir=folder, **options)
        # Then the edit stays, and the user is told how to be rid of it
        assert (folder / "config.json").read_bytes() == EDIT
        [notice] = snapshot.notices
        assert "config.json" in notice and "delete it" in notice
        machine.hubs[hub].repositories["model", "lab/tiny"]["config.json"] = b'{"new": 1}'
    # And the cached copy never saw the edit
    (folder / "config.json").unlink()
    snapshot = machine.pull(source=hub, local_dir=folder)
    assert snapshot.notices == ()
    assert (folder / "config.json").read_bytes() == b'{"new": 1}'


def test_unedited_files_follow_the_hub(machine: Machine, hub: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    machine.pull(source=hub, local_dir=folder)
    machine.hubs[hub].repositories["model", "lab/tiny"]["config.json"] = b'{"new": 1}'
    assert machine.pull(source=hub, local_dir=folder).notices == ()
    assert (folder / "config.json").read_bytes() == b'{"new": 1}'


def test_other_files_in_the_way_are_not_replaced(
    machine: Machine, hub: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError) as caught:
        machine.pull(source=hub, local_dir=folder)
    assert "config.json" in caught.value.what
    assert "--local_dir" in caught.value.next_step
    assert files_in(folder) == {"config.json": b"{}"}
    # And not by a copy from the cache either
    machine.pull(source=hub)
    with pytest.raises(UserError, match=r"config\.json"):
        machine.pull(local_dir=folder)
    assert files_in(folder) == {"config.json": b"{}"}


def test_files_that_are_right_already_are_not_fetched(
    machine: Machine, hub: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    machine.pull(source=hub, local_dir=folder)
    assert "model.safetensors" not in machine.hubs[hub].sent
    assert files_in(folder) == {name: MODEL[name] for name in PULLED}


def test_copy_from_the_cache_is_warm_and_keeps_edits(machine: Machine, tmp_path: Path) -> None:
    machine.pull(source="modelscope")
    machine.unplug()
    folder = tmp_path / "here"
    machine.pull(local_dir=folder)
    (folder / "config.json").write_bytes(EDIT)
    (folder / "sub folder/note-中.txt").unlink()
    snapshot = machine.pull(local_dir=folder)
    assert (folder / "config.json").read_bytes() == EDIT
    assert (folder / "sub folder/note-中.txt").read_bytes() == MODEL["sub folder/note-中.txt"]
    assert len(snapshot.notices) == 1
    machine.remove("config.json")
    assert machine.pull(local_dir=folder).source == "cache"


def test_editing_a_small_file_in_place_leaves_the_cache_right(
    machine: Machine, hub: str, tmp_path: Path
) -> None:
    machine.pull(source=hub)
    machine.pull(source=hub, local_dir=tmp_path / "here")
    with (tmp_path / "here" / "config.json").open("r+b") as stream:
        stream.write(b"?")
    machine.unplug()
    assert files_in(machine.pull().path)["config.json"] == MODEL["config.json"]


@pytest.mark.parametrize("name", ["here", "."])
def test_folder_that_is_a_link_or_the_working_folder(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "real").mkdir()
    (work / "here").symlink_to(tmp_path / "real")
    monkeypatch.chdir(work)
    snapshot = machine.pull(REFERENCE, local_dir=Path(name))
    assert set(files_in(snapshot.path)) >= PULLED
