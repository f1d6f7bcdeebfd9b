"""Our own clients of both protocols against servers that are odd, broken or hostile."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_hub import FakeHub, Faults
from fault_server import FaultServer, Repo

from swift_jupyter.hub.api.base import Endpoint, HubApi, hub_api
from swift_jupyter.hub.api.entries import checked_files, huggingface_entry, modelscope_entry
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.listing import RemoteFile, RepoListing, content_commit
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.hub.tokens import Secret

HUBS = ("modelscope", "huggingface")


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    files = {"config.json": b"{}", "model.safetensors": b"weights", "a/b c/中.txt": b""}
    with FakeHub({("model", "lab/m"): files, ("dataset", "lab/d"): files}) as server:
        yield server


@pytest.fixture(params=HUBS)
def hub(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def api(hub: str, url: str, *, deadline: float = 10.0, **options: Any) -> HubApi:
    endpoint = Endpoint(hub, url, "hub.example", **options)  # type: ignore[arg-type]
    return hub_api(endpoint, Client({"NO_PROXY": "*"}), deadline=deadline)


@pytest.mark.parametrize(("kind", "repo_id"), [("model", "lab/m"), ("dataset", "lab/d")])
def test_listing(fake: FakeHub, hub: str, kind: Any, repo_id: str) -> None:
    listing = api(hub, fake.url).list_files(repo_id, kind, None)
    assert (listing.hub, listing.repo_id, listing.kind) == (hub, repo_id, kind)
    assert {file.path: file.size for file in listing.files} == {
        "config.json": 2,
        "model.safetensors": 7,
        "a/b c/中.txt": 0,
    }
    weights = next(file for file in listing.files if file.lfs)
    assert weights.sha256 == hashlib.sha256(b"weights").hexdigest()
    if hub == "huggingface":
        assert listing.commit == fake.commit(kind, repo_id)
        assert all(file.git_sha1 for file in listing.files if not file.lfs)
    else:
        assert listing.commit == content_commit(listing.files)


def test_origin_gives_the_bytes_of_any_path(fake: FakeHub, hub: str) -> None:
    client = api(hub, fake.url)
    origin = client.origin(client.list_files("lab/m", "model", None))
    for path, content in fake.repositories["model", "lab/m"].items():
        url, headers = origin.request(path)
        assert headers == {"Accept-Encoding": "identity"}
        response = Client({"NO_PROXY": "*"}).open(url, headers)
        assert (response.status, response.beginning(100)) == (200, content)
    if hub == "huggingface":
        assert fake.commit("model", "lab/m") in url


def test_token_is_in_the_headers_and_not_in_the_repr(fake: FakeHub, hub: str) -> None:
    client = api(hub, fake.url, token=Secret("s3cret"))
    origin = client.origin(client.list_files("lab/m", "model", None))
    _url, headers = origin.request("x")
    assert headers["Authorization"] == "Bearer s3cret"
    assert ("Cookie" in headers) is (hub == "modelscope")
    assert "s3cret" not in repr(origin)


def test_commit_of_modelscope_follows_the_content() -> None:
    files = [RemoteFile("a", 1, "0" * 64), RemoteFile("b", 2, "1" * 64)]
    assert content_commit(files) == content_commit(files[::-1])
    for other in (
        [files[0]],
        [files[0], RemoteFile("b", 3, "1" * 64)],
        [files[0], RemoteFile("b", 2, "2" * 64)],
        [files[0], RemoteFile("c", 2, "1" * 64)],
    ):
        assert content_commit(other) != content_commit(files)


@pytest.mark.parametrize(
    "body",
    [
        {"Code": 200, "Data": {"Files": [{"Path": "x", "Type": "blob", "Size": 1}]}},
        {"code": 200, "data": {"files": [{"path": "x", "type": "blob", "size": 1}]}},
        {"Data": [{"Path": "x", "Type": "blob", "Size": 1}, {"Path": "d", "Type": "tree"}]},
        [{"path": "x", "type": "blob", "size": 1}],
    ],
)
def test_forms_of_modelscopes_answer(body: Any) -> None:
    value = json.loads(json.dumps(body), object_hook=modelscope_entry)
    while isinstance(value, dict):
        value = value.get("Data", value.get("data", value.get("Files", value.get("files"))))
    assert checked_files(value) == (RemoteFile("x", 1),)


def test_unknown_size_is_not_taken_for_an_empty_file() -> None:
    entry = {"Path": "x", "Type": "blob", "Size": 0, "Sha256": "1" * 64}
    assert modelscope_entry(entry).size is None
    empty = {**entry, "Sha256": hashlib.sha256(b"").hexdigest().upper()}
    assert modelscope_entry(empty) == RemoteFile("x", 0, hashlib.sha256(b"").hexdigest())


def test_chunk_hashes_are_not_looked_at() -> None:
    lfs = {"oid": "2" * 64, "size": 9, "pointerSize": 130}
    entry = {"type": "file", "path": "x", "size": 9, "oid": "1" * 40, "xetHash": "9" * 64}
    assert huggingface_entry({**entry, "lfs": lfs}) == RemoteFile("x", 9, "2" * 64, None, True)


def hostile(**values: Any) -> dict[str, Any]:
    """Return one entry in both hubs' forms at once."""
    entry = {"path": "x", "type": "file", "size": 1, "oid": "1" * 40}
    entry.update(values)
    return {
        **entry,
        "Path": entry["path"],
        "Type": "blob",
        "Size": entry["size"],
        "Sha256": values.get("oid"),
    }


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([hostile(path="../evil")], "would leave the folder"),
        ([hostile(path="/etc/passwd")], "would leave the folder"),
        ([hostile(path="a\0b")], "would leave the folder"),
        ([hostile(path="C:\\evil")], "would leave the folder"),
        ([hostile(path="\ud800")], "would leave the folder"),
        ([hostile(path="x" * 300)], "would leave the folder or cannot be a file"),
        ([hostile(size=-5)], "the size -5"),
        ([hostile(size=1e300)], "the size 1e"),
        ([hostile(size=2**70)], "the size"),
        ([hostile(size="12")], "the size '12'"),
        ([hostile(size=True)], "the size True"),
        ([hostile(oid="../../../evil")], "a hash for 'x'"),
        ([hostile(path="x"), hostile(path="x", size=2)], "lists 'x' twice"),
        ([hostile(path="x"), hostile(path="x/y")], "as a file and as a folder"),
        ([hostile(path="x/y/z"), hostile(path="x")], "as a file and as a folder"),
        ([{"path": 5}], "list of files is not one"),
        (["text"], "list of files is not one"),
        ([[[]]], "list of files is not one"),
    ],
)
def test_hostile_listings_are_refused(
    fake: FakeHub, hub: str, entries: list[Any], message: str
) -> None:
    fake.faults = Faults(extra_entries=entries)
    with pytest.raises(SourceUnavailable) as caught:
        api(hub, fake.url).list_files("lab/d", "dataset", None)
    assert message in caught.value.reason
    assert caught.value.reason.isprintable()


