"""Pulls from both hubs, against servers on the loopback device that speak their protocols."""

import hashlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from fake_hub import FOREVER, FakeHub, Faults, free_dead_url
from hub_machine import (
    DATASET,
    HUBS,
    MODEL,
    PULLED,
    REFERENCE,
    WEIGHTS,
    Machine,
    files_in,
    two_hubs,
)

from swift_jupyter.errors import UserError
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.sources import hubs
from swift_jupyter.hub.store.store import Store
from swift_jupyter.hub.transfer.plan import check_rooms
from swift_jupyter.settings import Settings


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with two_hubs(tmp_path) as machine:
        yield machine


@pytest.fixture(params=sorted(HUBS))
def hub(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_pull_from_one_hub(machine: Machine, hub: str) -> None:
    # When a model is pulled from the named hub
    snapshot = machine.pull(source=hub)
    # Then the right files are there, the redundant weights are not
    assert files_in(snapshot.path) == {name: MODEL[name] for name in PULLED}
    assert snapshot.source == HUBS[hub]
    assert snapshot.size_bytes == sum(len(MODEL[name]) for name in PULLED)
    # And the phases came in order, with bytes that end at the total
    phases = list(dict.fromkeys(report.phase for report in machine.reports))
    assert phases == ["listing", "downloading", "publishing"]
    # Bytes are verified as they arrive, so that the end of the transfer is that of both.
    last = [report for report in machine.reports if report.phase == "downloading"][-1]
    assert last.done_bytes == last.total_bytes == snapshot.size_bytes
    assert last.finished_files == last.total_files == len(PULLED)
    # And the scan calls it complete
    [entry] = scan_cache(machine.settings, machine.environ).entries
    assert (entry.repo_id, entry.complete) == ("lab/tiny", True)
    assert HUBS[hub] in entry.hub


def test_second_pull_needs_no_network(machine: Machine, hub: str) -> None:
    first = machine.pull(source=hub)
    machine.unplug()
    started = time.perf_counter()
    second = machine.pull()
    assert time.perf_counter() - started < 0.2
    assert second.source == "cache"
    assert second.path == first.path
    assert second.size_bytes == first.size_bytes


def test_own_client_finds_what_was_pulled_from_huggingface(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    snapshot = machine.pull(source="huggingface")
    found = snapshot_download(
        "lab/tiny",
        cache_dir=machine.root / ".cache" / "huggingface" / "hub",
        local_files_only=True,
        ignore_patterns=["*.bin"],
    )
    assert Path(found) == snapshot.path


def test_own_client_finds_what_was_pulled_from_modelscope(machine: Machine) -> None:
    from modelscope_hub import HubApi, HubConfig

    snapshot = machine.pull(source="modelscope")
    api = HubApi(HubConfig(endpoint=free_dead_url(), cache_dir=machine.root / ".cache/modelscope"))
    assert Path(api.download_repo("lab/tiny", "model", local_files_only=True)) == snapshot.path


@pytest.mark.parametrize("first", sorted(HUBS))
def test_settings_say_which_hub_is_asked_first(machine: Machine, first: str) -> None:
    machine.settings = Settings(cache_dir=machine.settings.cache_dir, hub=first)
    assert machine.pull().source == HUBS[first]
    [other] = [hub for name, hub in machine.hubs.items() if name != first]
    assert other.requests == []


def test_dead_modelscope_falls_to_huggingface_within_seconds(machine: Machine) -> None:
    machine.environ["MODELSCOPE_ENDPOINT"] = free_dead_url()
    started = time.perf_counter()
    assert machine.pull().source == "Hugging Face"
    assert time.perf_counter() - started < 15


def test_missing_at_the_first_hub_is_taken_from_the_second(machine: Machine) -> None:
    del machine.hubs["modelscope"].repositories["model", "lab/tiny"]
    assert machine.pull().source == "Hugging Face"


def test_ids_may_differ_between_the_hubs(machine: Machine) -> None:
    repositories = machine.hubs["huggingface"].repositories
    repositories["model", "other/Name"] = repositories.pop(("model", "lab/tiny"))
    del machine.hubs["modelscope"].repositories["model", "lab/tiny"]
    snapshot = machine.pull(RepoReference("x", "model", "lab/tiny", "other/Name"))
    assert snapshot.repo_id == "other/Name"


def test_missing_everywhere_says_what_each_hub_answered(machine: Machine) -> None:
    with pytest.raises(UserError) as caught:
        machine.pull(RepoReference.of_hub("lab/absent"))
    error = caught.value
    assert "lab/absent" in error.what
    assert "ModelScope: it has no model lab/absent" in error.why
    assert "Hugging Face: it has no model lab/absent" in error.why
    assert "%swift models" in error.next_step


def test_everything_down_says_so_within_seconds(machine: Machine) -> None:
    machine.unplug()
    started = time.perf_counter()
    with pytest.raises(UserError) as caught:
        machine.pull()
    assert time.perf_counter() - started < 20
    assert caught.value.why.count("cannot be reached") == 2
    assert "HF_ENDPOINT" in caught.value.next_step


def test_address_that_swallows_requests_costs_seconds(machine: Machine) -> None:
    # Given an address that takes connections and never answers
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        machine.environ["MODELSCOPE_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.perf_counter()
        assert machine.pull().source == "Hugging Face"
        assert time.perf_counter() - started < 9


def test_endpoint_with_api_suffix(machine: Machine) -> None:
    machine.environ["MODELSCOPE_ENDPOINT"] += "/api/v1/"
    assert machine.pull(source="modelscope").source == "ModelScope"


def test_ms_cache_home_is_honoured_and_does_not_crash(machine: Machine, tmp_path: Path) -> None:
    machine.environ["MS_CACHE_HOME"] = str(tmp_path / "elsewhere")
    machine.environ["MODELSCOPE_LOG_LEVEL"] = "40"
    before = dict(os.environ)
    snapshot = machine.pull(source="modelscope")
    assert tmp_path / "elsewhere" in snapshot.path.parents
    assert dict(os.environ) == before
    machine.unplug()
    assert machine.pull().path == snapshot.path


def test_hf_home_is_honoured(machine: Machine, tmp_path: Path) -> None:
    machine.environ["HF_HOME"] = str(tmp_path / "hf")
    snapshot = machine.pull(source="huggingface")
    assert tmp_path / "hf" / "hub" in snapshot.path.parents


def test_dataset_with_several_pages(machine: Machine, hub: str) -> None:
    reference = RepoReference.of_hub("lab/rows", "dataset")
    snapshot = machine.pull(reference, source=hub)
    assert files_in(snapshot.path) == DATASET
    # And a later pull knows from the record that nothing lacks
    machine.unplug()
    assert machine.pull(reference).source == "cache"
    machine.remove("part-007.jsonl")
    with pytest.raises(UserError, match=r"part-007\.jsonl is missing"):
        machine.pull(reference, source="cache")
    # And what the store still has is shown again, without a network
    assert files_in(machine.pull(reference).path) == DATASET


def test_patterns_choose_files(machine: Machine, hub: str) -> None:
    snapshot = machine.pull(source=hub, include=["*.json", "*.txt"], exclude=["sub*"])
    assert set(files_in(snapshot.path)) == {"config.json"}
    # And what was left out does not count as pulled
    machine.unplug()
    assert machine.pull(include=["*.json"]).source == "cache"
    with pytest.raises(UserError):
        machine.pull()


def test_patterns_that_match_nothing_are_an_error(machine: Machine) -> None:
    with pytest.raises(UserError, match="no file of the repository matches"):
        machine.pull(include=["*.nope"])


def test_local_dir_gets_plain_files(machine: Machine, hub: str, tmp_path: Path) -> None:
    target = tmp_path / "here"
    snapshot = machine.pull(source=hub, local_dir=target)
    assert snapshot.path == target
    assert {n: c for n, c in files_in(target).items() if not n.startswith(".")} == {
        name: MODEL[name] for name in PULLED
    }


def test_local_dir_from_the_cache_is_a_copy(machine: Machine, tmp_path: Path) -> None:
    machine.pull(source="huggingface")
    machine.unplug()
    snapshot = machine.pull(local_dir=tmp_path / "here")
    assert snapshot.source == "cache" and snapshot.path == tmp_path / "here"
    assert not (tmp_path / "here" / "model.safetensors").is_symlink()
    assert files_in(tmp_path / "here")["model.safetensors"] == WEIGHTS
    chosen = machine.pull(local_dir=tmp_path / "some", include=["*.json"])
    assert set(files_in(chosen.path)) == {"config.json"}


def test_cached_part_of_a_model_is_not_taken_for_the_model(machine: Machine, hub: str) -> None:
    machine.pull(source=hub)
    machine.remove("model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        machine.pull(source="cache")
    assert machine.pull().source != "cache"
    assert files_in(machine.pull(source=hub).path)["model.safetensors"] == WEIGHTS


def test_folder_and_unknown_source(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    snapshot = machine.pull(RepoReference("m", local_path=tmp_path / "m"))
    assert (snapshot.source, snapshot.path) == ("folder", tmp_path / "m")
    with pytest.raises(UserError, match="no source 'hugingface'") as caught:
        machine.pull(source="hugingface")
    assert "huggingface" in caught.value.why


def test_revision(machine: Machine, hub: str) -> None:
    commit = machine.hubs["huggingface"].commit("model", "lab/tiny")
    if hub == "huggingface":
        reference = RepoReference.of_hub("lab/tiny", revision=commit)
        assert machine.pull(reference, source=hub).revision == commit
    default = RepoReference.of_hub("lab/tiny", revision="main")
    machine.pull(default, source=hub)
    with pytest.raises(UserError, match="could not be pulled"):
        machine.pull(RepoReference.of_hub("lab/tiny", revision="no-such"), source=hub)


@pytest.mark.parametrize(
    "fault",
    [Faults(unavailable=2), Faults(reset=1), Faults(flip=1)],
    ids=["503 twice", "reset half-way", "flipped byte once"],
)
def test_passing_faults_are_overcome(machine: Machine, hub: str, fault: Faults) -> None:
    machine.hubs[hub].faults = fault
    snapshot = machine.pull(source=hub)
    assert files_in(snapshot.path) == {name: MODEL[name] for name in PULLED}


def test_lasting_damage_is_named_and_nothing_wrong_stays(machine: Machine, hub: str) -> None:
    machine.hubs[hub].faults = Faults(flip=FOREVER)
    with pytest.raises(UserError) as caught:
        machine.pull(source=hub)
    assert "damaged" in caught.value.why
    assert "expected" in caught.value.why and "got" in caught.value.why
    # Then no wrong byte is left under a right name, and the cache offers nothing
    for path in (machine.root / ".cache").rglob("*"):
        if path.is_file() and path.name == "model.safetensors":
            assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(WEIGHTS).digest()
    with pytest.raises(UserError):
        machine.pull(source="cache")


def test_damage_at_the_first_hub_is_healed_by_the_second(machine: Machine) -> None:
    machine.hubs["modelscope"].faults = Faults(flip=FOREVER)
    snapshot = machine.pull()
    assert files_in(snapshot.path) == {name: MODEL[name] for name in PULLED}
    assert machine.hubs["huggingface"].byte_requests


@pytest.mark.parametrize("path", ["../../evil", "/tmp/evil", "a/../../evil", "..\\evil"])
def test_listed_path_that_leaves_the_folder_is_refused(
    machine: Machine, hub: str, path: str
) -> None:
    machine.hubs[hub].faults = Faults(extra_paths=[path])
    with pytest.raises(UserError, match="leave the folder"):
        machine.pull(source=hub)
    assert not machine.hubs[hub].byte_requests


def test_listing_that_never_comes_is_given_up(
    machine: Machine, hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hubs.LISTING_SECONDS, "model", 1.5)
    machine.hubs[hub].faults = Faults(silent_listing=True)
    started = time.perf_counter()
    with pytest.raises(UserError, match="did not answer in time"):
        machine.pull(source=hub)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("status", "message"), [(503, "it answers with HTTP 503"), (403, "denies access")]
)
def test_listing_that_fails_is_told_in_one_line(
    machine: Machine, hub: str, status: int, message: str
) -> None:
    machine.hubs[hub].faults = Faults(listing_status=status)
    with pytest.raises(UserError) as caught:
        machine.pull(source=hub)
    assert message in caught.value.why
    assert len(caught.value.lines) == 3 and "\n" not in caught.value.why


def test_token_is_sent_and_never_shown(tmp_path: Path, hub: str) -> None:
    # Given hubs that ask for a token
    content = {("model", "lab/tiny"): MODEL}
    with FakeHub(content, "s3cret-token") as first, FakeHub(content, "s3cret-token") as second:
        machine = Machine(tmp_path, first, second)
        variable = {"modelscope": "MODELSCOPE_API_TOKEN", "huggingface": "HF_TOKEN"}[hub]
        # Then it works with the token, and without it the message tells which variable lacks
        machine.environ[variable] = "wrong-token"
        with pytest.raises(UserError) as caught:
            machine.pull(source=hub)
        assert "wrong-token" not in str(caught.value)
        machine.environ[variable] = "s3cret-token"
        assert machine.pull(source=hub).source == HUBS[hub]


def test_offline_variable_is_respected(machine: Machine) -> None:
    machine.environ["HF_HUB_OFFLINE"] = "1"
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        machine.pull(source="huggingface")
    assert machine.hubs["huggingface"].requests == []


def test_nothing_is_printed(machine: Machine, hub: str, capfd: pytest.CaptureFixture[str]) -> None:
    machine.hubs[hub].faults = Faults(unavailable=1)
    machine.pull(source=hub)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_files_of_the_working_folder_do_not_disturb(
    machine: Machine, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a notebook's folder with modules called like those that a client imports
    for name in ("requests.py", "tqdm.py", "json.py", "httpx.py"):
        (tmp_path / name).write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    # Then a pull into a relative folder works and lands below the working folder
    snapshot = machine.pull(source=hub, local_dir=Path("here"))
    assert snapshot.path == tmp_path / "here"
    assert (tmp_path / "here" / "model.safetensors").read_bytes() == WEIGHTS


def test_full_disk_is_told_before_the_transfer(tmp_path: Path) -> None:
    # Given a listing that is larger than any disk, for a folder that is not there yet
    file = RemoteFile("x", 1 << 60, "0" * 64)
    with pytest.raises(UserError, match="not enough room") as caught:
        check_rooms(Store(tmp_path / "not" / "yet"), [file], [file], [tmp_path])
    assert "1152921.5 TB" in caught.value.why


def test_listed_size_beyond_the_disk_is_refused_before_a_byte_comes(
    machine: Machine, hub: str
) -> None:
    entry = {"Path": "x.safetensors", "Type": "blob", "Size": 1 << 60, "Sha256": "0" * 64}
    entry |= {"path": "x.safetensors", "type": "file", "size": 1 << 60, "oid": "0" * 40}
    machine.hubs[hub].faults = Faults(extra_entries=[entry])
    with pytest.raises(UserError, match="not enough room"):
        machine.pull(source=hub)
    assert not machine.hubs[hub].byte_requests


def interrupted_pull(machine: Machine, hub: str, ready: Callable[[], bool]) -> float:
    """Run a pull as a program of its own, interrupt it, and return how long it took to end."""
    code = (
        "import pickle, sys\n"
        "from swift_jupyter.hub.pull import pull\n"
        "reference, settings, environ, source = pickle.load(sys.stdin.buffer)\n"
        "try:\n"
        "    pull(reference, settings, environ=environ, source=source)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(77)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        pickle.dump((REFERENCE, machine.settings, machine.environ, hub), program.stdin)
        program.stdin.close()
        deadline = time.monotonic() + 20
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ready()
        started = time.perf_counter()
        program.send_signal(signal.SIGINT)
        assert program.wait(15) == 77
        return time.perf_counter() - started


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupt_keeps_what_arrived_and_the_next_pull_goes_on(machine: Machine, hub: str) -> None:
    # Given a slow transfer that is interrupted half-way
    server = machine.hubs[hub]
    server.faults = Faults(chunk_pause=0.1)
    parts = machine.settings.cache_path / "store" / "parts"

    def ready() -> bool:
        states = [path.stat() for path in parts.glob("*.part")]
        return any(state.st_blocks * 512 > 500_000 for state in states)

    assert interrupted_pull(machine, hub, ready) < 4
    [kept] = parts.glob("*.part")
    arrived = kept.stat().st_blocks * 512
    assert arrived > 500_000
    # Then the part is not taken for the whole
    with pytest.raises(UserError):
        machine.pull(source="cache")
    # And the same call goes on from there, and has the finished files already
    server.faults = Faults()
    server.sent.clear()
    snapshot = machine.pull(source=hub)
    assert files_in(snapshot.path)["model.safetensors"] == WEIGHTS
    assert set(server.sent) == {"model.safetensors"}
    assert server.sent["model.safetensors"] <= len(WEIGHTS) - arrived + 200_000


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_transfer_ends_with_its_parent_and_keeps_what_arrived(machine: Machine, hub: str) -> None:
    # Given a slow transfer of a program that is killed
    server = machine.hubs[hub]
    server.faults = Faults(chunk_pause=0.1)
    parts = machine.settings.cache_path / "store" / "parts"
    code = (
        "import pickle, sys\n"
        "from swift_jupyter.hub.pull import pull\n"
        "reference, settings, environ, source = pickle.load(sys.stdin.buffer)\n"
        "pull(reference, settings, environ=environ, source=source)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        pickle.dump((REFERENCE, machine.settings, machine.environ, hub), program.stdin)
        program.stdin.close()
        deadline = time.monotonic() + 20
        while not any(path.stat().st_blocks > 1000 for path in parts.glob("*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(program.pid).children()
        program.kill()
    # Then its process goes as well
    assert children
    _gone, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    # And what had arrived is not fetched again
    arrived = sum(path.stat().st_blocks * 512 for path in parts.glob("*.part"))
    server.faults = Faults()
    server.sent.clear()
    assert files_in(machine.pull(source=hub).path)["model.safetensors"] == WEIGHTS
    assert server.sent["model.safetensors"] <= len(WEIGHTS) - arrived + 200_000


def test_tokens_are_not_in_the_list_of_processes(machine: Machine) -> None:
    # Given a transfer under way with a token
    machine.environ["HF_TOKEN"] = "hf_s3cret"
    machine.hubs["huggingface"].faults = Faults(chunk_pause=0.05)
    seen: list[str] = []

    def look(_progress: PullProgress) -> None:
        for child in psutil.Process().children():
            seen.append(" ".join(child.cmdline()) + repr(child.environ()))

    pull(REFERENCE, machine.settings, source="huggingface", environ=machine.environ, report=look)
    assert any("swift_jupyter.hub.transfer.child" in text for text in seen)
    assert not any("hf_s3cret" in text for text in seen)
    assert machine.hubs["huggingface"].credentials == {"Bearer hf_s3cret"}
