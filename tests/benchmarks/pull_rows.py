"""The rows of the table: what is served, what goes wrong, and the target."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pull_peers
from fault_content import Content, sha256_of
from fault_server import ALWAYS, FaultServer, Origin, Repo
from pull_peers import Job, Outcome, fresh_folder

MIB = 1 << 20
_FAULTY = "lab/faulty"
_BIG = "lab/big"
_SMALL = "lab/small"
_WARM = "lab/warm"
_MILLION = "lab/million"
REPOS = (
    Repo(_BIG, {f"model-{n}.safetensors": 256 * MIB for n in range(4)}, seed="big"),
    Repo(_SMALL, {f"part-{n:03}.txt": 20_000 for n in range(500)}, seed="small"),
    Repo(_FAULTY, {f"model-{n}.safetensors": 32 * MIB for n in range(4)}, seed="faulty"),
)


class Stage:
    """Two hubs with the same files, and a folder for caches."""

    def __init__(self, server: FaultServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.hubs = [server.add_origin(REPOS) for _ in range(2)]
        self._sha256: dict[str, dict[str, str]] = {}

    @property
    def hub(self) -> Origin:
        return self.hubs[0]

    def job(self, repo_id: str, folder: Path, hubs: int = 1) -> Job:
        """Return the job to pull a repository."""
        if repo_id not in self._sha256:
            self._sha256[repo_id] = self.hub.sha256(repo_id)
        urls = tuple(hub.url for hub in self.hubs[:hubs])
        return Job(repo_id, self._sha256[repo_id], urls, folder)

    def calm(self) -> None:
        """Forget all faults, knobs and counts."""
        for hub in self.hubs:
            hub.revive()
            hub.clear()
            hub.set(rate=None, latency=0.0, die_after=None)
            hub.counters(reset=True)

    def beyond(self, repo_id: str) -> float:
        """Return the MB sent more than the repository has."""
        total = sum(size for repo in REPOS if repo.repo_id == repo_id for size in _sizes(repo))
        return (sum(hub.sent_bytes() for hub in self.hubs) - total) / 1e6


Measure = Callable[[Stage, str], Outcome]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    target: str
    measure: Measure
    rounds: int = 1
    shows_cost: bool = False
    needs_hub: bool = False


def _sizes(repo: Repo) -> Iterator[int]:
    for content in repo.files.values():
        assert isinstance(content, int)
        yield content


def _plain(repo_id: str, hubs: int = 1, connections: int = 16, **knobs: Any) -> Measure:
    def measure(stage: Stage, peer: str) -> Outcome:
        for hub in stage.hubs:
            hub.set(**knobs)
        with fresh_folder(stage.folder) as folder:
            job = stage.job(repo_id, folder, hubs)
            job.connections = connections
            outcome = pull_peers.run(peer, job)
        outcome.beyond_mb = stage.beyond(repo_id)
        return outcome

    return measure


def _faulty(first: int, **fault: Any) -> Measure:
    def measure(stage: Stage, peer: str) -> Outcome:
        stage.hub.fault(first=first, **fault)
        return _plain(_FAULTY)(stage, peer)

    return measure


def _no_range(stage: Stage, peer: str) -> Outcome:
    stage.hub.fault(first=ALWAYS, ignore_range=True)
    return _faulty(1, reset_after=16 * MIB)(stage, peer)


def _killed_at_half(stage: Stage, peer: str) -> Outcome:
    """Kill all processes of the client when half is there, and pull again."""
    stage.hub.set(rate=10e6)
    half = sum(_sizes(REPOS[2])) // 2

    def kill(running: pull_peers.Running) -> None:
        if stage.hub.sent_bytes() >= half:
            running.kill()

    with fresh_folder(stage.folder) as folder:
        job = stage.job(_FAULTY, folder)
        pull_peers.run(peer, job, kill)
        before = stage.hub.sent_bytes()
        outcome = pull_peers.run(peer, job)
    outcome.beyond_mb = stage.beyond(_FAULTY)
    outcome.extra["fetched_again_percent"] = 100 * outcome.beyond_mb * 1e6 / (2 * half)
    outcome.extra["second_run_mb"] = (stage.hub.sent_bytes() - before) / 1e6
    return outcome


def _disk_full(stage: Stage, peer: str) -> Outcome:
    """Pull 128 MiB to a file system of 96 MiB."""
    with fresh_folder(stage.folder) as folder, _small_disk(folder / "disk", 96) as disk:
        outcome = pull_peers.run(peer, stage.job(_FAULTY, disk))
        outcome.extra["kept_mb"] = shutil.disk_usage(disk).used / 1e6
    return outcome


@contextlib.contextmanager
def _small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _dies_midway(stage: Stage, peer: str) -> Outcome:
    """Lose the first of two hubs at half of the bytes."""
    stage.hubs[0].set(die_after=sum(_sizes(REPOS[2])) // 2)
    return _plain(_FAULTY, hubs=2, rate=10e6)(stage, peer)


def _warm(stage: Stage, peer: str) -> Outcome:
    """Ask again for a snapshot of 15 GB that is there; the files are sparse."""
    with fresh_folder(stage.folder) as folder:
        shards = _sparse_shards(folder / "shards")
        told = {name: (path.stat().st_size, sha256) for name, (path, sha256) in shards.items()}
        small = _small_files(list(shards))
        repo = Repo(_WARM, {**told, **small})
        stage.hub.put(repo)
        _lay_out(folder, shards, small, stage.hub.commit(_WARM))
        job = stage.job(_WARM, folder)
        # A hub that is named is asked even when the cache has a copy: ours takes the files
        # into its store and notes what it saw.
        first = pull_peers.run(peer, job)
        job.source = "auto"
        outcome = pull_peers.run(peer, job)
    outcome.extra["first_call_s"] = first.seconds
    outcome.message = outcome.message or first.message
    return outcome


def _million(stage: Stage, peer: str) -> Outcome:
    """Pull one file of a repository that lists a million."""
    stage.hub.put(Repo(_MILLION, {"config.json": b"{}"}, generated=10**6))
    with fresh_folder(stage.folder) as folder:
        job = stage.job(_MILLION, folder)
        job.include = ("config.json",)
        outcome = pull_peers.run(peer, job)
    stage.hub.put(Repo(_MILLION, {}))
    return outcome


def _sparse_shards(folder: Path) -> dict[str, tuple[Path, str]]:
    """Make four files of 3.75 GB that hold one tensor of zeros each."""
    folder.mkdir()
    paths = [folder / f"model-{n:05}-of-00004.safetensors" for n in range(1, 5)]
    for number, path in enumerate(paths):
        length = 3_750_000_000
        header = (
            f'{{"w{number}":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}'
        ).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(path, 8 + len(header) + length)
    with ThreadPoolExecutor(2) as pool:
        hashes = list(pool.map(sha256_of, paths))
    return {path.name: (path, sha256) for path, sha256 in zip(paths, hashes, strict=True)}


def _small_files(shards: list[str]) -> dict[str, bytes]:
    """Return what else a model needs to be loaded."""
    weights = {f"w{number}": name for number, name in enumerate(shards)}
    return {
        "config.json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
        "model.safetensors.index.json": json.dumps({"weight_map": weights}).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
    }


def _lay_out(
    folder: Path, shards: dict[str, tuple[Path, str]], small: dict[str, bytes], commit: str
) -> None:
    """Put the files where both hubs' clients would have put them."""
    owner, name = _WARM.split("/")
    modelscope = folder / f"modelscope/models/{owner}--{name}/snapshots/master"
    huggingface = folder / f"huggingface/hub/models--{owner}--{name}"
    snapshot = huggingface / "snapshots" / commit
    for place in (modelscope, snapshot, huggingface / "blobs", huggingface / "refs"):
        place.mkdir(parents=True)
    (huggingface / "refs/main").write_text(commit)
    blobs = {path.name: sha256 for path, sha256 in shards.values()}
    for path, sha256 in shards.values():
        (modelscope / path.name).hardlink_to(path)
        (huggingface / "blobs" / sha256).hardlink_to(path)
    for file, content in small.items():
        blobs[file] = Content(0, literal=content).hashes()[1]
        (modelscope / file).write_bytes(content)
        (huggingface / "blobs" / blobs[file]).write_bytes(content)
    for file, blob in blobs.items():
        (snapshot / file).symlink_to(f"../../blobs/{blob}")


