"""What a mirror node costs, beside other servers, and forty clients at once.

::

    python tests/benchmarks/node.py [--gigabytes 1] [--folder /dev/shm/node-bench]

Prints CPU seconds per GB served (of the server's process alone) for the same parallel
GETs, and the upstream bytes of forty simultaneous pulls of one 256 MB model.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from fault_server import FaultServer, Repo
from node_process import NodeProcess

from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.store.store import Store

GB = 10**9
STREAMS = 4
ROUNDS = 3
CLIENTS = 40
MODEL_BYTES = 256 * 10**6
_BLOCK = 1 << 20

AIOHTTP = """
import sys
from aiohttp import web
app = web.Application()
async def get(request):
    return web.FileResponse(sys.argv[2])
app.router.add_get("/file", get)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
"""
STARLETTE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route
app = Starlette(routes=[Route("/file", lambda request: FileResponse(sys.argv[2]))])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
"""
TORNADO = """
import sys, pathlib, asyncio, tornado.web
path = pathlib.Path(sys.argv[2])
async def main():
    handler = tornado.web.StaticFileHandler
    app = tornado.web.Application([(r"/(file)", handler, {"path": str(path.parent)})])
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()
asyncio.run(main())
"""


def read(url: str, path: str, check: bool = False) -> tuple[int, str]:
    """Read one answer to its end; return its length and, if wanted, its hash."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    buffer, total, digest = memoryview(bytearray(_BLOCK)), 0, hashlib.sha256()
    while count := answer.readinto(buffer):
        total += count
        if check:
            digest.update(buffer[:count])
    connection.close()
    return total, digest.hexdigest()


def measure(process: psutil.Process, url: str, path: str, times: int) -> tuple[float, float]:
    """Return CPU seconds of the server per GB, and GB per second, for parallel GETs."""
    before, begin = _cpu(process), time.perf_counter()
    with ThreadPoolExecutor(STREAMS) as threads:
        total = sum(threads.map(lambda _n: read(url, path)[0], range(times)))
    seconds = time.perf_counter() - begin
    return (_cpu(process) - before) / (total / GB), total / GB / seconds


def _cpu(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


@contextmanager
def peer(program: str, file: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Run another server for `file`."""
    port = _free_port()
    words = [sys.executable, "-c", program, str(port), str(file)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _attempt in range(200):
            try:
                read(url, "/file")
                break
            except OSError:
                time.sleep(0.05)
        yield psutil.Process(process.pid), url
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def filled_node(folder: Path, size: int) -> Iterator[tuple[NodeProcess, Path]]:
    """Run a node that holds one model with one file."""
    store = Store(folder / "store")
    part = store.parts() / "bench.part"
    digest = hashlib.sha256()
    with part.open("wb") as stream:
        for _block in range(size // _BLOCK):
            block = os.urandom(_BLOCK)
            digest.update(block)
            stream.write(block)
    path = store.add(part, digest.hexdigest())
    file = RemoteFile("file", path.stat().st_size, digest.hexdigest(), lfs=True)
    listing = RepoListing("huggingface", "lab/bench", "model", "main", "b" * 40, (file,))
    store.write_manifest(listing, held=True)
    with NodeProcess(folder) as node:
        yield node, path


def compare_servers(folder: Path, gigabytes: float) -> None:
    """Print what each server needs for the same file."""
    size = 256 << 20
    times = max(STREAMS, round(gigabytes * GB / size))
    with filled_node(folder, size) as (node, path):
        assert node.process is not None
        same = path.with_name("file")
        os.link(path, same)
        own = psutil.Process(node.process.pid)
        rows: list[tuple[str, Callable[[], tuple[float, float]]]] = [
            ("swift-jupyter node", lambda: measure(own, node.url, _NODE_PATH, times))
        ]
        read(node.url, _NODE_PATH)
        for name, program in (
            ("aiohttp FileResponse", AIOHTTP),
            ("starlette + uvicorn FileResponse", STARLETTE),
            ("tornado StaticFileHandler", TORNADO),
        ):

            def run(program: str = program) -> tuple[float, float]:
                with peer(program, same) as (process, url):
                    return measure(process, url, "/file", times)

            rows.append((name, run))
        print(f"{times} GETs of {size >> 20} MiB, {STREAMS} at once; median of {ROUNDS}")
        for name, call in rows:
            try:
                found = [call() for _round in range(ROUNDS)]
            except Exception as error:
                print(f"{name:34} not measured: {error!r}")
                continue
            cpu = statistics.median(value for value, _speed in found)
            speed = statistics.median(value for _cpu, value in found)
            print(f"{name:34} {cpu:6.3f} CPU s per GB   {speed:5.2f} GB/s")


_NODE_PATH = "/lab/bench/resolve/main/file"


def forty_clients(folder: Path) -> None:
    """Print what forty simultaneous pulls of one model cost upstream."""
    with FaultServer() as server:
        hub = server.add_origin([Repo("lab/class", {"model.safetensors": MODEL_BYTES})], rate=10e6)
        expected = hub.sha256("lab/class")["model.safetensors"]
        options = ("--on_demand", "--upstream", f"both={hub.url}")
        with NodeProcess(folder, *options) as node:
            assert node.process is not None
            begin, barrier = time.perf_counter(), threading.Barrier(CLIENTS)

            def pull(_number: int) -> str:
                barrier.wait()
                return read(node.url, "/lab/class/resolve/main/model.safetensors", check=True)[1]

            with ThreadPoolExecutor(CLIENTS) as threads:
                found = set(threads.map(pull, range(CLIENTS)))
            seconds = time.perf_counter() - begin
            used = _cpu(psutil.Process(node.process.pid))
        assert found == {expected}, "wrong bytes"
        sent = hub.sent_bytes()
    print(
        f"{CLIENTS} clients at once, {MODEL_BYTES / 1e6:.0f} MB each, upstream 16 x 10 MB/s: "
        f"{seconds:.1f} s, upstream sent {sent / MODEL_BYTES:.3f} x the model, "
        f"node {used:.1f} CPU s in all (fetching, hashing, serving)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="node-bench-", dir=arguments.folder))
    try:
        compare_servers(folder / "one", arguments.gigabytes)
        forty_clients(folder / "two")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
