"""Keeping a node up to date, freeing old revisions, and a node as a run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_server import ALWAYS, FaultServer, Origin, Repo
from node_process import NodeProcess, run_client
from sandbox import environment, isolated_session, wait_for

import swift_jupyter
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.hub.store.store import Store

MB = 1 << 20
MODEL = "lab/synced"
FIRST: dict[str, int | bytes] = {"a.safetensors": 2 * MB, "b.safetensors": MB, "config.json": b"1"}
SECOND = {**FIRST, "config.json": b"2", "new.txt": b"new"}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as started:
        yield started


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Any]:
    with isolated_session(tmp_path) as context:
        yield context


def sync(hub: Origin, root: Path, *names: str, **options: Any) -> Any:
    upstream = [f"both={hub.url}"]
    return swift_jupyter.mirror(
        action="sync", names=list(names), root=str(root), upstream=upstream, **options
    )


def test_only_what_changed_is_fetched(server: FaultServer, tmp_path: Path, session: Any) -> None:
    root = tmp_path / "store"
    hub = server.add_origin([Repo(MODEL, FIRST), Repo("lab/rows", {"r.jsonl": b"{}"}, "dataset")])
    listed = tmp_path / "list.txt"
    listed.write_text("dataset: lab/rows  # two names, one of them twice\nlab/synced\n")
    # Given a node that was synced once
    first = sync(hub, root, MODEL, list_file=str(listed))
    assert [(row["name"], row["state"]) for row in first] == [
        (MODEL, "new"),
        ("lab/rows", "new"),
    ]
    assert first[0]["fetched_bytes"] == 3 * MB + 1
    # When nothing has changed, then nothing comes
    again = sync(hub, root, MODEL)
    assert (again[0]["state"], again[0]["fetched_bytes"]) == ("unchanged", 0)
    # When a small file has changed, then only that comes
    hub.put(Repo(MODEL, SECOND))
    hub.counters(reset=True)
    update = sync(hub, root, MODEL)
    assert (update[0]["state"], update[0]["fetched_files"]) == ("updated", 2)
    assert hub.sent_bytes() == 4
    # When upstream removes it, then it still installs, in both revisions
    hub.put(Repo(MODEL, {}))
    hub.set(refuse=(404, "RepoNotFound"))
    gone = sync(hub, root, MODEL)
    assert gone[0]["state"] == "gone" and gone[0]["reason"]
    with NodeProcess(tmp_path) as node:
        assert node.get(f"/{MODEL}/resolve/main/config.json")[2] == b"2"
        old = node.get(f"/{MODEL}/resolve/{first[0]['commit']}", {})  # cut in the table
        assert old[0] in (400, 404)
        commits = Store(root).manifest_files.commits("modelscope", "model", MODEL)
        found = {node.get(f"/{MODEL}/resolve/{commit}/config.json")[2] for commit in commits}
        assert found == {b"1", b"2"}
        code = f"""
from huggingface_hub import snapshot_download
from modelscope import snapshot_download as pull
print(sorted(p.name for p in __import__("pathlib").Path(snapshot_download({MODEL!r})).iterdir()))
print(pull({MODEL!r}))
"""
        variables = {"HF_ENDPOINT": node.url, "MODELSCOPE_ENDPOINT": node.url}
        assert str(sorted(SECOND)) in run_client(code, tmp_path, variables)
    # When the old revision is collected
    plan = swift_jupyter.mirror(action="gc", root=str(root), older_than="0s")
    assert len(plan) == 1 and "--yes" in plan.note
    assert len(Store(root).manifest_files.commits("modelscope", "model", MODEL)) == 2
    time.sleep(0.01)
    done = swift_jupyter.mirror(action="gc", root=str(root), older_than="0s", yes=True)
    # Then its own file alone is freed
    assert done.to_dict()["freed_bytes"] == 1
    assert len(Store(root).manifest_files.commits("modelscope", "model", MODEL)) == 1
    listed_again = swift_jupyter.mirror(action="ls", root=str(root))
    assert {row["name"]: row["complete"] for row in listed_again} == {MODEL: True, "lab/rows": True}


def test_the_old_revision_is_served_until_the_new_one_is_whole(
    server: FaultServer, tmp_path: Path, session: Any
) -> None:
    # Given a synced model, whose next revision has a file that cannot be had
    root = tmp_path / "store"
    hub = server.add_origin([Repo(MODEL, FIRST)])
    sync(hub, root, MODEL)
    hub.put(Repo(MODEL, {**SECOND, "b.safetensors": 3 * MB}))
    hub.fault("b.safetensors", first=ALWAYS, flip_at=5)
    with NodeProcess(tmp_path) as node:
        seen = set()
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                files = node.json(f"/api/v1/models/{MODEL}/repo/files?Recursive=True")
                seen.add(tuple(e["Sha256"] for e in files["Data"]["Files"]))
                time.sleep(0.02)

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        # When it is synced
        with pytest.raises(UserError, match="could not be synced"):
            sync(hub, root, MODEL)
        hub.clear()
        time.sleep(1.2)
        assert len(seen) == 1
        # Then clients saw the old one alone, until a later sync had everything
        assert sync(hub, root, MODEL)[0]["state"] == "updated"
        wait_for(lambda: len(seen) == 2, 10)
        over.set()
        watcher.join()
    assert len(seen) == 2


def test_wrong_words(tmp_path: Path, session: Any) -> None:
    for options, says in (
        ({"names": []}, "needs a name"),
        ({"names": ["lab/x"], "every": "often"}, "length of time"),
        ({"names": ["lab/x"], "every": "1s"}, "too short"),
        ({"names": ["no-slash"], "dataset": True}, "owner/name"),
        ({"names": [], "list_file": str(tmp_path / "nope")}, "cannot be read"),
    ):
        with pytest.raises(UserError, match=says):
            swift_jupyter.mirror(action="sync", root=str(tmp_path), **options)
    with pytest.raises(OptionError, match="no names"):
        swift_jupyter.mirror(action="serve", names=["lab/x"])
    assert "mirror serve" in swift_jupyter.mirror(action="status", root=str(tmp_path)).note


def test_a_node_is_a_run_that_is_listed_and_stopped(
    server: FaultServer, tmp_path: Path, session: Any
) -> None:
    # Given a node started from Python, as a notebook does, with a token
    hub = server.add_origin([Repo(MODEL, FIRST)])
    root = tmp_path / "store"
    token = "t0ken-of-a-run"
    run = swift_jupyter.mirror(
        action="serve",
        root=str(root),
        port=0,
        token=token,
        on_demand=True,
        upstream=[f"huggingface={hub.url}"],
    )
    try:
        assert run.url.startswith("http://127.0.0.1:") and run.state == "running"
        assert f"MODELSCOPE_ENDPOINT={run.url}" in run.next_steps()
        # When a client shows the token, then it pulls
        code = f"""
