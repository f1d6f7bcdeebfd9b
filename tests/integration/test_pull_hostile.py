"""Listings that lie, and names that want to leave their folder."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_machine import MIB, REPO_ID, FaultMachine, fault_machine
from fault_server import FaultServer, Repo

from swift_jupyter.errors import UserError
from swift_jupyter.hub.reference import RepoReference

HUBS = ("modelscope", "huggingface")
HOSTILE = RepoReference.of_hub("lab/hostile")
GOOD: dict[str, Any] = {"config.json": b"{}", "model.safetensors": 300_000}
EVIL_PATHS = (
    "../evil.txt",
    "../../../../../../tmp/evil.txt",
    "/tmp/evil.txt",
    "a/../../evil.txt",
    "a\0b.txt",
    "..",
    ".",
    "",
    "a//../../evil.txt",
    "a\\..\\..\\evil.txt",
    "C:\\evil.txt",
    "a/./b.txt",
    "x" * 300,
    "a\nb.txt",
    "\ud800.txt",
)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, server: FaultServer) -> Iterator[FaultMachine]:
    with fault_machine(tmp_path / "machine", server) as machine:
        yield machine


def everything_outside(machine: FaultMachine) -> set[Path]:
    root = machine.root.parent
    return {path for path in root.rglob("*") if machine.root not in (path, *path.parents)}


@pytest.mark.parametrize(
    ("hub", "path"),
    [
        *(("modelscope", path) for path in EVIL_PATHS),
        *(("huggingface", path) for path in EVIL_PATHS[:5]),
    ],
    ids=ascii,
)
def test_names_that_leave_their_folder(machine: FaultMachine, hub: str, path: str) -> None:
    # Given a listing with a hostile name
    machine.hub.put(Repo("lab/hostile", GOOD, extra=[{"path": path}]))
    before = everything_outside(machine)
    # When the repository is pulled, then it is refused, by a text that can be printed
    with pytest.raises(UserError) as caught:
        machine.pull(HOSTILE, hub)
    assert "it lists the path" in str(caught.value)
    assert str(caught.value).replace("\n", "").isprintable()
    # And nothing is written outside, nor anything asked for
    assert everything_outside(machine) == before
    assert not Path("/tmp/evil.txt").exists()
    assert not list(machine.root.rglob("*evil*"))
    assert not machine.published()
    assert machine.hub.counters().byte_requests == 0


@pytest.mark.parametrize(
    ("hub", "size"),
    [
        *(("modelscope", size) for size in (299_999, 300_001, 0, -1, 10**18, 10**30, "1", 3.5)),
        *(("huggingface", size) for size in (299_999, 300_001, 0, -1, None)),
    ],
)
def test_sizes_that_lie(machine: FaultMachine, hub: str, size: object) -> None:
    # Given a listing with a wrong size but the right hash
    listed = {"model.safetensors": {"size": size}}
    machine.hub.put(Repo("lab/hostile", GOOD, listed=listed))
    # When it is pulled
    started = time.monotonic()
    if size is None or (hub == "modelscope" and size == 0):
        # Then a size that is not told, for which ModelScope says 0, does not matter
        machine.assert_right(machine.pull(HOSTILE, hub).path, "lab/hostile")
    else:
        # Then a lie is an error
        with pytest.raises(UserError) as caught:
            machine.pull(HOSTILE, hub)
        assert caught.value.why
        assert not list(machine.root.rglob("model.safetensors"))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("sha256", ["0" * 64, "../../evil", "a" * 63, "", 7, None, ["x"]], ids=repr)
def test_hashes_that_lie(machine: FaultMachine, hub: str, sha256: object) -> None:
    listed = {"model.safetensors": {"sha256": sha256}}
    machine.hub.put(Repo("lab/hostile", GOOD, listed=listed))
    if not isinstance(sha256, str) or not sha256:
        # What is no text tells nothing; the size is all that can be checked then
        machine.assert_right(machine.pull(HOSTILE, hub).path, "lab/hostile")
    else:
        with pytest.raises(UserError) as caught:
            machine.pull(HOSTILE, hub)
        assert "model.safetensors" in str(caught.value)
        assert not list(machine.root.rglob("model.safetensors"))
    assert not list(machine.root.parent.rglob("*evil*"))


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    "extra",
    [
        [{"path": "config.json", "size": 2}],
        [{"path": "config.json/inner.txt"}],
        [{"path": "many", "size": 1}, {"path": "many/more", "size": 1}],
    ],
    ids=["the same name twice", "a file that is a folder", "a folder that is a file"],
)
def test_names_that_contradict(
    machine: FaultMachine, hub: str, extra: list[dict[str, Any]]
) -> None:
    machine.hub.put(Repo("lab/hostile", GOOD, extra=extra))
    with pytest.raises(UserError) as caught:
        machine.pull(HOSTILE, hub)
    assert repr(extra[0]["path"].partition("/")[0]) in str(caught.value)
    assert not machine.published()


def test_a_link_in_the_folder_is_not_followed_out_of_it(machine: FaultMachine) -> None:
    # Given a folder for the files in which a link leads elsewhere
    outside = machine.root.parent / "outside"
    outside.mkdir()
    folder = machine.root.parent / "wanted"
    folder.mkdir()
    (folder / "notes").symlink_to(outside)
    # When a model with files below that name is pulled there
    try:
        machine.pull(local_dir=folder)
    except UserError as error:
        assert error.what
    # Then nothing is written where the link leads
    assert not list(outside.iterdir())


def test_a_very_long_listing(machine: FaultMachine) -> None:
    # Given a listing of fifty thousand files, of which one is wanted
    machine.hub.put(Repo("lab/hostile", GOOD, generated=50_000))
    most = 0
    watched = threading.Event()

    def watch() -> None:
        nonlocal most
        while not watched.wait(0.02):
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error):
                    if "transfer" in " ".join(child.cmdline()):
                        most = max(most, child.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    try:
        snapshot = machine.pull(HOSTILE, include=("config.json",))
    finally:
        watched.set()
        watcher.join()
    assert (snapshot.path / "config.json").read_bytes() == b"{}"
    # Then neither time nor memory is wasted on the others
    assert time.monotonic() - started < 10
    assert 0 < most < 150 * MIB


def test_pages_are_all_read(machine: FaultMachine) -> None:
    # Given listings that come in pages
    files: dict[str, Any] = {f"rows/{number:04}.txt": b"%d" % number for number in range(450)}
    machine.hub.put(Repo("lab/hostile", files), Repo("lab/rows", files, kind="dataset"))
    machine.hub.set(page=100)
    for hub in HUBS:
        reference = RepoReference.of_hub("lab/rows", "dataset")
        snapshot = machine.pull(reference, hub)
        assert len([path for path in snapshot.path.rglob("*") if path.is_file()]) == 450
    machine.assert_right(machine.pull(HOSTILE, "huggingface").path, "lab/hostile")


def test_a_cut_listing_is_walked_by_folders(machine: FaultMachine) -> None:
    # Given more files than ModelScope lists at once; it says nothing of the rest
    files: dict[str, Any] = {f"{n % 4}/{n:05}.txt": b"%d" % n for n in range(3_400)}
    machine.hub.put(Repo("lab/hostile", files))
    snapshot = machine.pull(HOSTILE, "modelscope", include=("3/033*", "0/00000.txt"))
    found = {path.name for path in snapshot.path.rglob("*") if path.is_file()}
    expected = {f"{n:05}.txt" for n in range(3_300, 3_400) if n % 4 == 3} | {"00000.txt"}
    assert found == expected


def test_a_listing_in_circles_ends(machine: FaultMachine) -> None:
    # Given a dataset whose server gives the first page again and again
    files: dict[str, Any] = {f"{number:04}.txt": b"x" for number in range(200)}
    machine.hub.put(Repo("lab/rows", files, kind="dataset", stuck_page=True))
    started = time.monotonic()
    try:
        snapshot = machine.pull(RepoReference.of_hub("lab/rows", "dataset"), "modelscope")
    except UserError as error:
        assert error.why
    else:
        assert len(list(snapshot.path.glob("*.txt"))) == 200
    assert time.monotonic() - started < 30


def test_error_pages_of_any_length_become_short_words(machine: FaultMachine) -> None:
    machine.hub.put(Repo("lab/hostile", GOOD))
    machine.hub.set(refuse=(500, "<script>" + "x" * 30_000))
    with pytest.raises(UserError) as caught:
        machine.pull(HOSTILE)
    assert len(str(caught.value)) < 2_000


def test_the_right_model_still_comes(machine: FaultMachine) -> None:
    machine.assert_right(machine.pull().path, REPO_ID)
