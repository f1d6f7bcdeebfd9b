"""Records of finished pulls: which files a snapshot has, so that a later check needs no network.

Neither hub's cache says which files of a repository are meant to be there, so
each pull leaves a record beside the caches, named by the snapshot's path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.files import write_json_atomically
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.settings import Settings


@dataclass(frozen=True)
class PullRecord:
    """The hub's listing of a snapshot when it was pulled."""

    path: Path
    source: str
    repo_id: str
    kind: str
    revision: str | None
    files: tuple[RemoteFile, ...]


def write_record(settings: Settings, record: PullRecord) -> None:
    """Store `record`; a cache that cannot be written is no reason to fail a pull."""
    target = _record_path(settings, record.path)
    content = {
        "path": str(record.path),
        "source": record.source,
        "repo_id": record.repo_id,
        "kind": record.kind,
        "revision": record.revision,
        "files": [file.to_dict() for file in record.files],
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(target, content)
    except OSError:
        return


def read_record(settings: Settings, snapshot: Path) -> PullRecord | None:
    """Return the record of the folder `snapshot`, or None."""
    try:
        content = json.loads(_record_path(settings, snapshot).read_text(encoding="utf-8"))
        return PullRecord(
            Path(content["path"]),
            content["source"],
            content["repo_id"],
            content["kind"],
            content["revision"],
            tuple(RemoteFile(**file) for file in content["files"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_records(settings: Settings, folders: Iterable[Path]) -> None:
    """Remove the records of the given snapshots."""
    for folder in folders:
        _record_path(settings, folder).unlink(missing_ok=True)


def _record_path(settings: Settings, snapshot: Path) -> Path:
    name = hashlib.sha256(str(snapshot.absolute()).encode()).hexdigest()[:32]
    return settings.cache_path / "snapshots" / f"{name}.json"
