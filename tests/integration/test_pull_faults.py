"""Every fault of a hub ends in the right bytes or in an error that says why."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_machine import MIB, REFERENCE, REPO_ID, WEIGHTS, FaultMachine, fault_machine
from fault_server import ALWAYS, FaultServer, Repo

from swift_jupyter.errors import UserError

FIRST = "model-00001-of-00002.safetensors"
HUBS = ("modelscope", "huggingface")
# What stops after a while; it must cost time only.
PASSING = {
    "reset twice": (2, {"reset_after": 2 * MIB}),
    "early close twice": (2, {"fin_after": 2 * MIB}),
    "503 twice": (2, {"status": 503}),
    "503 with Retry-After": (1, {"status": 503, "retry_after": 1}),
    "429 with Retry-After": (1, {"status": 429, "retry_after": 1}),
    "500 once": (1, {"status": 500}),
    "416 once": (1, {"status": 416}),
    "flipped byte once": (1, {"flip_at": 3 * MIB}),
    "last byte flipped once": (1, {"flip_at": -1}),
    "Content-Length too long once": (1, {"length_delta": 1000}),
    "Content-Length too short once": (1, {"length_delta": -1000}),
    "wrong total once": (1, {"total_delta": 5}),
    "wrong place once": (1, {"range_shift": 1}),
    "range ignored": (ALWAYS, {"ignore_range": True}),
}
# What never stops; a lie must never become a file.
LASTING = {
    "flipped byte": {"flip_at": 3 * MIB},
    "404": {"status": 404, "error_code": "EntryNotFound"},
    "403": {"status": 403},
    "wrong place": {"range_shift": 1},
}
# What may pass by any moment; it is waited for as long as bytes could still come.
HOPELESS = {
    "503": {"status": 503},
    "nothing but resets": {"reset_after": 0},
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, server: FaultServer) -> Iterator[FaultMachine]:
    with fault_machine(tmp_path, server) as machine:
        yield machine


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_costs_time_only(machine: FaultMachine, fault: str) -> None:
    # Given a hub that fails the first requests of each big file
    first, how = PASSING[fault]
    machine.hub.fault(WEIGHTS, first=first, **how)
    # When a model is pulled
    snapshot = machine.pull()
    # Then every byte is right
    machine.assert_right(snapshot.path)
    # And nothing came more than twice, even where the bytes were wrong
    sent = machine.hub.sent_bytes()
    assert fault == "range ignored" or sent <= 2 * machine.total + MIB


@pytest.mark.parametrize("fault", LASTING)
def test_a_lasting_fault_is_an_error_that_publishes_nothing(
    machine: FaultMachine, fault: str
) -> None:
    # Given a hub that never gives the right bytes of one file
    machine.hub.fault(FIRST, **LASTING[fault])
    # When a model is pulled
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        machine.pull()
    # Then the error comes soon, says what was wanted and why it failed
    assert time.monotonic() - started < 40
    assert REPO_ID in str(caught.value)
    assert caught.value.why
    # And that file stands nowhere under its name, nor any file with wrong bytes
    machine.assert_nothing_wrong()
    wrong = machine.hub.sha256(REPO_ID)[FIRST]
    assert not [name for name in machine.published() if name.endswith((FIRST, wrong))]


@pytest.mark.slow
def test_a_hub_that_only_fails_is_given_up(tmp_path: Path, server: FaultServer) -> None:
    # Given hubs that never give a byte of one file, each in its own way
    machines = [FaultMachine(tmp_path / name, server) for name in HOPELESS]
    for machine, how in zip(machines, HOPELESS.values(), strict=True):
        machine.hub.fault(FIRST, **how)
    # When a model is pulled
    started = time.monotonic()
    processes = [machine.start() for machine in machines]
    # Then each pull ends with an error, keeping what the other files have got
    for machine, process in zip(machines, processes, strict=True):
        _out, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "UserError" in err
        assert REPO_ID in err
        machine.assert_nothing_wrong()
        machine.hub.clear()
        sent = machine.hub.sent_bytes()
        machine.assert_right(machine.pull().path)
        assert machine.hub.sent_bytes() - sent <= 1.25 * machine.repo.files[FIRST]
        machine.hub.die()
    assert time.monotonic() - started < 50


@pytest.mark.parametrize(
    "how",
    [
        {"length_delta": 1000},
        {"length_delta": -1000},
        {"total_delta": 5},
        {"status": 416},
    ],
    ids=str,
)
def test_lasting_lies_about_lengths_never_become_wrong_files(
    machine: FaultMachine, how: dict[str, int]
) -> None:
    machine.hub.fault(WEIGHTS, **how)
    try:
        snapshot = machine.pull()
    except UserError as error:
        assert error.why
        machine.assert_nothing_wrong()
    else:
        machine.assert_right(snapshot.path)


def test_faults_of_small_files_are_borne_as_well(machine: FaultMachine) -> None:
    machine.hub.fault("notes/*", first=1, flip_at=100)
    machine.hub.fault("config.json", first=2, status=503)
    machine.assert_right(machine.pull().path)


def test_small_files_are_checked_by_git_hashes(machine: FaultMachine) -> None:
    # Given Hugging Face, whose listing has no SHA-256 of small files
    machine.hub.fault("notes/*", flip_at=100)
    with pytest.raises(UserError):
        machine.pull(source="huggingface")
    machine.assert_nothing_wrong()
    assert not [name for name in machine.published() if name.endswith("readme.md")]


@pytest.mark.parametrize("hub", HUBS)
def test_a_stall_is_left_within_six_seconds(machine: FaultMachine, hub: str) -> None:
    # Given a hub that falls silent in the middle of each big file
    machine.hub.fault(WEIGHTS, first=1, stall_after=4 * MIB)
    # When a model is pulled
    started = time.monotonic()
    snapshot = machine.pull(source=hub)
    # Then the stall cost the detection limit and no byte twice
    assert time.monotonic() - started <= 6.5
    machine.assert_right(snapshot.path)
    assert machine.hub.sent_bytes() <= 1.05 * machine.total


def test_a_stall_is_left_for_the_other_source_at_once(machine: FaultMachine) -> None:
    other = machine.add_hub()
    machine.hub.fault(WEIGHTS, stall_after=2 * MIB)
    started = time.monotonic()
    snapshot = machine.pull(source="auto")
    assert time.monotonic() - started <= 8
    machine.assert_right(snapshot.path)
    assert other.sent_bytes() > 0


def test_a_dripping_reply_is_given_up(machine: FaultMachine) -> None:
    # Given a reply that never stalls but would take hours
    machine.hub.fault(FIRST, first=1, rate=1000.0)
    started = time.monotonic()
    snapshot = machine.pull()
    assert time.monotonic() - started < 30
    machine.assert_right(snapshot.path)


def test_a_listing_that_never_answers_costs_seconds(machine: FaultMachine) -> None:
    other = machine.add_hub()
    machine.hub.set(listing_stall=True)
    started = time.monotonic()
    snapshot = machine.pull(source="auto")
    assert time.monotonic() - started < 15
    machine.assert_right(snapshot.path)
    assert other.sent_bytes() >= machine.total


def test_one_of_two_sources_dies_midway(machine: FaultMachine) -> None:
    # Given two hubs with the same files, the first of which dies at half
    other = machine.add_hub()
    for hub in (machine.hub, other):
        hub.set(rate=10e6)
    machine.hub.set(die_after=machine.total // 3)
    # When the model is pulled
    started = time.monotonic()
    snapshot = machine.pull(source="auto")
    # Then the other one gives the rest, within seconds
    machine.assert_right(snapshot.path)
    assert time.monotonic() - started < 10
    sent = machine.hub.counters().sent_bytes + other.counters().sent_bytes
    assert other.counters().sent_bytes > 0
    assert sent <= 1.3 * machine.total


def test_a_source_with_other_bytes_is_never_mixed_in(machine: FaultMachine) -> None:
    # Given a slow hub, and a second one whose big files have the same sizes and other bytes
    other = machine.add_hub()
    other.put(Repo(REPO_ID, machine.repo.files, seed="other"))
    machine.hub.set(rate=1e6)
    # When the model is pulled from whoever has it
    snapshot = machine.pull(source="auto")
    # Then the second one was asked, but gave nothing of these files
    machine.assert_right(snapshot.path)
    seen = other.counters()
    assert seen.listing_requests
    assert not [path for path in seen.bytes_by_path if path.endswith(".safetensors")]
    # And the user is told
    assert any("not mixed in" in notice for notice in snapshot.notices)


@pytest.mark.parametrize("hub", HUBS)
def test_signed_addresses_are_asked_for_again(machine: FaultMachine, hub: str) -> None:
    # Given bytes behind addresses that are good for a moment only
    delivery = machine.server.add_origin([machine.repo], host="127.0.0.2", rate=4e6)
    machine.hub.set(redirect_to=delivery, signature_seconds=0.1)
    delivery.fault(WEIGHTS, first=2, reset_after=MIB)
    # When a model is pulled whose connections break after that moment
    snapshot = machine.pull(source=hub)
    # Then some came too late, and all is right
    machine.assert_right(snapshot.path)
    assert 403 in {status for _path, _first, _end, status in delivery.counters().ranges}
    assert delivery.sent_bytes() >= sum(
        size for size in machine.repo.files.values() if isinstance(size, int) and size > MIB
    )


@pytest.mark.parametrize(
    ("hub", "variable"), [("modelscope", "MODELSCOPE_API_TOKEN"), ("huggingface", "HF_TOKEN")]
)
def test_tokens_stay_with_the_hub(machine: FaultMachine, hub: str, variable: str) -> None:
    # Given a private hub whose bytes come from another host
    secret = "hf_secretsecretsecret"
    machine.environ[variable] = secret
    delivery = machine.server.add_origin([machine.repo], host="127.0.0.2")
    machine.hub.set(token=secret, redirect_to=delivery)
    # When a model is pulled
    machine.assert_right(machine.pull(source=hub).path)
    # Then the hub saw the token, and the other host saw nothing of it
    assert any(secret in value for value in machine.hub.counters().seen("authorization"))
    seen = delivery.counters().requests
    assert seen
    assert secret not in repr(seen)
    # And nothing on the disk or in the reports holds it
    kept = [
        path for path in machine.root.rglob("*") if path.is_file() and path.stat().st_size < MIB
    ]
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    assert secret not in repr(machine.reports)


@pytest.mark.parametrize(
    ("status", "code"), [(401, "RepoNotFound"), (403, "GatedRepo"), (404, "RepoNotFound")]
)
def test_refusals_are_told_without_the_token(machine: FaultMachine, status: int, code: str) -> None:
    machine.environ["HF_TOKEN"] = machine.environ["MODELSCOPE_API_TOKEN"] = "hf_wrongwrongwrong"
    machine.hub.set(refuse=(status, code))
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        machine.pull(source="auto")
    assert time.monotonic() - started < 5
    assert "hf_wrong" not in repr(caught.value) + str(caught.value)
    assert "ModelScope" in str(caught.value) or "127.0.0.1" in str(caught.value)
    assert caught.value.next_step


def test_a_dead_hub_with_a_warm_cache_needs_no_source(machine: FaultMachine) -> None:
    first = machine.pull()
    machine.hub.die()
    started = time.monotonic()
    again = machine.pull(REFERENCE, source="auto")
    assert time.monotonic() - started < 0.5
    machine.assert_right(again.path)
    assert again.source != first.source or again.path == first.path
