"""The unmodified clients of both hubs pull from one node, from one store."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_server import FaultServer, Origin, Repo
from node_process import NodeProcess, run_client
from sandbox import environment
from tiny_models import build_tiny_model

MODEL = "lab/tiny-model"
DATA = "lab/tiny-data"
ROWS = "".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(100)).encode()
MODEL_FILES: dict[str, int | bytes] = {
    "tiny.safetensors": 3 << 20,
    "config.json": b'{"model_type": "llama"}',
    "sub folder/näme+plus.txt": b"text",
    "empty.txt": b"",
}
DATA_FILES: dict[str, int | bytes] = {"data/train.jsonl": ROWS, "README.md": b"# tiny\n"}


@pytest.fixture(scope="module")
def hub() -> Iterator[Origin]:
    with FaultServer() as server:
        yield server.add_origin(
            [
                Repo(MODEL, MODEL_FILES),
                Repo(DATA, DATA_FILES, kind="dataset"),
                Repo("lab/wide", {f"part-{n:04}.txt": b"%d" % n for n in range(450)}, "dataset"),
            ]
        )


@pytest.fixture(scope="module")
def node(hub: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    folder = tmp_path_factory.mktemp("node")
    with NodeProcess(folder, "--on_demand", "--upstream", f"both={hub.url}") as started:
        yield started


@pytest.fixture
def modelscope_variables(node: NodeProcess) -> dict[str, str]:
    return {"MODELSCOPE_ENDPOINT": node.url}


@pytest.fixture
def huggingface_variables(node: NodeProcess) -> dict[str, str]:
    return {"HF_ENDPOINT": node.url}


@pytest.fixture
def dead_hubs() -> dict[str, str]:
    """Variables with which nothing but a node can be asked."""
    return {"MODELSCOPE_ENDPOINT": "http://127.0.0.1:9", "HF_ENDPOINT": "http://127.0.0.1:9"}


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.relative_to(folder).parts
    }


def test_modelscope_pulls_a_model_a_file_and_a_data_set(
    hub: Origin, tmp_path: Path, modelscope_variables: dict[str, str]
) -> None:
    # Given a node that holds nothing yet; the endpoint is written as many do
    variables = {"MODELSCOPE_ENDPOINT": modelscope_variables["MODELSCOPE_ENDPOINT"] + "/api/v1"}
    code = f"""
from modelscope import snapshot_download, dataset_snapshot_download
from modelscope.hub.file_download import model_file_download
print(snapshot_download({MODEL!r}))
print(model_file_download({MODEL!r}, "config.json"))
print(dataset_snapshot_download({DATA!r}))
print(dataset_snapshot_download("lab/wide"))
"""
    # When the hub's own client pulls
    out = [line for line in run_client(code, tmp_path, variables).splitlines() if line[:1] == "/"]
    # Then every byte is right, and more pages than one were listed
    assert hashes(Path(out[0])) == hub.sha256(MODEL)
    assert Path(out[1]).read_bytes() == MODEL_FILES["config.json"]
    assert hashes(Path(out[2])) == hub.sha256(DATA, "dataset")
    assert hashes(Path(out[3])) == hub.sha256("lab/wide", "dataset")


def test_huggingface_pulls_a_model_a_file_and_into_a_folder(
    hub: Origin, tmp_path: Path, huggingface_variables: dict[str, str]
) -> None:
    code = f"""
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
print(snapshot_download({MODEL!r}))
print(hf_hub_download({MODEL!r}, "sub folder/näme+plus.txt"))
print(snapshot_download({MODEL!r}, local_dir="folder"))
print(snapshot_download({DATA!r}, repo_type="dataset"))
api = HfApi()
info = api.model_info({MODEL!r}, files_metadata=True)
print("sizes", {{s.rfilename: s.size for s in info.siblings}})
print("tree", sorted(e.path for e in api.list_repo_tree({MODEL!r})))
print("paths", [e.path for e in api.get_paths_info({MODEL!r}, ["config.json", "nope"])])
print("refs", [b.name for b in api.list_repo_refs({MODEL!r}).branches])
print("exists", api.file_exists({MODEL!r}, "config.json"), api.file_exists({MODEL!r}, "nope"))
print("repos", api.repo_exists({MODEL!r}), api.repo_exists("lab/nope"))
print("revision", api.revision_exists({MODEL!r}, "nope"))
"""
    lines = run_client(code, tmp_path, huggingface_variables).splitlines()
    paths = [Path(line) for line in lines if line.startswith("/")]
    said = dict(line.split(" ", 1) for line in lines if not line.startswith("/"))
    assert hashes(paths[0]) == hub.sha256(MODEL)
    # Hugging Face's own names: the commit, and the blobs by their hashes
    assert paths[0].name == hub.commit(MODEL)
    blobs = {blob.name for blob in (paths[0].parents[1] / "blobs").iterdir()}
    assert hub.sha256(MODEL)["tiny.safetensors"] in blobs
    assert paths[1].read_bytes() == b"text"
    assert hashes(tmp_path / "folder") == hub.sha256(MODEL)
    assert hashes(paths[3]) == hub.sha256(DATA, "dataset")
    assert said["sizes"] == str(
        {
            "config.json": 23,
            "empty.txt": 0,
            "sub folder/näme+plus.txt": 4,
            "tiny.safetensors": 3 << 20,
        }
    )
    assert said["tree"] == "['config.json', 'empty.txt', 'sub folder', 'tiny.safetensors']"
    assert said["paths"] == "['config.json']" and said["refs"] == "['main']"
    assert said["exists"] == "True False" and said["repos"] == "True False"
    assert said["revision"] == "False"


def test_datasets_loads_and_streams(tmp_path: Path, huggingface_variables: dict[str, str]) -> None:
    code = f"""
