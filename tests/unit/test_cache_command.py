"""``%swift cache``: what it shows, and that it removes only what was shown before."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from stored_models import MODEL, fill, listing_of, write

from swift_jupyter.commands.cache import CacheOptions, run
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.frontend import SilentFrontend
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.hub.cache.records import record_snapshot
from swift_jupyter.hub.store.export import export_huggingface, export_modelscope
from swift_jupyter.hub.store.store import open_store
from swift_jupyter.settings import Settings


class Frontend(SilentFrontend):
    """Keeps what was shown."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)


class Machine:
    """A machine with two models and a data set in its caches."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.frontend = Frontend()
        self.context = Context(Settings(cache_dir=str(root / "own")), self.frontend)
        self.weights: Path = self.pull("Qwen/Tiny", "ModelScope") / "model.safetensors"
        half = write(root / ".cache/huggingface/hub/models--lab--half/blobs/x.incomplete")
        os.utime(half, (1, 1))
        rows = root / ".cache" / "modelscope" / "datasets" / "lab--rows" / "snapshots" / "master"
        write(rows / "a.jsonl", b"{}\n" * 1000)

    def pull(self, repo_id: str, source: str) -> Path:
        store = open_store(self.context.settings)
        listing = listing_of(MODEL, repo_id)
        fill(store, MODEL)
        store.write_manifest(listing)
        cache = self.root / ".cache"
        path = export_modelscope(store, listing, listing.files, cache / "modelscope", repo_id)
        record_snapshot(self.context.settings, path, listing, source)
        other = export_huggingface(
            store, listing, listing.files, cache / "huggingface" / "hub", repo_id
        )
        record_snapshot(self.context.settings, other, listing, source)
        return path

    def cache(self, action: str = "ls", *names: str, **options: Any) -> Any:
        return run(CacheOptions(action=action, names=list(names), **options), self.context)

    def names(self, *arguments: str, **options: Any) -> list[str]:
        return [row["name"] for row in self.cache("ls", *arguments, **options)]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "MODELSCOPE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANGUAGE", "en")
    return Machine(tmp_path)


def test_ls_shows_everything(machine: Machine) -> None:
    table = machine.cache()
    rows = {row["name"]: row for row in table}
    assert set(rows) == {"Qwen/Tiny", "lab/half", "lab/rows"}
    assert rows["Qwen/Tiny"]["hub"] == "ModelScope, Hugging Face"
    assert rows["Qwen/Tiny"]["state"] == "complete"
    assert rows["lab/half"]["state"] == "incomplete"
    assert rows["lab/half"]["last_used"] == time.strftime("%Y-%m-%d", time.localtime(1))
    assert json.loads(json.dumps(table.to_dict()))["size_bytes"] > 10_000
    assert "in all" in table.text() and "<table>" in table.html()


def test_ls_filters_and_sorts(machine: Machine) -> None:
    assert machine.names("qwen/*") == ["Qwen/Tiny"]
    assert machine.names("lab/*", kind="dataset") == ["lab/rows"]
    assert machine.names(incomplete=True) == ["lab/half"]
    assert machine.names(sort="size")[0] == "Qwen/Tiny"
    assert machine.names(sort="name") == ["lab/half", "lab/rows", "Qwen/Tiny"]
    assert machine.names(sort="used")[-1] == "lab/half"
    assert machine.names(kind="dataset", incomplete=True) == []


def test_an_incomplete_one_tells_how_far_it_came(machine: Machine) -> None:
    (machine.weights.parent / "model.safetensors").unlink()
    link = machine.root / ".cache/huggingface/hub/models--Qwen--Tiny"
    for path in link.rglob("model.safetensors"):
        path.unlink()
    small = sum(len(data) for name, data in MODEL.items() if name.endswith("json"))
    percent = int(100 * small / sum(map(len, MODEL.values())))
    [row] = machine.cache("ls", "qwen/tiny")
    assert row["state"] == f"incomplete · {percent} %"


def test_broken_entries_are_told(machine: Machine) -> None:
    (machine.root / ".cache/huggingface/hub/models--only--refs/refs").mkdir(parents=True)
    machine.cache()
    assert len(machine.frontend.notices) == 1 and "only--refs" in machine.frontend.notices[0]


def test_show_tells_files_and_folders(machine: Machine) -> None:
    facts = machine.cache("show", "qwen/tiny")
    data = json.loads(json.dumps(facts.to_dict()))
    assert data["hubs"] == ["ModelScope", "Hugging Face"] and len(data["paths"]) == 2
    files = data["snapshots"][0]["files"]
    assert {file["path"] for file in files} == set(MODEL)
    assert all(file["sha256"] for file in files)
    assert "model.safetensors" in facts.text() and str(facts.paths[0]) in facts.text()
    assert "%swift download lab/half" in machine.cache("show", "lab/half").text()
    assert len(machine.cache("show", "lab/*")) == 2


def test_verify_names_the_wrong_file_and_the_remedy(machine: Machine) -> None:
    table = machine.cache("verify", "Qwen/Tiny")
    assert table.data["right"] and "right" in table.text()
    with machine.weights.open("r+b") as stream:
        stream.write(b"X")
    table = machine.cache("verify")
    assert not table.data["right"]
    assert "model.safetensors" in table.note
    assert "%swift download Qwen/Tiny" in table.note
    [wrong] = {row["name"] for row in table if row["wrong"]}
    assert wrong == "Qwen/Tiny"
    assert machine.cache("ls", "Qwen/Tiny")[0]["state"].startswith("incomplete")


def test_verify_can_be_stopped(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    class View:
        def __enter__(self) -> "View":
            return self

        def __exit__(self, *_exception: object) -> None:
            return None

        def update(self, *_arguments: object) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(machine.frontend, "progress", lambda _title: View())
    with pytest.raises(Interrupted, match="Stopped after 0"):
        machine.cache("verify")


def test_rm_shows_first(machine: Machine) -> None:
    table = machine.cache("rm", "qwen/*")
    assert machine.weights.exists() and not table.data["removed"]
    assert "add --yes" in table.note
    expected = table.data["freed_bytes"]
    table = machine.cache("rm", "qwen/*", yes=True)
    assert table.data == {"freed_bytes": expected, "removed": True}
    assert not machine.weights.exists()
    assert list(open_store(machine.context.settings).objects()) == []


@pytest.mark.parametrize("action", ["rm", "show", "pin", "unpin"])
def test_names_are_needed_and_checked(machine: Machine, action: str) -> None:
    with pytest.raises(UserError, match="needs a name"):
        machine.cache(action)
    with pytest.raises(UserError, match="Did you mean Qwen/Tiny") as caught:
        machine.cache(action, "qwen/tinny")
    assert "is not in the cache" in str(caught.value)
    with pytest.raises(UserError, match="not in the cache"):
        machine.cache(action, "none*")


def test_a_pinned_one_is_not_removed(machine: Machine) -> None:
    assert machine.cache("pin", "qwen/tiny")[0]["pinned"] is True
    assert machine.cache("ls", "qwen/tiny").columns[-1] == "pinned"
    for yes in (False, True):
        with pytest.raises(UserError, match="is pinned"):
            machine.cache("rm", "qwen/tiny", yes=yes)
    assert machine.weights.exists()
    machine.cache("rm", "qwen/tiny", yes=True, force=True)
    machine.pull("Qwen/Tiny", "ModelScope")
    assert machine.cache("ls", "qwen/tiny")[0]["pinned"] is False, "the pin went as well"
    machine.cache("pin", "qwen/tiny")
    assert machine.cache("unpin", "qwen/tiny")[0]["pinned"] is False
    machine.cache("rm", "qwen/tiny", yes=True)


def test_prune_shows_first(machine: Machine) -> None:
    half = machine.root / ".cache/huggingface/hub/models--lab--half"
    table = machine.cache("prune")
    assert [row["name"] for row in table] == ["lab/half"]
    assert half.exists() and "add --yes" in table.note
    table = machine.cache("prune", yes=True)
    assert not half.exists() and table.data["removed"]
    assert "nothing to clean up" in machine.cache("prune").note
    assert machine.weights.exists()


@pytest.mark.parametrize(("names", "days"), [(["x"], 1.0), ([], -1.0)])
def test_prune_refuses_what_makes_no_sense(machine: Machine, names: list[str], days: float) -> None:
    with pytest.raises(UserError):
        machine.cache("prune", *names, days=days)


def test_an_empty_cache_says_how_to_begin(machine: Machine) -> None:
    machine.cache("rm", "*", yes=True)
    assert "%swift download" in machine.cache().note
