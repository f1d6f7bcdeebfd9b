"""Several sources for one model: which one is taken, what is mixed and what never is."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub, Faults, free_dead_url
from fault_server import FaultServer, Repo
from hub_machine import (
    HUBS,
    MODEL,
    PULLED,
    REFERENCE,
    WEIGHTS,
    Machine,
    files_in,
    two_hubs,
)
from tmpfs import mounted_tmpfs

from swift_jupyter.errors import UserError
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.settings import Settings

# Both names are in the table of models.
MODELSCOPE_ID, HUGGINGFACE_ID = "LLM-Research/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with two_hubs(tmp_path) as machine:
        yield machine


@pytest.fixture(params=sorted(HUBS))
def hub(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


def other(hub: str) -> str:
    return next(name for name in HUBS if name != hub)


@pytest.mark.parametrize(
    ("typed", "down"), [(MODELSCOPE_ID, "modelscope"), (HUGGINGFACE_ID, "huggingface")]
)
def test_a_name_of_one_hub_is_pulled_from_the_other_under_its_name_there(
    machine: Machine, typed: str, down: str
) -> None:
    # Given a model that has another name at each hub, and a hub that does not answer
    machine.hubs["modelscope"].repositories["model", MODELSCOPE_ID] = dict(MODEL)
    machine.hubs["huggingface"].repositories["model", HUGGINGFACE_ID] = dict(MODEL)
    variable = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}[down]
    machine.environ[variable] = free_dead_url()
    machine.settings = Settings(cache_dir=machine.settings.cache_dir, hub=down)
    # When it is pulled by the name that only the silent hub uses
    snapshot = machine.pull(RepoReference.of_hub(typed))
    # Then it comes from the other one
    assert snapshot.source == HUBS[other(down)]
    assert snapshot.repo_id == {"modelscope": HUGGINGFACE_ID, "huggingface": MODELSCOPE_ID}[down]
    # And lies in both hubs' caches, under the name that each uses
    cache = machine.root / ".cache"
    blobs = cache / "huggingface/hub" / f"models--{HUGGINGFACE_ID.replace('/', '--')}" / "blobs"
    assert len(list(blobs.iterdir())) == len(PULLED)
    folder = cache / "modelscope/models" / MODELSCOPE_ID.replace("/", "--") / "snapshots/master"
    assert set(files_in(folder)) == PULLED


def test_other_content_at_the_second_hub_is_told_and_never_mixed_in(server: FaultServer) -> None:
    # Given two hubs whose weights differ, and a transfer slow enough for both to take part
    sizes = {"config.json": b"{}", "model.safetensors": 12_000_000}
    first = server.add_origin([Repo("lab/m", sizes, seed="one")], rate=0.5e6)
    second = server.add_origin([Repo("lab/m", sizes, seed="two")])
    with pulling(first.url, second.url) as machine:
        snapshot = machine.pull(RepoReference.of_hub("lab/m"))
        # Then every byte is the first one's
        assert (
            sha256s(snapshot.path)["model.safetensors"]
            == first.sha256("lab/m")["model.safetensors"]
        )
        assert second.counters().bytes_by_path.get("model.safetensors", 0) == 0
        # And the user is told
        assert any("other content for model.safetensors" in text for text in snapshot.notices)
        assert any(report.notices for report in machine.reports)


@pytest.mark.slow
def test_other_content_is_taken_as_a_whole_when_the_first_hub_dies(server: FaultServer) -> None:
    sizes = {"config.json": b"{}", "model.safetensors": 12_000_000, "other.txt": 40_000}
    first = server.add_origin([Repo("lab/m", sizes, seed="one")], rate=2e6, die_after=6_000_000)
    second = server.add_origin([Repo("lab/m", sizes, seed="two")])
    with pulling(first.url, second.url) as machine:
        snapshot = machine.pull(RepoReference.of_hub("lab/m"))
        assert snapshot.source == "Hugging Face"
        assert sha256s(snapshot.path) == second.sha256("lab/m")


def test_one_of_two_hubs_with_the_same_content_dies_midway(server: FaultServer) -> None:
    sizes = {"config.json": b"{}", "model.safetensors": 16_000_000}
    first = server.add_origin([Repo("lab/m", sizes)], rate=1e6, die_after=6_000_000)
    second = server.add_origin([Repo("lab/m", sizes)], rate=1e6)
    with pulling(first.url, second.url) as machine:
        snapshot = machine.pull(RepoReference.of_hub("lab/m"))
        assert sha256s(snapshot.path) == second.sha256("lab/m")
        # Then what the first one had sent was not fetched again
        sent = first.sent_bytes() + second.sent_bytes()
        assert sent < 1.35 * 16_000_000
        assert not any("other content" in text for text in snapshot.notices)


def test_a_short_pull_asks_one_hub_only(machine: Machine) -> None:
    machine.pull()
    assert machine.hubs["huggingface"].requests == []


def test_named_hub_fetches_only_what_changed(machine: Machine, hub: str) -> None:
    # Given a model that was pulled, and a new state of one small file at its hub
    machine.pull(source=hub)
    server = machine.hubs[hub]
    server.repositories["model", "lab/tiny"]["config.json"] = b'{"model_type": "qwen3"}'
    server.sent.clear()
    # Then the default chain is content with the copy
    assert machine.pull().source == "cache"
    # And the hub, when it is named, sends that one file
    snapshot = machine.pull(source=hub)
    assert files_in(snapshot.path)["config.json"] == b'{"model_type": "qwen3"}'
    assert dict(server.sent) == {"config.json": 23}


def test_what_the_hub_deleted_does_not_stay_in_the_branch(machine: Machine) -> None:
    machine.pull(source="modelscope")
    del machine.hubs["modelscope"].repositories["model", "lab/tiny"]["sub folder/note-中.txt"]
    snapshot = machine.pull(source="modelscope")
    assert set(files_in(snapshot.path)) == {"config.json", "model.safetensors"}


def test_the_second_hub_costs_no_transfer_of_the_same_bytes(machine: Machine) -> None:
    machine.pull(source="modelscope")
    snapshot = machine.pull(source="huggingface")
    assert snapshot.source == "Hugging Face"
    assert not machine.hubs["huggingface"].sent


def test_what_the_hubs_own_clients_pulled_is_not_pulled_again(machine: Machine, hub: str) -> None:
    # Given a model that the hub's own client has pulled
    if hub == "huggingface":
        from huggingface_hub import snapshot_download

        snapshot_download(
            "lab/tiny",
            cache_dir=machine.root / ".cache/huggingface/hub",
            endpoint=machine.hubs[hub].url,
        )
    else:
        from modelscope_hub import HubApi, HubConfig

        config = HubConfig(
            endpoint=machine.hubs[hub].url, cache_dir=machine.root / ".cache/modelscope"
        )
        HubApi(config).download_repo("lab/tiny", "model")
    machine.hubs[hub].sent.clear()
    # Then the named hub is only asked for its listing
    snapshot = machine.pull(source=hub)
    assert snapshot.source == HUBS[hub]
    assert not machine.hubs[hub].sent
    assert files_in(snapshot.path).items() >= {name: MODEL[name] for name in PULLED}.items()


def test_unmodified_clients_find_it_without_a_network(machine: Machine, hub: str) -> None:
    snapshot = machine.pull(source=hub)
    machine.unplug()
    # A process of its own, since both clients read the environment when they are imported.
    code = (
        "import json, huggingface_hub, modelscope, transformers\n"
        "first = huggingface_hub.snapshot_download('lab/tiny', local_files_only=True)\n"
        "second = modelscope.snapshot_download('lab/tiny', local_files_only=True)\n"
        "config = transformers.AutoConfig.from_pretrained('lab/tiny')\n"
        "print(json.dumps([str(first), str(second), config.model_type]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**machine.environ, "HF_HUB_OFFLINE": "1", "USERPROFILE": str(machine.root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, model_type = json.loads(done.stdout.splitlines()[-1])
    assert model_type == "llama"
    for folder in (first, second):
        assert files_in(Path(folder)) == {name: MODEL[name] for name in PULLED}
    assert str(snapshot.path) == {"huggingface": first, "modelscope": second}[hub]


def test_huggingface_client_uses_our_blobs_when_it_is_online(machine: Machine) -> None:
    from huggingface_hub import snapshot_download

    machine.pull(source="modelscope")
    found = snapshot_download(
        "lab/tiny",
        cache_dir=machine.root / ".cache/huggingface/hub",
        endpoint=machine.hubs["huggingface"].url,
        ignore_patterns=["*.bin"],
    )
    assert files_in(Path(found)) == {name: MODEL[name] for name in PULLED}
    assert not machine.hubs["huggingface"].sent


def test_gated_repository_says_where_to_ask(machine: Machine) -> None:
    machine.hubs["huggingface"].faults = Faults(gated=True)
    with pytest.raises(UserError) as caught:
        machine.pull(source="huggingface")
    assert "lab/tiny is gated: accept its terms at" in caught.value.why
    assert "set HF_TOKEN" in caught.value.why
    machine.environ["HF_TOKEN"] = "hf_abc"
    with pytest.raises(UserError, match="your token's account has no access yet"):
        machine.pull(source="huggingface")


@pytest.mark.parametrize("wrong", ["v1.1", "v2.O"])
def test_wrong_revision_names_the_nearest(machine: Machine, hub: str, wrong: str) -> None:
    machine.hubs[hub].revisions = ["v1.0", "v2.0", "experiments"]
    with pytest.raises(UserError) as caught:
        machine.pull(RepoReference.of_hub("lab/tiny", revision=wrong), source=hub)
    assert f"{HUBS[hub]}: lab/tiny has no revision {wrong} (did you mean" in caught.value.why
    assert {"v1.1": "v1.0", "v2.O": "v2.0"}[wrong] in caught.value.why
    # And a right one works, in both layouts
    machine.pull(RepoReference.of_hub("lab/tiny", revision="v2.0"), source=hub)


def test_expired_token_does_not_bar_what_everybody_may_see(tmp_path: Path, hub: str) -> None:
    # Given a hub that refuses any wrong token, also for public repositories
    content = {("model", "lab/tiny"): MODEL}
    with FakeHub(content) as server:
        server.refused_token = "expired-token"
        machine = Machine(tmp_path, server, server)
        variable = {"modelscope": "MODELSCOPE_API_TOKEN", "huggingface": "HF_TOKEN"}[hub]
        machine.environ[variable] = "expired-token"
        assert machine.pull(source=hub).source == HUBS[hub]


def test_token_leaves_for_its_own_hub_only_and_appears_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], server: FaultServer
) -> None:
    # Given a hub that wants the token, sends its bytes from another host, and fails at times
    files = {"config.json": b"{}", "model.safetensors": 3_000_000}
    storage = server.add_origin([Repo("lab/m", files)], host="127.0.0.2")
    first = server.add_origin([Repo("lab/m", files)], token="hf_s3cret", redirect_to=storage)
    second = server.add_origin([Repo("lab/m", files)])
    storage.fault("*", first=1, reset_after=1000)
    with pulling(second.url, first.url, tmp_path) as machine:
        machine.environ["HF_TOKEN"] = "hf_s3cret"
        machine.environ["NO_PROXY"] = "*"
        machine.settings = Settings(
            cache_dir=machine.settings.cache_dir,
            state_dir=str(tmp_path / "state"),
            hub="huggingface",
        )
        snapshot = machine.pull(RepoReference.of_hub("lab/m"))
        assert sha256s(snapshot.path) == first.sha256("lab/m")
        # Then its own hub saw it, no other host did
        assert first.counters().seen("authorization") == {"Bearer hf_s3cret"}
        for stranger in (storage, second):
            seen = stranger.counters()
            assert not seen.seen("authorization") and not seen.seen("cookie")
        # And it is in no file, no report and no message, also when everything fails
        first.die()
        storage.die()
        second.die()
        with pytest.raises(UserError) as caught:
            machine.pull(RepoReference.of_hub("lab/m"), source="huggingface")
        texts = [str(caught.value), repr(machine.reports), *capfd.readouterr()]
    for text in texts:
        assert "hf_s3cret" not in text
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000:
            assert b"hf_s3cret" not in path.read_bytes(), path


def test_mirror_by_its_address(machine: Machine, hub: str) -> None:
    # Given a mirror that speaks one hub's language, and a token that it must not see
    machine.environ["HF_TOKEN"] = "hf_s3cret"
    machine.environ["MODELSCOPE_API_TOKEN"] = "ms_s3cret"
    mirror = machine.hubs[hub].url
    machine.unplug()
    snapshot = machine.pull(source=mirror)
    assert set(files_in(snapshot.path)) == PULLED
    assert machine.hubs[hub].credentials == set()


def test_password_in_an_address_is_sent_and_never_shown(machine: Machine) -> None:
    server = machine.hubs["huggingface"]
    machine.environ["HF_ENDPOINT"] = server.url.replace("://", "://ada:pa55word@")
    machine.pull(source="huggingface")
    assert server.credentials == {"Basic YWRhOnBhNTV3b3Jk"}
    machine.environ["HF_ENDPOINT"] = free_dead_url().replace("://", "://ada:pa55word@")
    with pytest.raises(UserError) as caught:
        machine.pull(source="huggingface")
    assert "pa55word" not in str(caught.value) + repr(machine.reports)


def test_two_processes_at_once_share_one_transfer(machine: Machine, hub: str) -> None:
    # Given a slow hub
    server = machine.hubs[hub]
    server.faults = Faults(chunk_pause=0.02)
    code = (
        "import pickle, sys\n"
        "from swift_jupyter.hub.pull import pull\n"
        "reference, settings, environ, source = pickle.load(sys.stdin.buffer)\n"
        "print(pull(reference, settings, environ=environ, source=source).path)\n"
    )
    import pickle

    programs = []
    for _number in range(2):
        program = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert program.stdin is not None
        pickle.dump((REFERENCE, machine.settings, machine.environ, hub), program.stdin)
        program.stdin.close()
        programs.append(program)
    paths = set()
    for program in programs:
        assert program.stdout is not None
        paths.add(program.stdout.read().decode().strip())
        assert program.wait(60) == 0
        program.stdout.close()
    # Then both end with the same right files, and the bytes came once
    [path] = paths
    assert files_in(Path(path)) == {name: MODEL[name] for name in PULLED}
    assert server.sent["model.safetensors"] < 1.2 * len(WEIGHTS)


def test_damage_in_a_cache_is_seen_and_mended(machine: Machine, hub: str) -> None:
    snapshot = machine.pull(source=hub)
    # Given weights that somebody changed in place, with the same size
    path = snapshot.path / "model.safetensors"
    with path.open("r+b") as stream:
        stream.write(b"damage")
    machine.unplug()
    with pytest.raises(UserError, match=r"model\.safetensors has been changed"):
        machine.pull(source="cache")
    # When the hub is there again
    machine.environ["MODELSCOPE_ENDPOINT"] = machine.hubs["modelscope"].url
    machine.environ["HF_ENDPOINT"] = machine.hubs["huggingface"].url
    assert files_in(machine.pull().path)["model.safetensors"] == WEIGHTS


def test_touched_files_are_read_once_and_then_believed(machine: Machine) -> None:
    snapshot = machine.pull(source="modelscope")
    later = time.time() + 5
    for path in snapshot.path.rglob("*"):
        if path.is_file():
            os.utime(path, (later, later))
    machine.unplug()
    machine.reports.clear()
    assert machine.pull(source="cache").path == snapshot.path
    assert {report.phase for report in machine.reports} == {"verifying"}
    machine.reports.clear()
    machine.pull(source="cache")
    assert machine.reports == []


def test_what_the_hub_lists_is_enough_for_the_cache(machine: Machine, hub: str) -> None:
    # Given a repository that no text model could be loaded from, such as a tokenizer's
    for server in machine.hubs.values():
        server.repositories["model", "lab/tokens"] = {"tokenizer.json": b"{}"}
    reference = RepoReference.of_hub("lab/tokens")
    machine.pull(reference, source=hub)
    machine.unplug()
    assert machine.pull(reference).source == "cache"


def test_relative_folders_hold_in_the_users_folder(
    machine: Machine, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given caches and settings that are relative to a notebook's folder
    notebook = machine.root / "notebook"
    notebook.mkdir()
    monkeypatch.chdir(notebook)
    machine.environ.update(HF_HOME="hf", MODELSCOPE_CACHE="ms")
    machine.settings = Settings(cache_dir="own", state_dir="state")
    snapshot = machine.pull(source=hub)
    assert notebook / {"huggingface": "hf", "modelscope": "ms"}[hub] in snapshot.path.parents
    assert {path.name for path in notebook.iterdir()} >= {"hf", "ms", "own"}
    machine.unplug()
    assert machine.pull().path == snapshot.path


def test_second_hub_with_other_file_names_is_taken_as_a_whole(server: FaultServer) -> None:
    # Given a second hub that cut the same weights differently, and a first one without bytes
    first = server.add_origin([Repo("lab/m", {"config.json": b"{}", "a.safetensors": 50_000})])
    second = server.add_origin([Repo("lab/m", {"config.json": b"{}", "b.safetensors": 50_000})])
    first.fault("a.safetensors", status=404)
    with pulling(first.url, second.url) as machine:
        snapshot = machine.pull(RepoReference.of_hub("lab/m"))
        assert sha256s(snapshot.path) == second.sha256("lab/m")


def test_full_disk_midway_is_told_in_one_error(machine: Machine, hub: str) -> None:
    # Given a disk that has room for the listed size, and somebody else who fills it
    with mounted_tmpfs(machine.root / "disk", kilobytes=4096) as disk:
        machine.settings = Settings(cache_dir=str(disk / "own"), state_dir=str(disk / "state"))
        machine.hubs[hub].faults = Faults(chunk_pause=0.02)

        def fill_up(report: PullProgress) -> None:
            if report.phase == "downloading" and not (disk / "filler").exists():
                free = shutil.disk_usage(disk).free
                # The pull writes as well: if it was quicker, the disk is full all the same.
                with contextlib.suppress(OSError):
                    (disk / "filler").write_bytes(os.urandom(max(0, free - (256 << 10))))

        with pytest.raises(UserError) as caught:
            pull(REFERENCE, machine.settings, environ=machine.environ, source=hub, report=fill_up)
        assert "room" in caught.value.what or "full" in caught.value.what
        # And nothing of it is offered as a copy, until there is room again
        with pytest.raises(UserError):
            machine.pull(source="cache")
        (disk / "filler").unlink()
        machine.hubs[hub].faults = Faults()
        assert files_in(machine.pull(source=hub).path)["model.safetensors"] == WEIGHTS


class pulling:
    """A machine whose hubs are at two addresses of a fault server."""

    def __init__(self, modelscope: str, huggingface: str, root: Path | None = None) -> None:
        import tempfile

        self._folder = tempfile.TemporaryDirectory()
        self._root = root or Path(self._folder.name)
        self._urls = modelscope, huggingface

    def __enter__(self) -> Machine:
        with FakeHub({}) as unused:
            machine = Machine(self._root, unused, unused)
        machine.environ["MODELSCOPE_ENDPOINT"], machine.environ["HF_ENDPOINT"] = self._urls
        return machine

    def __exit__(self, *_error: object) -> None:
        self._folder.cleanup()


def sha256s(folder: Path) -> dict[str, str]:
    import hashlib

    return {name: hashlib.sha256(data).hexdigest() for name, data in files_in(folder).items()}