def test_the_same_entry_twice_is_one_file(fake: FakeHub, hub: str) -> None:
    fake.faults = Faults(extra_entries=[hostile(), hostile()])
    listing = api(hub, fake.url).list_files("lab/m", "model", None)
    assert len(listing.files) == 4


def test_pages_without_end(fake: FakeHub) -> None:
    # Given a server that answers every page with the same files
    fake.faults = Faults(endless_pages=True)
    listing = api("modelscope", fake.url).list_files("lab/d", "dataset", None)
    assert len(listing.files) == 3
    # And one whose last page links to itself: it is found out, and no other host is asked
    with pytest.raises(SourceUnavailable, match="has no end"):
        api("huggingface", fake.url).list_files("lab/d", "dataset", None)


def test_same_full_page_again_and_again_ends(fake: FakeHub) -> None:
    fake.repositories["dataset", "lab/d"] = {f"f{n:03}": b"" for n in range(200)}
    fake.faults = Faults(endless_pages=True)
    listing = api("modelscope", fake.url).list_files("lab/d", "dataset", None)
    assert len(listing.files) == 200


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 400, 1999])
def test_pages_of_a_dataset(fake: FakeHub, count: int) -> None:
    fake.repositories["dataset", "lab/d"] = {f"f{n:04}": b"" for n in range(count)}
    listing = api("modelscope", fake.url).list_files("lab/d", "dataset", None)
    assert [file.path for file in listing.files] == [f"f{n:04}" for n in range(count)]


