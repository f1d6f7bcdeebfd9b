"""Files of existing caches, in every layout, taken in without a copy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from stored_models import MODEL, fill, git_sha1, listing_of, sha256, write

from swift_jupyter.hub.cache.adoption import adopt_from_caches
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.store.store import Store

REPO = "Lab/Tiny-2.5"
OLD_LAYOUTS = (
    "models/Lab--Tiny-2.5/snapshots/master",
    "models/Lab--Tiny-2.5/snapshots/v1",
    "models/Lab/Tiny-2___5",
    "hub/models/Lab/Tiny-2___5",
    "hub/Lab/Tiny-2___5",
    "Lab/Tiny-2.5",
)


class Machine:
    """A user's caches and store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "own" / "store")
        self.modelscope = root / ".cache" / "modelscope"
        self.huggingface = root / ".cache" / "huggingface" / "hub"
        self.read: list[str] = []

    def adopt(self, files: tuple[RemoteFile, ...], **names: str | None) -> set[str]:
        ids = {"modelscope": REPO, "huggingface": REPO, **names}
        return adopt_from_caches(
            self.store,
            "model",
            files,
            ids,  # type: ignore[arg-type]
            {"HOME": str(self.root)},
            progress=lambda path, _count: self.read.append(path),
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("hub", ["modelscope", "huggingface"])
@pytest.mark.parametrize("layout", OLD_LAYOUTS)
def test_every_layout_of_modelscope(machine: Machine, layout: str, hub: str) -> None:
    # Given a model in a cache of some client, one file of which is missing and one damaged
    folder = machine.modelscope / layout
    for name, content in MODEL.items():
        if name != "tokenizer.json":
            write(folder / name, content)
    write(folder / "config.json", MODEL["config.json"][:-1] + b"X")
    listing = listing_of(MODEL, REPO, hub)  # type: ignore[arg-type]
    # Then only the right file is taken in, as a link
    assert machine.adopt(listing.files) == {"model.safetensors"}
    found = machine.store.find(sha256(MODEL["model.safetensors"]))
    assert found is not None and found.samefile(folder / "model.safetensors")


def huggingface_links(machine: Machine) -> Path:
    repo = machine.huggingface / "models--Lab--Tiny-2.5"
    for name, content in MODEL.items():
        etag = sha256(content) if name.endswith("safetensors") else git_sha1(content)
        write(repo / "blobs" / etag, content)
        link = repo / "snapshots" / ("e" * 40) / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../blobs/{etag}")
    return repo


def huggingface_files(machine: Machine) -> Path:
    repo = machine.huggingface / "models--Lab--Tiny-2.5"
    for name, content in MODEL.items():
        write(repo / "snapshots" / ("e" * 40) / name, content)
    return repo


@pytest.mark.parametrize("layout", [huggingface_links, huggingface_files])
@pytest.mark.parametrize("hub", ["modelscope", "huggingface"])
def test_the_layouts_of_huggingface(
    machine: Machine, layout: Callable[[Machine], Path], hub: str
) -> None:
    # Given a model in Hugging Face's cache, where links are possible or not
    layout(machine)
    # When either hub lists it under its own name, then everything is taken in
    listing = listing_of(MODEL, REPO, hub)  # type: ignore[arg-type]
    assert machine.adopt(listing.files) == set(MODEL)
    # And what is known is not read again
    machine.read.clear()
    assert machine.adopt(listing.files) == set(MODEL)
    assert machine.read == []


def test_the_other_hub_s_name_counts(machine: Machine) -> None:
    write(machine.modelscope / "models/Other--Name/snapshots/master/config.json", b"{}")
    files = listing_of({"config.json": b"{}"}, REPO).files
    assert machine.adopt(files) == set()
    assert machine.adopt(files, modelscope="Other/Name") == {"config.json"}


def test_only_candidates_are_read(machine: Machine) -> None:
    folder = machine.modelscope / OLD_LAYOUTS[0]
    write(folder / "config.json", MODEL["config.json"])
    write(folder / "model.safetensors", b"another size")
    write(folder / "other.bin", MODEL["model.safetensors"])
    assert machine.adopt(listing_of(MODEL, REPO).files) == {"config.json"}
    assert set(machine.read) == {"config.json"}


def test_without_caches_the_store_alone_answers(machine: Machine) -> None:
    assert machine.adopt(listing_of(MODEL, REPO).files, huggingface=None) == set()
    fill(machine.store, {"config.json": MODEL["config.json"]})
    assert machine.adopt(listing_of(MODEL, REPO).files) == {"config.json"}


def test_names_that_leave_the_cache_are_not_looked_at(machine: Machine) -> None:
    write(machine.root / ".cache" / "config.json", b"{}")
    files = listing_of({"config.json": b"{}"}, REPO).files
    assert machine.adopt(files, modelscope="..", huggingface="../..") == set()


def test_it_can_be_stopped(machine: Machine) -> None:
    write(machine.modelscope / OLD_LAYOUTS[0] / "config.json", MODEL["config.json"])

    def stop(_path: str, _count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopt_from_caches(
            machine.store,
            "model",
            listing_of(MODEL, REPO).files,
            {"modelscope": REPO},
            {"HOME": str(machine.root)},
            progress=stop,
        )
