"""Records of pulls: a warm check by stat alone that still tells a changed file."""

import json
import os
from pathlib import Path

import pytest
from stored_models import MODEL, listing_of, write

from swift_jupyter.hub.cache.records import (
    forget_records,
    iterate_records,
    ours_by,
    read_record,
    record_snapshot,
    records_folder,
)
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=str(tmp_path / "own"))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    for name, content in MODEL.items():
        write(tmp_path / "snapshot" / name, content)
    return tmp_path / "snapshot"


def test_a_record_tells_what_was_pulled(settings: Settings, snapshot: Path) -> None:
    listing = listing_of({**MODEL, "not-wanted.bin": b"x"})
    written = record_snapshot(settings, snapshot, listing, "ModelScope")
    record = read_record(settings, snapshot)
    assert record == written
    assert (record.hub, record.repo_id, record.commit) == ("modelscope", "lab/tiny", listing.commit)
    assert record.files == listing.files and set(record.states) == set(MODEL)
    assert list(iterate_records(settings)) == [record]


def test_changed_files_are_told_without_reading(settings: Settings, snapshot: Path) -> None:
    listing = listing_of(MODEL)
    record = record_snapshot(settings, snapshot, listing, "ModelScope")
    assert record.changed(listing.files) == []
    os.utime(snapshot / "config.json", (1, 1))
    (snapshot / "tokenizer.json").unlink()
    changed = {file.path for file in record.changed(listing.files)}
    assert changed == {"config.json", "tokenizer.json"}
    ours = ours_by(record)
    assert not ours("config.json", (snapshot / "config.json").stat())
    assert ours("model.safetensors", (snapshot / "model.safetensors").stat())
    assert not ours_by(None)("config.json", (snapshot / "config.json").stat())


def test_records_of_an_earlier_version_are_read(settings: Settings, snapshot: Path) -> None:
    # Given a record as it was written before the files' states were kept
    record_snapshot(settings, snapshot, listing_of(MODEL), "ModelScope")
    [file] = records_folder(settings).iterdir()
    old = {
        "path": str(snapshot),
        "source": "ModelScope",
        "repo_id": "lab/tiny",
        "kind": "model",
        "revision": None,
        "files": [{"path": "config.json", "size": 2, "sha256": None, "git_sha1": None}],
    }
    file.write_text(json.dumps(old))
    # Then it counts, without a state
    record = read_record(settings, snapshot)
    assert record is not None and record.hub is None and record.states == {}
    assert record.files == (RemoteFile("config.json", 2),)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": 3}', '{"files": [["a"]]}', "\0"])
def test_a_broken_record_is_none(settings: Settings, snapshot: Path, content: str) -> None:
    record_snapshot(settings, snapshot, listing_of(MODEL), "ModelScope")
    [file] = records_folder(settings).iterdir()
    file.write_text(content)
    assert read_record(settings, snapshot) is None
    assert list(iterate_records(settings)) == []
    forget_records(settings, [snapshot])
    assert not list(records_folder(settings).iterdir())
