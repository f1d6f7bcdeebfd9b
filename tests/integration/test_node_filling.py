"""A node that fetches what it does not hold: once, verified, patiently."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fault_server import ALWAYS, FaultServer, Origin, Repo
from node_process import NodeProcess, run_client

BIG = "model.safetensors"
MB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as started:
        yield started


def node_of(hub: Origin, folder: Path) -> NodeProcess:
    return NodeProcess(folder, "--on_demand", "--upstream", f"both={hub.url}")


def read_all(url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, bool]:
    """Return status, body and whether the body was complete."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read(), True
        except http.client.IncompleteRead as error:
            return answer.status, error.partial, False
        except OSError:
            return answer.status, b"", False
    finally:
        connection.close()


def test_forty_clients_cost_one_upstream_fetch(server: FaultServer, tmp_path: Path) -> None:
    # Given a hub that gives each connection 8 MB/s, and a node that holds nothing
    hub = server.add_origin([Repo("lab/class", {BIG: 24 * MB, "config.json": b"{}"})], rate=8e6)
    expected = hub.sha256("lab/class")[BIG]
    with node_of(hub, tmp_path) as node:
        begin = threading.Barrier(40)

        def pull(number: int) -> tuple[int, str]:
            begin.wait()
            path = f"/lab/class/resolve/main/{BIG}"
            if number % 2:
                path = f"/api/v1/models/lab/class/repo?Revision=master&FilePath={BIG}"
            node.get(f"/api/v1/models/lab/class/repo/files?Recursive=True&n={number}")
            status, body, _whole = read_all(node.url, path)
            return status, hashlib.sha256(body).hexdigest()

        # When forty clients of both hubs ask at once
        with ThreadPoolExecutor(40) as threads:
            results = list(threads.map(pull, range(40)))
        status = node.status()
    # Then all have the right bytes, which came over the network once
    assert set(results) == {(200, expected)}
    counters = hub.counters()
    # (a little more when an idle connection takes over the rest of a busy one's range)
    assert 24 * MB <= counters.sent_bytes < 1.05 * 24 * MB
    # And each hub's protocol was asked for the listing a few times, not forty
    assert counters.listing_requests <= 6
    assert 24 * MB <= status["bytes_fetched"] < 1.05 * 24 * MB
    assert status["bytes_saved"] > 38.5 * 24 * MB


def test_a_file_that_stays_wrong_never_arrives_whole(server: FaultServer, tmp_path: Path) -> None:
    # Given a hub that always flips a bit near the end
    hub = server.add_origin([Repo("lab/bad", {BIG: 12 * MB, "small.bin": 300_000})], rate=30e6)
    hub.fault(BIG, first=ALWAYS, flip_at=11 * MB)
    hub.fault("small.bin", first=ALWAYS, flip_at=5)
    with node_of(hub, tmp_path) as node:
        # When clients ask, as streams and for ranges
        path = f"/lab/bad/resolve/main/{BIG}"
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _n: read_all(node.url, path), range(4)))
        tail = read_all(node.url, path, {"Range": "bytes=-100"})
        small = read_all(node.url, "/lab/bad/resolve/main/small.bin")
        # Then none gets a complete body
        for status, body, whole in answers:
            assert status >= 500 or (not whole and len(body) < 12 * MB)
        assert tail[0] >= 500 or not tail[2]
        assert small[0] >= 500
        # And Hugging Face's own client, which checks no hash, has no file
        code = """
from huggingface_hub import snapshot_download
try:
    print("wrong", snapshot_download("lab/bad"))
except Exception as error:
    print("refused", type(error).__name__)
"""
        assert "refused" in run_client(code, tmp_path, {"HF_ENDPOINT": node.url})
        assert node.json("/healthz") == {"status": "ok"}