from huggingface_hub import hf_hub_download
print(open(hf_hub_download({MODEL!r}, "config.json")).read())
"""
        variables = {"HF_ENDPOINT": run.url, "HF_TOKEN": token}
        assert run_client(code, tmp_path, variables).strip() == "1"
        # And the run is listed, and its state can be asked for
        assert any(row["id"] == run.id for row in swift_jupyter.manage_runs())
        (row,) = swift_jupyter.mirror(action="status", root=str(root), token=token)
        assert (row["state"], row["requests"] > 1) == ("serving", True)
        (row,) = swift_jupyter.mirror(action="status", names=[run.url], token="wrong")
        assert "401" in row["state"]
        # And nothing in its folder tells the token
        for file in run.path.rglob("*"):
            assert not file.is_file() or token.encode() not in file.read_bytes(), file
    finally:
        run.stop()
        assert run.wait(20) == "stopped"
    assert run.url == "" and not swift_jupyter.mirror(action="status", root=str(root))
    assert run.to_dict()["result"]["fills"] == 1
    # When it is resumed, then it serves again, with the same token
    again = swift_jupyter.manage_runs(action="resume", run=run.id, background=True)
    try:
        again.wait_until_serving()
        (row,) = swift_jupyter.mirror(action="status", root=str(root), token=token)
        assert row["state"] == "serving"
    finally:
        again.stop()
        assert again.wait(20) == "stopped"


def test_a_taken_port_is_said_at_once(tmp_path: Path, session: Any) -> None:
    with NodeProcess(tmp_path / "first") as node:
        port = int(node.url.rpartition(":")[2])
        with pytest.raises(UserError, match=str(port)):
            swift_jupyter.mirror(action="serve", root=str(tmp_path / "store"), port=port)


def test_a_sync_that_goes_on(server: FaultServer, tmp_path: Path) -> None:
    # Given a sync that is repeated, started in a terminal
    hub = server.add_origin([Repo(MODEL, FIRST)])
    root = tmp_path / "store"
    words = ["mirror", "sync", MODEL, "--every", "5s", "--background", "--root", str(root)]
    env = {**os.environ, **environment(tmp_path), "SWIFT_JUPYTER_OUTPUT_ROOT": str(tmp_path)}

    def call(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "swift_jupyter.cli", *words],
            cwd=Path(__file__).parents[2],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = call(*words, "--upstream", f"modelscope={hub.url}")
    run_id = next(word for word in said.split() if word.startswith("mirror-")).rstrip(":")
    try:
        # When its first round is over and the model changes
        store = Store(root)
        wait_for(lambda: store.read_manifest("modelscope", "model", MODEL), 30)
        hub.put(Repo(MODEL, SECOND))

        def is_updated() -> bool:
            listing = store.read_manifest("modelscope", "model", MODEL)
            return listing is not None and len(listing.files) == 4

        # Then a later round brings it
        wait_for(is_updated, 30)
    finally:
        call("runs", "stop", run_id)
    wait_for(lambda: "stopped" in call("runs", "show", run_id), 20, 0.5)