from datasets import load_dataset
print("rows", len(load_dataset({DATA!r}, split="train")))
print("stream", sum(1 for row in load_dataset({DATA!r}, split="train", streaming=True)))
"""
    out = run_client(code, tmp_path, huggingface_variables)
    assert "rows 100" in out and "stream 100" in out


def test_a_data_set_is_listed_by_its_number(node: NodeProcess) -> None:
    # Given the number that the node gives to a data set
    number = node.json(f"/api/v1/datasets/{DATA}")["Data"]["Id"]
    # When its root is listed by that number, as MsDataset does
    path = f"/api/v1/datasets/{number}/repo/tree?Root=%2F&Recursive=False&PageNumber=1&PageSize=500"
    entries = node.json(path)["Data"]["Files"]
    # Then there are the files and folders of the root alone
    assert [(e["Path"], e["Type"]) for e in entries] == [("README.md", "blob"), ("data", "tree")]
    assert node.get("/api/v1/datasets/12345/repo/tree")[0] == 404


def test_msdataset_loads(tmp_path: Path, modelscope_variables: dict[str, str]) -> None:
    for name in ("addict", "simplejson", "sortedcontainers", "oss2"):
        pytest.importorskip(name, reason="MsDataset needs the extra packages of modelscope")
    code = f"""
from modelscope.msdatasets import MsDataset
print("rows", len(MsDataset.load({DATA!r}, split="train")))
"""
    assert "rows 100" in run_client(code, tmp_path, modelscope_variables)


def test_transformers_loads_by_name(
    hub: Origin, tmp_path: Path, huggingface_variables: dict[str, str]
) -> None:
    # Given a tiny model that a hub has
    build_tiny_model(tmp_path / "saved")
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    hub.put(Repo("lab/loadable", files))
    code = """
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("lab/loadable")
print("parameters", sum(p.numel() for p in model.parameters()))
"""
    out = run_client(code, tmp_path, huggingface_variables)
    assert int(out.split("parameters ")[1]) > 1000


def test_our_own_client_pulls(
    hub: Origin, node: NodeProcess, tmp_path: Path, dead_hubs: dict[str, str]
) -> None:
    words = ["download", MODEL, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "swift_jupyter.cli", *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment(tmp_path), **dead_hubs, "SWIFT_JUPYTER_NODES": node.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert hashes(Path(json.loads(done.stdout)["path"])) == hub.sha256(MODEL)


def test_everything_came_from_upstream_once(hub: Origin, node: NodeProcess) -> None:
    # Given all the pulls above, by clients with empty caches
    counters = hub.counters()
    # Then each file with a content of its own was asked for once
    assert counters.bytes_by_path["tiny.safetensors"] == 3 << 20
    assert counters.bytes_by_path["data/train.jsonl"] == len(ROWS)
    status = node.status()
    assert status["bytes_fetched"] < status["bytes_served"]
    assert status["bytes_saved"] == status["bytes_served"] - status["bytes_fetched"]