def test_a_wrong_byte_at_first_never_reaches_a_whole_file(
    server: FaultServer, tmp_path: Path
) -> None:
    # Given a hub that flips a bit in the first answers only
    hub = server.add_origin([Repo("lab/once", {BIG: 24 * MB})], rate=6e6)
    hub.fault(BIG, first=1, flip_at=1000)
    expected = hub.sha256("lab/once")[BIG]
    with node_of(hub, tmp_path) as node:
        path = f"/lab/once/resolve/main/{BIG}"
        body = b""
        broken = 0
        # When a client asks and, where the connection breaks, goes on from what it has
        for _attempt in range(10):
            headers = {"Range": f"bytes={len(body)}-"} if body else {}
            status, more, whole = read_all(node.url, path, headers)
            if status == 200:
                body = more
            elif status == 206:
                body += more
            broken += not whole
            if whole and status in (200, 206):
                break
            time.sleep(0.2)
        # Then what it ends up with is right
        assert hashlib.sha256(body).hexdigest() == expected
        assert read_all(node.url, path)[1] == body


def test_clients_do_not_give_up_while_upstream_is_slow(server: FaultServer, tmp_path: Path) -> None:
    # Given a hub that needs seven seconds for a small file, and clients that wait four
    hub = server.add_origin([Repo("lab/slow", {"a.safetensors": 105_000, "b.bin": 90_000})])
    hub.fault("*", rate=15_000)
    with node_of(hub, tmp_path) as node, ThreadPoolExecutor(1) as threads:
        code = """
from huggingface_hub import hf_hub_download
print(hf_hub_download("lab/slow", "a.safetensors"))
"""
        variables = {"HF_ENDPOINT": node.url, "HF_HUB_DOWNLOAD_TIMEOUT": "4"}
        pulled = threads.submit(run_client, code, tmp_path, variables)
        parts = urlsplit(node.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=4)
        begin = time.monotonic()
        connection.request("GET", "/api/v1/models/lab/slow/repo?FilePath=b.bin")
        # Then both have it, as soon as it is verified and not before
        assert len(connection.getresponse().read()) == 90_000
        assert time.monotonic() - begin > 4.5
        connection.close()
        path = Path(pulled.result().splitlines()[-1])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == hub.sha256("lab/slow")["a.safetensors"]
    assert hub.counters().requests_by_path["a.safetensors"] == 1


def test_without_upstream_what_is_held_is_served(server: FaultServer, tmp_path: Path) -> None:
    # Given a node that has pulled one file of a model of two, and an unknown commit
    hub = server.add_origin([Repo("lab/held", {"a.safetensors": 2 * MB, "b.safetensors": MB})])
    with node_of(hub, tmp_path) as node:
        first = node.get("/lab/held/resolve/main/a.safetensors")
        assert first[0] == 200 and "X-Node-Stale" not in first[1]
    # When upstream is gone and the node starts again
    hub.die()
    with node_of(hub, tmp_path) as node:
        status, headers, body = node.get("/lab/held/resolve/main/a.safetensors")
        # Then the file comes, with a word about it
        assert status == 200 and body == first[2]
        assert headers["X-Node-Stale"]
        listing = node.get("/api/models/lab/held/revision/main")
        assert listing[0] == 200 and listing[1]["X-Node-Stale"]
        # And what is missing says so, instead of seeming not to exist
        assert node.get("/lab/held/resolve/main/b.safetensors")[0] == 502
        assert node.get("/api/models/lab/other/revision/main")[0] == 502
    # When upstream is back, then it goes on
    hub.revive()
    with node_of(hub, tmp_path) as node:
        assert node.get("/lab/held/resolve/main/b.safetensors")[0] == 200


def test_a_node_that_is_killed_goes_on_where_it_was(server: FaultServer, tmp_path: Path) -> None:
    hub = server.add_origin([Repo("lab/killed", {BIG: 48 * MB})], rate=2e6)
    node = node_of(hub, tmp_path)
    with node:
        thread = threading.Thread(
            target=read_all, args=(node.url, f"/lab/killed/resolve/main/{BIG}")
        )
        thread.start()
        while hub.sent_bytes() < 20 * MB:
            time.sleep(0.05)
        assert node.process is not None
        node.process.kill()
        thread.join()
    before = hub.sent_bytes()
    hub.set(rate=None)
    with node_of(hub, tmp_path) as node:
        body = read_all(node.url, f"/lab/killed/resolve/main/{BIG}")[1]
    assert hashlib.sha256(body).hexdigest() == hub.sha256("lab/killed")[BIG]
    assert hub.sent_bytes() - before < 34 * MB