def test_listing_that_the_server_cuts_off_is_walked_folder_by_folder(fake: FakeHub) -> None:
    # Given a model with more files than the server lists at once
    paths = [f"d{n // 1000}/s{n // 100 % 10}/f{n:05}" for n in range(7000)] + ["config.json"]
    fake.repositories["model", "lab/m"] = dict.fromkeys(paths, b"")
    fake.faults = Faults(cut_at=3000)
    listing = api("modelscope", fake.url).list_files("lab/m", "model", None)
    assert sorted(file.path for file in listing.files) == sorted(paths)


def test_folder_that_is_cut_off_by_itself_is_refused(fake: FakeHub) -> None:
    fake.repositories["model", "lab/m"] = {f"flat/f{n:05}": b"" for n in range(3500)}
    fake.faults = Faults(cut_at=3000)
    with pytest.raises(SourceUnavailable, match="only the first 3000 files of 'flat'"):
        api("modelscope", fake.url).list_files("lab/m", "model", None)


@pytest.mark.slow
def test_million_entries_within_seconds() -> None:
    # Given a repository of a million files, in pages as a hub gives them
    with FaultServer() as server:
        origin = server.add_origin([Repo("lab/d", {}, kind="dataset", generated=1_000_000)])
        used = time.process_time()
        listing = api("huggingface", origin.url, deadline=300).list_files("lab/d", "dataset", None)
        assert len(listing.files) == 1_000_000
        # Processor time, which others on the machine do not stretch.
        assert time.process_time() - used < 15


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_missing_repository(fake: FakeHub, hub: str, kind: Any) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        api(hub, fake.url).list_files("lab/absent", kind, "v1")
    assert caught.value.reason == f"it has no {kind} lab/absent"
    assert caught.value.trouble == "not_found"


def test_missing_revision_names_those_that_are_there(fake: FakeHub, hub: str) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        api(hub, fake.url).list_files("lab/m", "model", "zzz")
    branch = {"modelscope": "master", "huggingface": "main"}[hub]
    assert caught.value.reason == f"lab/m has no revision zzz (it has {branch})"


@pytest.mark.parametrize(
    ("status", "code", "trouble", "words"),
    [
        (401, None, "denied", "denies access to lab/m"),
        (403, None, "denied", "denies access to lab/m"),
        (500, None, "unreachable", "HTTP 500"),
        (418, None, "unreachable", "HTTP 418"),
    ],
)
def test_refusals(
    hub: str, server: FaultServer, status: int, code: str | None, trouble: str, words: str
) -> None:
    origin = server.add_origin([Repo("lab/m", {"x": 1})])
    origin.set(refuse=(status, code))
    with pytest.raises(SourceUnavailable) as caught:
        api(hub, origin.url).list_files("lab/m", "model", None)
    assert caught.value.trouble == trouble
    assert words in caught.value.reason


def test_gated_listing_names_the_page(server: FaultServer) -> None:
    origin = server.add_origin([Repo("lab/m", {"x": 1})])
    origin.set(refuse=(403, "GatedRepo"))
    with pytest.raises(SourceUnavailable) as caught:
        api("huggingface", origin.url).list_files("lab/m", "model", None)
    assert f"accept its terms at {origin.url}/lab/m, then set HF_TOKEN" in caught.value.reason


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def test_page_that_is_no_api(hub: str) -> None:
    import http.server
    import threading

    class Portal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "14")
            self.end_headers()
            self.wfile.write(b"<html>log in</")

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal) as portal:
        threading.Thread(target=portal.serve_forever, args=(0.02,), daemon=True).start()
        with pytest.raises(SourceUnavailable) as caught:
            api(hub, f"http://127.0.0.1:{portal.server_address[1]}").list_files(
                "lab/m", "model", None
            )
        portal.shutdown()
    assert "does not speak the language" in caught.value.reason


def test_a_listing_is_a_value() -> None:
    listing = RepoListing("huggingface", "a/b", "model", "main", "0" * 40, (RemoteFile("x"),))
    assert hash(listing) == hash(listing)
