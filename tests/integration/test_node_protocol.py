"""Bytes, ranges, tags and refusals of a node that serves what it holds."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from node_process import NodeProcess
from sandbox import environment, wait_for

from swift_jupyter.hub.listing import RemoteFile, RepoListing
from swift_jupyter.hub.store.store import Store

BIG = os.urandom(1 << 16) * 320  # 20 MiB
SMALL = b"a small file\n"
REPO = "lab/held"
TOKEN = "t0ken-of-the-class"


def fill(store: Store, repo_id: str, files: dict[str, bytes], commit: str = "a" * 40) -> None:
    """Put a model into a store, as a sync does."""
    listed = []
    for path, content in files.items():
        part = store.parts() / "test.part"
        part.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        store.add(part, sha256, git)
        listed.append(RemoteFile(path, len(content), sha256, git, lfs=len(content) > 1000))
    listing = RepoListing("huggingface", repo_id, "model", "main", commit, tuple(listed))
    store.write_manifest(listing, held=True)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("node")
    store = Store(folder / "store")
    fill(store, REPO, {"big.bin": BIG, "small.txt": SMALL, "empty": b""})
    # A model that the two hubs call by different names
    fill(store, "meta-llama/Llama-2-7b-chat-hf", {"config.json": b"{}"})
    with NodeProcess(folder) as started:
        yield started


def connect(node: NodeProcess) -> http.client.HTTPConnection:
    parts = urlsplit(node.url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, len(BIG)),
        ("bytes=5-1000004", 5, 1000005),
        ("bytes=-7", len(BIG) - 7, len(BIG)),
        (f"bytes=1000-{10**15}", 1000, len(BIG)),
        (f"bytes=-{10**15}", 0, len(BIG)),
    ],
)
def test_ranges(node: NodeProcess, asked: str, start: int, stop: int) -> None:
    for path in (f"/{REPO}/resolve/main/big.bin", f"/api/v1/models/{REPO}/repo?FilePath=big.bin"):
        status, headers, body = node.get(path, {"Range": asked})
        assert status == 206 and body == BIG[start:stop]
        assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BIG)}"


def test_a_range_behind_the_end_and_one_of_several(node: NodeProcess) -> None:
    path = f"/{REPO}/resolve/main/small.txt"
    status, headers, _body = node.get(path, {"Range": "bytes=13-"})
    assert status == 416 and headers["Content-Range"] == "bytes */13"
    assert node.get(f"/{REPO}/resolve/main/empty", {"Range": "bytes=0-0"})[0] == 416
    status, _headers, body = node.get(path, {"Range": "bytes=0-1,4-5"})
    assert status == 200 and body == SMALL


def test_tags_and_heads(node: NodeProcess) -> None:
    sha256 = hashlib.sha256(BIG).hexdigest()
    git = hashlib.sha1(b"blob %d\0" % len(SMALL) + SMALL).hexdigest()
    status, headers, body = node.get(f"/{REPO}/resolve/main/big.bin", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == headers["X-Linked-Size"] == str(len(BIG))
    assert headers["ETag"] == headers["X-Linked-ETag"] == f'"{sha256}"'
    assert headers["X-Repo-Commit"] == "a" * 40
    # A small file is called by git's id at Hugging Face, by its SHA-256 at ModelScope
    assert node.get(f"/{REPO}/resolve/main/small.txt")[1]["ETag"] == f'"{git}"'
    own = f"/api/v1/models/{REPO}/repo?FilePath=small.txt"
    expected = f'"{hashlib.sha256(SMALL).hexdigest()}"'
    assert node.get(own)[1]["ETag"] == node.get(own, method="HEAD")[1]["ETag"] == expected
    status, headers, body = node.get(own, {"If-None-Match": expected})
    assert (status, body, headers["ETag"]) == (304, b"", expected)
    assert node.get(own, {"If-None-Match": '"other"'})[0] == 200
    assert not any("xet" in name.lower() for name in headers)


def test_one_connection_takes_many_answers(node: NodeProcess) -> None:
    # Given answers of every sort: from memory, by sendfile, without a body, refused
    connection = connect(node)
    asked = [
        (f"/{REPO}/resolve/main/big.bin", "GET", 200, BIG),
        (f"/{REPO}/resolve/main/big.bin", "HEAD", 200, b""),
        (f"/{REPO}/resolve/main/small.txt", "GET", 200, SMALL),
        (f"/{REPO}/resolve/main/nope", "GET", 404, None),
        (f"/{REPO}/resolve/main/big.bin", "GET", 200, BIG),
        ("/healthz", "GET", 200, None),
        (f"/{REPO}/resolve/main/empty", "GET", 200, b""),
    ]
    # When one connection asks for them in turn
    for path, method, status, body in asked * 2:
        connection.request(method, path)
        place = connection.sock
        answer = connection.getresponse()
        found = answer.read()
        # Then each is whole, and the connection stays
        assert answer.status == status
        assert body is None or found == body
        assert connection.sock is place is not None
    connection.close()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/lab/nope/revision/main", 404, "RepoNotFound"),
        (f"/api/models/{REPO}/revision/v9", 404, "RevisionNotFound"),
        (f"/{REPO}/resolve/main/nope", 404, "EntryNotFound"),
        (f"/api/models/{REPO}/tree/main/nope", 404, "EntryNotFound"),
        ("/api/agent-harnesses", 404, None),
        ("/api/v1/models/lab/nope/repo/files", 404, None),
        (f"/{REPO}/resolve/main/..%2f..%2fetc%2fpasswd", 400, None),
        (f"/{REPO}/resolve/main/%00", 400, None),
        ("/..%2f..%2f/etc/passwd", 404, None),
        ("/_sj/v1/pieces/../../../../etc/passwd", 404, None),
        (f"/_sj/v1/pieces/{'0' * 64}", 404, None),
    ],
)
def test_refusals(node: NodeProcess, path: str, status: int, code: str | None) -> None:
    found, headers, body = node.get(path)
    assert found == status and headers.get("X-Error-Code") == code
    assert json.loads(body)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="only Linux forgets on demand")
def test_what_is_not_in_memory_comes_from_the_disk(node: NodeProcess) -> None:
    # Given a file whose pages the system was told to forget
    path = Store(node.store).object_path(hashlib.sha256(BIG).hexdigest())
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    # When several clients ask, then all have it
    with ThreadPoolExecutor(4) as threads:
        bodies = threads.map(lambda _n: node.get(f"/{REPO}/resolve/main/big.bin")[2], range(4))
        assert all(body == BIG for body in bodies)


def test_it_is_read_only(node: NodeProcess) -> None:
    for method in ("PUT", "DELETE", "POST", "PATCH", "OPTIONS"):
        status, headers, _body = node.get(f"/{REPO}/resolve/main/small.txt", method=method)
        assert status == 405 and headers["Allow"] == "GET, HEAD"


def test_both_names_of_a_model_lead_to_it(node: NodeProcess) -> None:
    for path in (
        "/meta-llama/Llama-2-7b-chat-hf/resolve/main/config.json",
        "/api/v1/models/modelscope/Llama-2-7b-chat-ms/repo?FilePath=config.json",
    ):
        assert node.get(path)[2] == b"{}"


def test_pieces_of_an_object(node: NodeProcess) -> None:
    digest = hashlib.sha256(BIG).hexdigest()
    size = 8 << 20
    expected = [
        hashlib.sha256(BIG[start : start + size]).hexdigest() for start in range(0, len(BIG), size)
    ]
    for _time in range(2):
        assert node.json(f"/_sj/v1/pieces/{digest}") == {"piece_size": size, "sha256": expected}


def test_rude_clients_do_no_harm(node: NodeProcess) -> None:
    host, port = urlsplit(node.url).hostname or "", urlsplit(node.url).port or 0
    request = f"GET /{REPO}/resolve/main/big.bin HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    # Given clients that leave in the middle, send nonsense, or endless headers
    for data in (request, b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", request[:20]):
        for linger in (True, False):
            with socket.create_connection((host, port)) as client:
                client.sendall(data)
                if linger:
                    client.settimeout(2)
                    if data != request[:20]:
                        client.recv(1000)
    with socket.create_connection((host, port)) as client, pytest.raises(OSError):
        client.settimeout(5)
        client.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n")
        if not client.recv(1000):
            raise ConnectionResetError
    # When others ask at the same time, then they get theirs
    with ThreadPoolExecutor(8) as threads:
        bodies = threads.map(lambda _n: node.get(f"/{REPO}/resolve/main/big.bin")[2], range(16))
        assert all(body == BIG for body in bodies)
    # And nothing of the rude ones is left
    wait_for(lambda: not node.status()["active"], 20)
    assert "Traceback" not in node.log


def test_the_page_and_the_log(node: NodeProcess) -> None:
    status, headers, body = node.get("/")
    page = body.decode()
    assert status == 200 and headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert REPO in page and f"export HF_ENDPOINT={node.url}" in page
    assert f"export MODELSCOPE_ENDPOINT={node.url}" in page
    node.get(f"/{REPO}/resolve/main/small.txt?token=abc", {"User-Agent": "probe/1"})
    log = node.store / "node" / "access.log"

    def lines() -> list[str]:
        return [line for line in log.read_text().splitlines() if '"probe/1"' in line]

    (line,) = wait_for(lines, 5)
    assert f"GET /{REPO}/resolve/main/small.txt?token=*** 200 {len(SMALL)}" in line


def test_a_web_page_with_a_name_of_its_own_is_refused(node: NodeProcess) -> None:
    assert node.get("/_sj/v1/status", {"Host": "evil.example"})[0] == 403


def test_a_damaged_object_is_not_served(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill(store, REPO, {"small.txt": SMALL})
    with NodeProcess(tmp_path) as node:
        path = f"/{REPO}/resolve/main/small.txt"
        assert node.get(path)[2] == SMALL
        # When somebody changes the file on the disk
        time.sleep(0.02)
        store.object_path(hashlib.sha256(SMALL).hexdigest()).write_bytes(b"A" + SMALL[1:])
        # Then it is missing rather than wrong
        status, _headers, body = node.get(path)
        assert status == 404 and SMALL[1:] not in body


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subject = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    try:
        subprocess.run(
            ["openssl", *words.split(), *subject, *files], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl is not there")
    return folder


def test_tls_and_a_token(tmp_path: Path, certificate: Path) -> None:
    # Given a node with a certificate and a token from the environment, open to others
    fill(Store(tmp_path / "store"), REPO, {"big.bin": BIG, "small.txt": SMALL})
    options = ["--tls_cert", str(certificate / "cert.pem"), "--host", "0.0.0.0"]
    options += ["--tls_key", str(certificate / "key.pem")]
    variables = {"SWIFT_JUPYTER_MIRROR_TOKEN": TOKEN}
    context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    with NodeProcess(tmp_path, *options, variables=variables) as node:
        url = f"https://127.0.0.1:{urlsplit(node.url).port}"

        def get(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
            request = urllib.request.Request(url + path, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        bearer = {"Authorization": f"Bearer {TOKEN}"}
        path = f"/{REPO}/resolve/main/big.bin"
        # Then only who shows the token gets anything
        assert get(path, {})[0] == get(path, {"Authorization": "Bearer no"})[0] == 401
        assert get(path, bearer) == (200, BIG)
        assert get(path, {**bearer, "Range": "bytes=5-9"}) == (206, BIG[5:10])
        assert get(path, {"Cookie": f"m_session_id={TOKEN}"})[0] == 200
        # In the address it opens the page alone
        assert get(f"/?token={TOKEN}", {})[0] == 200
        assert get(f"{path}?token={TOKEN}", {})[0] == 401
        assert get("/healthz", {})[0] == 200
    # And it is nowhere to be read
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "token"),
        (["--port", "99999"], "99999"),
        (["--tls_cert", "absent.pem"], "absent.pem"),
        (["--tls_key", "absent.pem"], "--tls_cert"),
        (["--on_demand", "--upstream", "ftp://x"], "not an address"),
        (["some/name"], "sync"),
        (["--token", "two words"], "token"),
        (["--root", "/proc/nope"], "/proc/nope"),
    ],
)
def test_wrong_options_say_what_to_do(tmp_path: Path, options: list[str], says: str) -> None:
    words = [sys.executable, "-m", "swift_jupyter.cli", "mirror", "serve", "--port", "0", *options]
    done = subprocess.run(
        words,
        env={**os.environ, **environment(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 2) and says in done.stderr
    assert "Traceback" not in done.stderr