_ANY = "right, or a clear error"
ROWS = (
    Row(
        "capped",
        "1 GiB in 4 files, 10 MB/s per connection, 16 connections",
        "<= 8 s, floor 6.7",
        _plain(_BIG, rate=10e6),
    ),
    Row(
        "capped-64",
        "the same, 64 connections",
        "floor 1.7",
        _plain(_BIG, connections=64, rate=10e6),
    ),
    Row(
        "small",
        "500 files of 20 kB, 30 ms per request",
        "<= 1.5 s",
        _plain(_SMALL, latency=0.03),
        rounds=3,
    ),
    Row(
        "unthrottled",
        "1 GiB in 4 files, unthrottled",
        "<= 2.2 CPU s, 100 MB",
        _plain(_BIG),
        rounds=3,
        shows_cost=True,
    ),
    Row("reset", "TCP reset x2", _ANY, _faulty(2, reset_after=16 * MIB)),
    Row("fin", "early close x2", _ANY, _faulty(2, fin_after=16 * MIB)),
    Row("503", "503 x2", _ANY, _faulty(2, status=503)),
    Row("retry-after", "503 x2, Retry-After 1", _ANY, _faulty(2, status=503, retry_after=1)),
    Row("429", "429 x2, Retry-After 1", _ANY, _faulty(2, status=429, retry_after=1)),
    Row("flip", "one flipped byte, once", _ANY, _faulty(1, flip_at=20 * MIB)),
    Row("flip-always", "one flipped byte, always", "error", _faulty(ALWAYS, flip_at=20 * MIB)),
    Row("long", "Content-Length +1000, x1", _ANY, _faulty(1, length_delta=1000)),
    Row("short", "Content-Length -1000, x1", _ANY, _faulty(1, length_delta=-1000)),
    Row("stall", "stall x1", "<= 6 s", _faulty(1, stall_after=16 * MIB)),
    Row("no-range", "reset x1, Range ignored", _ANY, _no_range),
    Row("total", "wrong total in Content-Range, always", _ANY, _faulty(ALWAYS, total_delta=7)),
    Row("416", "416 x1", _ANY, _faulty(1, status=416)),
    Row("kill", "kill -9 at half, again", "<= 5 % again", _killed_at_half),
    Row("disk-full", "128 MiB to a disk of 96 MiB", "error", _disk_full),
    Row("dies", "two sources, one dies at half", "right", _dies_midway),
    Row("warm", "warm call, 15 GB", "<= 0.2 s", _warm, needs_hub=True),
    Row(
        "million",
        "one file of a listing of 10^6",
        "no blow-up",
        _million,
        shows_cost=True,
        needs_hub=True,
    ),
)
