"""The sidebar's REST interface, asked over HTTP as the sidebar does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.auth import Authorizer
from stored_models import MODEL, fill, listing_of
from tornado.httpclient import HTTPClientError

from swift_jupyter.hub.cache.records import record_snapshot
from swift_jupyter.hub.store.export import export_huggingface, export_modelscope
from swift_jupyter.hub.store.store import open_store
from swift_jupyter.runs.folder import RunFolder, create_run_folder
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.process import ProcessIdentity, identify
from swift_jupyter.runs.record import RunRecord, State
from swift_jupyter.settings import load_settings
from swift_jupyter.version import __version__

READS = (("models",), ("runs",), ("env",))


class NobodyMayUseSwift(Authorizer):
    """Allows everything but this package's resource."""

    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        return resource != "swift_jupyter"


@pytest.fixture
def jp_server_config() -> dict[str, Any]:
    return {
        "ServerApp": {
            "jpserver_extensions": {"swift_jupyter": True},
            "allow_unauthenticated_access": False,
        }
    }


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jp_environ: None) -> dict[str, Path]:
    """Own, empty caches and an own state folder."""
    variables = {
        "HF_HOME": "huggingface",
        "MODELSCOPE_CACHE": "modelscope",
        "SWIFT_JUPYTER_CACHE_DIR": "cache",
        "SWIFT_JUPYTER_STATE_DIR": "state",
        "XDG_CONFIG_HOME": "config",
    }
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, folder in variables.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    return {name: tmp_path / folder for name, folder in variables.items()}


@pytest.fixture
def ask(jp_fetch: Any) -> Any:
    """Ask a path below ``swift-jupyter/``; return status and JSON, also of errors."""

    async def ask(*path: str, method: str = "GET", **options: Any) -> tuple[int, dict[str, Any]]:
        body = {"body": "", "allow_nonstandard_methods": True} if method == "POST" else {}
        try:
            answer = await jp_fetch("swift-jupyter", *path, method=method, **body, **options)
        except HTTPClientError as error:
            assert error.response is not None
            answer = error.response
        assert answer.headers["Content-Type"].startswith("application/json")
        return answer.code, json.loads(answer.body)

    return ask


def add_run(
    output: Path, run_id: str, state: State, worker: ProcessIdentity | None = None
) -> RunFolder:
    """Enter a run into the index as its launcher does."""
    folder = create_run_folder(output)
    folder.write(RunRecord(run_id, "sft", state=state, worker=worker, created=1.0))
    RunIndex(load_settings()).add(run_id, folder)
    return folder


async def test_empty_caches_give_no_models_and_their_folders(
    ask: Any, places: dict[str, Path]
) -> None:
    # Given empty caches, when the models are asked for
    status, answer = await ask("models")
    # Then there is none, and the answer says where it looked
    assert status == 200
    assert answer["models"] == []
    assert answer["warnings"] == []
    assert answer["cache"]["Hugging Face"] == str(places["HF_HOME"] / "hub")
    assert answer["cache"]["ModelScope"] == str(places["MODELSCOPE_CACHE"])
    assert answer["cache"]["local packages"].startswith(str(places["SWIFT_JUPYTER_CACHE_DIR"]))


async def test_models_are_listed_without_the_datasets(ask: Any, places: dict[str, Path]) -> None:
    # Given a half-downloaded model and a dataset in a cache
    hub = places["HF_HOME"] / "hub"
    for name in ("models--org--half", "datasets--org--rows"):
        (hub / name / "blobs").mkdir(parents=True)
        (hub / name / "blobs" / "abc.incomplete").write_bytes(bytes(1000))
    # When the models are asked for
    _status, answer = await ask("models")
    # Then the model is there, with its state, and the dataset is not
    [model] = answer["models"]
    assert model["repo_id"] == "org/half"
    assert model["hub"] == "Hugging Face"
    assert model["size_bytes"] == 1000
    assert model["size_str"]
    assert model["complete"] is False
    assert model["path"] == str(hub / "models--org--half")


async def test_a_model_in_both_caches_is_one_row(ask: Any, places: dict[str, Path]) -> None:
    # Given a model that a pull has shown in both hubs' caches, and pinned
    settings = load_settings()
    store, listing = open_store(settings), listing_of(MODEL)
    fill(store, MODEL)
    for show, cache in (
        (export_modelscope, places["MODELSCOPE_CACHE"]),
        (export_huggingface, places["HF_HOME"] / "hub"),
    ):
        folder = show(store, listing, listing.files, cache, "lab/tiny")
        record_snapshot(settings, folder, listing, "ModelScope")
    store.pins.pin("model", "lab/tiny")
    # When the models are asked for
    _status, answer = await ask("models")
    # Then there is one, which names both hubs
    [model] = answer["models"]
    assert model["hub"] == "ModelScope, Hugging Face"
    assert model["hubs"] == ["ModelScope", "Hugging Face"]
    assert model["complete"] is True and model["progress"] is None
    assert model["pinned"] is True


