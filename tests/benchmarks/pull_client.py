"""One pull by one client, in a process of its own; prints seconds and where the files are.

Run by ``pull.py``: ``python pull_client.py CLIENT JOB``, where JOB is JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def modelscope(job: dict[str, Any]) -> str:
    """ModelScope's own client."""
    from modelscope import snapshot_download

    return _timed(lambda: str(snapshot_download(job["repo_id"], **_patterns(job))))


def huggingface(job: dict[str, Any]) -> str:
    """Hugging Face's own client."""
    from huggingface_hub import snapshot_download

    return _timed(lambda: str(snapshot_download(job["repo_id"], **_patterns(job))))


def ours(job: dict[str, Any]) -> str:
    """Our own, by its public door."""
    from swift_jupyter.hub.pull import pull
    from swift_jupyter.hub.reference import RepoReference
    from swift_jupyter.settings import Settings

    settings = Settings(
        cache_dir=str(Path(job["folder"]) / "own"), max_connections=job["connections"]
    )
    reference = RepoReference.of_hub(job["repo_id"])
    return _timed(
        lambda: str(pull(reference, settings, source=job["source"], include=job["include"]).path)
    )


def _patterns(job: dict[str, Any]) -> dict[str, Any]:
    return {"allow_patterns": job["include"]} if job["include"] else {}


CLIENTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "modelscope": modelscope,
    "huggingface": huggingface,
    "ours": ours,
}
_clock: dict[str, float] = {}


def _timed(call: Callable[[], str]) -> str:
    """Time the call alone: imports are not part of it."""
    _clock["started"] = time.perf_counter()
    try:
        return call()
    finally:
        _clock["ended"] = time.perf_counter()


def main() -> int:
    """Pull and print one line of JSON."""
    name, job = sys.argv[1], json.loads(sys.argv[2])
    logging.disable(logging.WARNING)
    result: dict[str, Any] = {}
    try:
        result["path"] = CLIENTS[name](job)
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
    result["seconds"] = _clock["ended"] - _clock["started"]
    print("\n" + json.dumps(result), flush=True)
    # A client's threads that still wait for a server must not count.
    os._exit(1 if "error" in result else 0)


if __name__ == "__main__":
    main()
