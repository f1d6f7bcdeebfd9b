"""How long listing 2,000 cached repositories takes, against Hugging Face's own scan.

Run: ``python tests/benchmarks/cache_listing.py [COUNT]``. Both read the same tree in one
process, in turns; the target is a ratio of the medians of 0.5 at most. The tree is as
Hugging Face's client leaves it, once without and once with the records of our pulls.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import scan_cache_dir

from swift_jupyter.hub.cache.records import record_snapshot
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.settings import Settings

_REPEATS = 7
_FILES = {
    "config.json": 600,
    "generation_config.json": 120,
    "merges.txt": 300,
    "model.safetensors": 5000,
    "README.md": 900,
    "tokenizer.json": 2000,
    "tokenizer_config.json": 500,
    "vocab.json": 800,
}


def build(root: Path, count: int) -> list[tuple[Path, RepoListing]]:
    """Write `count` models as Hugging Face's client does, and return their snapshots."""
    snapshots = []
    for number in range(count):
        commit = f"{number:040x}"
        repo = root / f"models--lab--model-{number}"
        snapshot = repo / "snapshots" / commit
        for folder in (repo / "blobs", snapshot, repo / "refs", repo / "trees"):
            folder.mkdir(parents=True)
        files = []
        for place, (name, size) in enumerate(_FILES.items()):
            etag = f"{number * len(_FILES) + place:040x}"
            (repo / "blobs" / etag).write_bytes(bytes(size))
            (snapshot / name).symlink_to(f"../../blobs/{etag}")
            files.append(RemoteFile(name, size, None, etag))
        tree = {file.path: {"size": file.size, "blob_id": file.git_sha1} for file in files}
        (repo / "trees" / f"{commit}.json").write_text(json.dumps({"files": tree}, indent=2))
        (repo / "refs" / "main").write_text(commit)
        listing = RepoListing(
            "huggingface", f"lab/model-{number}", "model", "main", commit, tuple(files)
        )
        snapshots.append((snapshot, listing))
    return snapshots


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(title: str, cache: Path, settings: Settings, count: int) -> None:
    """Print one row: both times and their ratio."""
    environ = {"HF_HUB_CACHE": str(cache), "MODELSCOPE_CACHE": str(cache.parent / "modelscope")}
    entries = scan_cache(settings, environ).entries
    assert len(entries) == count and all(entry.complete for entry in entries)
    assert len(scan_cache_dir(cache).repos) == count
    ours, theirs = [], []
    for _repeat in range(_REPEATS):
        ours.append(seconds(lambda: scan_cache(settings, environ)))
        theirs.append(seconds(lambda: scan_cache_dir(cache)))
    own, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"{title:18} scan_cache {own:6.3f} s   huggingface_hub.scan_cache_dir {other:6.3f} s"
        f"   ratio {own / other:.2f}"
    )


def main(count: int) -> None:
    """Build the tree, measure, and clean up."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        root = Path(folder)
        settings = Settings(cache_dir=str(root / "own"))
        snapshots = build(root / "hub", count)
        print(f"{count} repositories of {len(_FILES)} files, medians of {_REPEATS}")
        compare("without records", root / "hub", settings, count)
        for snapshot, listing in snapshots:
            record_snapshot(settings, snapshot, listing, "Hugging Face")
        compare("with our records", root / "hub", settings, count)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