async def test_a_broken_settings_file_is_explained(ask: Any, places: dict[str, Path]) -> None:
    # Given a settings file that is no JSON
    file = places["XDG_CONFIG_HOME"] / "swift_jupyter" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{ über")
    # When anything that needs it is asked for
    status, answer = await ask("models")
    # Then message and reason say what to mend
    assert status == 500
    assert str(file) in answer["message"]
    assert "Mend or delete it" in answer["reason"]


async def test_runs_are_listed_with_their_progress(ask: Any, tmp_path: Path) -> None:
    # Given a run at work that has logged steps, the last with a diverged loss
    folder = add_run(tmp_path / "output", "sft-aaaa", State.RUNNING, identify())
    folder.metrics_file.write_text(
        '{"loss": 2.0, "global_step/max_steps": "10/40"}\n'
        '{"loss": NaN, "global_step/max_steps": "20/40"}\n'
    )
    # When the runs are asked for
    status, answer = await ask("runs")
    # Then its progress is there, in strict JSON
    assert status == 200
    [run] = answer["runs"]
    assert run["id"] == "sft-aaaa"
    assert run["command"] == "sft"
    assert run["state"] == "running"
    assert (run["step"], run["max_steps"]) == (20, 40)
    assert run["loss"] == "nan"
    assert run["output_dir"] == str(folder.path)


async def test_a_run_whose_process_is_gone_is_lost(ask: Any, tmp_path: Path) -> None:
    # Given a run whose worker has ended without a word
    dead = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = identify(dead.pid)
    dead.communicate()
    add_run(tmp_path / "output", "sft-gone", State.RUNNING, worker)
    # When the runs are asked for, then it is not shown as running
    _status, answer = await ask("runs")
    assert answer["runs"][0]["state"] == "lost"


async def test_stop_asks_the_worker(ask: Any, tmp_path: Path) -> None:
    # Given two runs at work
    folder = add_run(tmp_path / "output", "sft-aaaa", State.RUNNING, identify())
    other = add_run(tmp_path / "output", "sft-bbbb", State.RUNNING, identify())
    # When one is stopped, without a kernel
    status, answer = await ask("runs", "sft-aaaa", "stop", method="POST")
    # Then its control file is written, and only its own
    assert status == 202
    assert answer == {"id": "sft-aaaa", "state": "running"}
    assert folder.stop_requested()
    assert not other.stop_requested()
    assert (await ask("runs"))[1]["runs"][0]["state"] in ("running", "stopping")


async def test_stop_refuses_a_finished_run(ask: Any, tmp_path: Path) -> None:
    folder = add_run(tmp_path / "output", "sft-aaaa", State.DONE)
    status, answer = await ask("runs", "sft-aaaa", "stop", method="POST")
    assert status == 409
    assert "done" in answer["message"]
    assert not folder.stop_requested()


@pytest.mark.parametrize("name", ["sft-aaab", "sft", "..%2F..%2Foutput", "%2Fetc"])
async def test_stop_knows_ids_only(ask: Any, tmp_path: Path, name: str) -> None:
    # Given a run, when a similar id, a prefix of the id or a path is stopped
    folder = add_run(tmp_path / "output", "sft-aaaa", State.RUNNING, identify())
    status, answer = await ask("runs", name, "stop", method="POST")
    # Then it is not found, and nothing is written
    assert status == 404
    assert "There is no run" in answer["message"]
    assert not folder.stop_requested()


async def test_stop_does_not_take_the_folder_of_a_run(ask: Any, tmp_path: Path) -> None:
    # Given a run outside the index, when its folder is named instead of an id
    folder = create_run_folder(tmp_path / "foreign")
    folder.write(RunRecord("sft-cccc", "sft", state=State.RUNNING, worker=identify()))
    name = str(folder.path).replace("/", "%2F")
    status, _answer = await ask("runs", name, "stop", method="POST")
    # Then no path from outside is followed
    assert status == 404
    assert not folder.stop_requested()


async def test_env_names_the_interpreter(ask: Any) -> None:
    status, answer = await ask("env")
    assert status == 200
    assert answer["python"] == sys.executable
    assert answer["version"] == __version__


@pytest.mark.parametrize("path", READS)
async def test_reading_needs_a_token(ask: Any, path: tuple[str, ...]) -> None:
    status, _answer = await ask(*path, headers={"Authorization": "token wrong"})
    assert status == 403


async def test_stopping_needs_a_token(ask: Any, tmp_path: Path) -> None:
    folder = add_run(tmp_path / "output", "sft-aaaa", State.RUNNING, identify())
    status, _answer = await ask(
        "runs", "sft-aaaa", "stop", method="POST", headers={"Authorization": "token wrong"}
    )
    assert status == 403
    assert not folder.stop_requested()


class TestAuthorizer:
    """A deployment, such as a hub of many users, may allow some users less."""

    @pytest.fixture
    def jp_server_config(self) -> dict[str, Any]:
        return {
            "ServerApp": {
                "jpserver_extensions": {"swift_jupyter": True},
                "authorizer_class": NobodyMayUseSwift,
            }
        }

    @pytest.mark.parametrize("path", READS)
    async def test_reading_is_refused(self, ask: Any, path: tuple[str, ...]) -> None:
        status, _answer = await ask(*path)
        assert status == 403

    async def test_stopping_is_refused(self, ask: Any, tmp_path: Path) -> None:
        folder = add_run(tmp_path / "output", "sft-aaaa", State.RUNNING, identify())
        status, _answer = await ask("runs", "sft-aaaa", "stop", method="POST")
        assert status == 403
        assert not folder.stop_requested()


async def test_polling_is_no_activity(ask: Any, jp_serverapp: Any) -> None:
    # Given a server that may be culled when nobody uses it
    settings = jp_serverapp.web_app.settings
    before = settings.get("api_last_activity")
    # When the sidebar polls, the server still counts as idle
    await ask("models")
    await ask("runs")
    assert settings.get("api_last_activity") == before
    # When the user does something, it does not
    await ask("env")
    assert settings.get("api_last_activity") != before


def test_the_server_part_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "datasets", "modelscope", "huggingface_hub", "matplotlib")
    modules = ("models", "runs", "environment")
    imports = "; ".join(f"import swift_jupyter.server.{name}" for name in modules)
    program = f"import sys; {imports}; print([m for m in {heavy!r} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert answer.stdout.strip() == "[]"
