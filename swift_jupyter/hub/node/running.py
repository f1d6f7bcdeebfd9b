"""Which nodes serve a store on this machine; cheap to ask, no server is imported."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swift_jupyter.files import write_json_atomically


def running_nodes(root: Path) -> list[dict[str, Any]]:
    """Return the nodes that serve the store at `root`: url, pid, port and how."""
    import psutil

    found = []
    for file in sorted(_folder(root).glob("*.json")):
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
            process = psutil.Process(int(value["pid"]))
            # The number alone may be another process's by now.
            if abs(process.create_time() - float(value["process_started"])) < 1.0:
                found.append(value)
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            continue
    return found


@contextlib.contextmanager
def announced(root: Path, port: int, **values: Any) -> Iterator[None]:
    """Let `running_nodes` find this process while the context is open."""
    import psutil

    file = _folder(root) / f"{port}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    process = {"pid": os.getpid(), "process_started": psutil.Process().create_time()}
    write_json_atomically(file, {"port": port, **process, **values})
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _folder(root: Path) -> Path:
    return root / "node" / "running"
