"""The transfer engine against real servers on the loopback device that fail in every way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fault_server import FaultServer, Origin, Repo
from tmpfs import mounted_tmpfs

from swift_jupyter.hub.api.base import Endpoint, hub_api
from swift_jupyter.hub.http.client import Client, Limits
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.transfer.fetch import (
    QuietObserver,
    Supply,
    TransferCancelled,
    TransferFailed,
    TransferSummary,
    fetch,
)
from swift_jupyter.hub.transfer.supply import OriginLike

MIB = 1 << 20
BIG = Repo("lab/big", {f"model-{n}.safetensors": 24 * MIB for n in range(2)})
ONE = Repo("lab/one", {"model.safetensors": 24 * MIB})
SMALL = Repo("lab/small", {f"shard/{n}.json": 20_000 for n in range(60)})
MIXED = Repo("lab/mixed", {"model.safetensors": 20 * MIB, "a.json": 300, "empty": b"", "b": 99})


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


@pytest.fixture
def hub(server):
    return server.add_origin([BIG, ONE, SMALL, MIXED])


@pytest.fixture
def other_hub(server):
    return server.add_origin([BIG, ONE, SMALL, MIXED])


@dataclass
class Pull:
    """One transfer into a folder, its files checked against the server's own hashes."""

    folder: Path
    client: Client = field(default_factory=lambda: Client({}))
    delivered: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def parts(self) -> Path:
        return self.folder / "parts"

    def place(self, path: str) -> Path:
        return self.folder / "out" / path

    def supply(self, *hubs: Origin, repo: Repo) -> Supply:
        offers = []
        for hub in hubs:
            api = hub_api(Endpoint("huggingface", hub.url, hub.url), self.client)
            listing = api.list_files(repo.repo_id, "model", None)
            offers.append((api.origin(listing), listing.files))
        supply = Supply(offers[0][1])
        for origin, files in offers:
            assert supply.add(origin, files) == []
        supply.close()
        return supply

    def deliver(self, file: RemoteFile, part: Path, sha256: str, git_sha1: str) -> None:
        target = self.place(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.rename(target)
        self.delivered[file.path] = (sha256, git_sha1)

    def run(self, *hubs: Origin, repo: Repo = BIG, **options) -> TransferSummary:
        supply = options.pop("supply", None) or self.supply(*hubs, repo=repo)
        return fetch(
            supply.wanted,
            supply,
            self.parts,
            self.deliver,
            options.pop("observer", None),
            self.client,
            **options,
        )

    def check(self, hub: Origin, repo: Repo) -> None:
        for path, expected in hub.sha256(repo.repo_id).items():
            content = self.place(path).read_bytes()
            assert hashlib.sha256(content).hexdigest() == expected == self.delivered[path][0]


@pytest.fixture
def pull(tmp_path):
    return Pull(tmp_path)


def size_of(repo: Repo) -> int:
    return sum(len(c) if isinstance(c, bytes) else int(c) for c in repo.files.values())


class Recorder(QuietObserver):
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.states = []

    def notice(self, text):
        self.notices.append(text)

    def progress(self, state):
        self.states.append(state)


# Healthy servers


def test_large_small_and_empty_files_arrive_with_both_hashes(pull, hub):
    summary = pull.run(hub, repo=MIXED)

    pull.check(hub, MIXED)
    assert summary.files == 4
    assert summary.fetched_bytes == size_of(MIXED)
    content = pull.place("a.json").read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert pull.delivered["a.json"][1] == git
    assert pull.delivered["model.safetensors"][1] == ""


def test_small_files_cost_one_request_each_on_shared_connections(pull, hub):
    hub.counters(reset=True)

    pull.run(hub, repo=SMALL)

    counters = hub.counters()
    pull.check(hub, SMALL)
    assert counters.byte_requests == 60
    assert counters.most_connections <= 17
    assert {method for method, _target, _headers in counters.requests} == {"GET"}


def test_a_large_file_is_spread_over_connections_without_fetching_a_byte_twice(pull, hub):
    hub.set(rate=8e6)

    began = time.monotonic()
    summary = pull.run(hub, repo=BIG)

    pull.check(hub, BIG)
    assert summary.fetched_bytes == size_of(BIG)
    # One connection would take 6.3 s, 16 can do it in 0.4 s.
    assert time.monotonic() - began < 2.5


def test_progress_grows_to_the_total_and_names_files_and_origins(pull, hub):
    hub.set(rate=4e6)
    seen = Recorder()

    pull.run(hub, repo=BIG, observer=seen)

    done = [state.done_bytes for state in seen.states]
    assert done == sorted(done) and done[-1] == size_of(BIG)
    assert seen.states[-1].finished_files == seen.states[-1].total_files == 2
    active = [file for state in seen.states for file in state.files if file.part is not None]
    assert {file.path for file in active} == set(BIG.files)
    assert any(file.origin for file in active)
    assert all(file.frontier <= (file.total or 0) for file in active)


def test_nothing_wanted_is_done_at_once(pull):
    assert pull.run(supply=Supply([])).files == 0


# Faults that must cost nothing


@pytest.mark.parametrize(
    "fault",
    [
        {"reset_after": MIB},
        {"reset_after": 5 * MIB + 1234},
        {"fin_after": 3 * MIB},
        {"status": 503},
        {"status": 429, "retry_after": 1},
        {"status": 500},
    ],
    ids=str,
)
def test_cuts_and_refusals_resume_without_fetching_a_byte_twice(pull, hub, fault):
    hub.fault("*", first=2, **fault)

    summary = pull.run(hub, repo=BIG)

    pull.check(hub, BIG)
    assert summary.fetched_bytes == size_of(BIG)


@pytest.mark.parametrize(
    "fault",
    [{"length_delta": 1000}, {"length_delta": -1000}, {"total_delta": 7}, {"range_shift": 3}],
    ids=str,
)
def test_a_wrong_announcement_is_not_believed(pull, hub, fault):
    hub.fault("*", first=1, **fault)

    summary = pull.run(hub, repo=BIG)

    pull.check(hub, BIG)
    assert summary.fetched_bytes == size_of(BIG)


def test_an_origin_that_always_announces_the_wrong_length_is_given_up(pull, hub, other_hub):
    hub.fault("*", length_delta=1000)

    with pytest.raises(TransferFailed, match="instead of"):
        pull.run(hub, repo=BIG)
    assert pull.delivered == {}

    pull.run(hub, other_hub, repo=BIG)
    pull.check(hub, BIG)


def test_small_files_survive_refusals_and_cuts(pull, hub):
    hub.fault("*", first=1, reset_after=5000)
    hub.fault("*", first=1, skip=1, status=503)

    pull.run(hub, repo=SMALL)

    pull.check(hub, SMALL)


def test_a_stall_is_recovered_within_six_seconds(pull, hub):
    hub.fault("*", first=1, stall_after=2 * MIB)

    began = time.monotonic()
    summary = pull.run(hub, repo=ONE)

    assert time.monotonic() - began < 6
    pull.check(hub, ONE)
    assert summary.fetched_bytes == size_of(ONE)


def test_a_stall_of_every_connection_is_left_for_another_origin(pull, hub, other_hub):
    hub.fault("*", stall_after=MIB)
    seen = Recorder()

    began = time.monotonic()
    summary = pull.run(hub, other_hub, repo=BIG, observer=seen)

    assert time.monotonic() - began < 6
    pull.check(hub, BIG)
    assert summary.fetched_bytes == size_of(BIG)
    assert any("stalled" in text for text in seen.notices)


# Servers without ranges


@pytest.mark.parametrize("fault", [{}, {"first": 2, "reset_after": 9 * MIB}], ids=str)
def test_a_server_without_ranges_serves_each_file_as_one_stream(pull, hub, fault):
    if fault:
        hub.fault("*", ignore_range=True, **fault)
    hub.fault("*", ignore_range=True)

    pull.run(hub, repo=BIG)

    pull.check(hub, BIG)


# Wrong bytes


def test_a_flipped_byte_is_found_and_the_file_fetched_again(pull, hub):
    hub.fault("model.safetensors", first=1, flip_at=3 * MIB)
    seen = Recorder()

    summary = pull.run(hub, repo=ONE, observer=seen)

    pull.check(hub, ONE)
    assert summary.fetched_bytes == 2 * size_of(ONE)
    assert any("wrong bytes" in text for text in seen.notices)


def test_known_piece_hashes_limit_the_repair_to_one_piece(pull, hub):
    hub.fault("model.safetensors", first=1, flip_at=3 * MIB)
    good = Pull(pull.folder / "good")
    clean = hub.server.add_origin([ONE])
    good.run(clean, repo=ONE)
    content = good.place("model.safetensors").read_bytes()
    pieces = [
        hashlib.sha256(content[start : start + 8 * MIB]).hexdigest()
        for start in range(0, len(content), 8 * MIB)
    ]

    summary = pull.run(hub, repo=ONE, piece_hashes=lambda sha256: (8 * MIB, pieces))

    pull.check(hub, ONE)
    assert summary.fetched_bytes == size_of(ONE) + 8 * MIB


@pytest.mark.parametrize("repo", [ONE, SMALL], ids=["large", "small"])
def test_bytes_that_are_always_wrong_end_in_an_error_and_leave_nothing(pull, hub, repo):
    hub.fault("*", flip_at=100)

    with pytest.raises(TransferFailed, match="wrong bytes") as caught:
        pull.run(hub, repo=repo)

    assert caught.value.trouble == "corrupt"
    assert pull.delivered == {}
    assert not list(pull.parts.glob("*.part"))


def test_an_origin_with_wrong_bytes_is_replaced_by_a_right_one(pull, hub, other_hub):
    hub.fault("*", flip_at=100)

    pull.run(hub, other_hub, repo=BIG)
    pull.check(hub, BIG)


def test_wrong_bytes_left_by_an_earlier_transfer_are_mended(pull, hub):
    # Given a transfer that was cut off, and a part that was damaged since
    hub.set(rate=2e6)
    with pytest.raises(TransferCancelled):
        pull.run(hub, repo=ONE, observer=Stops(0.6))
    (part,) = pull.parts.glob("*.part")
    with part.open("r+b") as stream:
        stream.write(b"damaged!")
    hub.set(rate=None)

    pull.run(hub, repo=ONE)

    pull.check(hub, ONE)


# Several origins


def test_when_one_of_two_origins_dies_nothing_is_fetched_twice(pull, hub, other_hub):
    hub.set(rate=8e6, die_after=16 * MIB)
    hub.counters(reset=True)
    other_hub.counters(reset=True)

    pull.run(hub, other_hub, repo=BIG)

    pull.check(other_hub, BIG)
    sent = hub.counters().sent_bytes + other_hub.counters().sent_bytes
    # What was on the wire of 16 connections when it died may be lost.
    assert size_of(BIG) <= sent <= size_of(BIG) + 4 * MIB


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 403}, {"status": 416}], ids=str)
def test_an_origin_that_refuses_is_left_for_the_next(pull, hub, other_hub, fault):
    hub.fault("*", **fault)

    summary = pull.run(hub, other_hub, repo=MIXED)

    pull.check(other_hub, MIXED)
    assert list(summary.fetched_from) == [other_hub.url]


@pytest.mark.parametrize(
    ("fault", "trouble"),
    [({"status": 404}, "not_found"), ({"status": 401}, "denied"), ({"status": 403}, "denied")],
    ids=str,
)
def test_a_refusal_by_all_is_told_at_once(pull, hub, fault, trouble):
    hub.fault("*", **fault)

    began = time.monotonic()
    with pytest.raises(TransferFailed) as caught:
        pull.run(hub, repo=MIXED)

    assert caught.value.trouble == trouble
    assert time.monotonic() - began < 2


def test_what_others_can_give_is_delivered_before_a_failure_is_told(pull, hub):
    hub.fault("a.json", status=404)

    with pytest.raises(TransferFailed, match=r"a\.json"):
        pull.run(hub, repo=MIXED)

    assert set(pull.delivered) == {"model.safetensors", "empty", "b"}


def test_a_slow_origin_gives_way_to_a_fast_one(pull, hub, other_hub):
    hub.set(rate=1e5)

    began = time.monotonic()
    pull.run(hub, other_hub, repo=BIG)

    pull.check(hub, BIG)
    # The slow one alone would take half a minute.
    assert time.monotonic() - began < 10


def test_an_origin_may_join_while_the_transfer_waits(pull, hub, other_hub):
    hub.die()
    full = pull.supply(other_hub, repo=ONE)
    ((origin, _offer),) = full.origins()
    supply = Supply(full.wanted)
    threading.Timer(0.5, lambda: supply.add(origin, full.wanted)).start()

    pull.run(supply=supply)

    pull.check(other_hub, ONE)


def test_a_server_that_restarts_is_waited_for(pull, hub):
    hub.set(rate=4e6)

    def restart() -> None:
        while hub.sent_bytes() < 8 * MIB:
            time.sleep(0.02)
        hub.die()
        time.sleep(2)
        hub.revive()

    thread = threading.Thread(target=restart)
    thread.start()
    summary = pull.run(hub, repo=BIG)
    thread.join()

    pull.check(hub, BIG)
    assert summary.fetched_bytes == size_of(BIG)


def test_when_nothing_comes_any_more_it_says_what_is_kept_and_goes_on_later(pull, hub):
    hub.set(rate=4e6, die_after=16 * MIB)

    with pytest.raises(TransferFailed, match="goes on from there") as caught:
        pull.run(hub, repo=BIG, patience=1.5)
    assert caught.value.trouble == "unreachable"

    hub.set(rate=None, die_after=None)
    hub.revive()
    summary = pull.run(hub, repo=BIG)
    pull.check(hub, BIG)
    assert summary.fetched_bytes < size_of(BIG) - 12 * MIB


def test_redirects_are_remembered_and_resolved_again_when_they_run_out(pull, hub, other_hub):
    hub.set(redirect_to=other_hub, signature_seconds=1.0)
    other_hub.set(rate=1e6)
    hub.counters(reset=True)

    pull.run(hub, repo=BIG)

    pull.check(hub, BIG)
    asked = [r for r in hub.counters().requests if "/resolve/" in r[1]]
    served = other_hub.counters().byte_requests
    assert len(asked) < served + 20


# Stopping and going on


class Stops(QuietObserver):
    def __init__(self, after: float) -> None:
        self.until = time.monotonic() + after
        self.stopped = 0.0

    def check(self):
        if time.monotonic() > self.until:
            self.stopped = time.monotonic()
            raise TransferCancelled


@pytest.mark.parametrize("fault", [{}, {"stall_after": MIB}], ids=["flowing", "stalled"])
def test_a_stop_takes_effect_at_once_and_keeps_what_came(pull, hub, fault):
    hub.set(rate=2e6)
    if fault:
        hub.fault("*", **fault)
    observer = Stops(1.0)

    with pytest.raises(TransferCancelled):
        pull.run(hub, repo=BIG, observer=observer)

    assert time.monotonic() - observer.stopped < 0.3
    sent = hub.sent_bytes()
    hub.clear()
    hub.set(rate=None)
    summary = pull.run(hub, repo=BIG)
    pull.check(hub, BIG)
    assert summary.fetched_bytes <= size_of(BIG) - sent + 8 * MIB


SCRIPT = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from swift_jupyter.hub.api.base import Endpoint, hub_api
    from swift_jupyter.hub.http.client import Client
    from swift_jupyter.hub.transfer.fetch import Supply, fetch
    client, out = Client({}), Path(sys.argv[3]) / "out"
    out.mkdir(parents=True, exist_ok=True)
    api = hub_api(Endpoint("huggingface", sys.argv[2], "hub"), client)
    listing = api.list_files("lab/big", "model", None)
    supply = Supply(listing.files)
    supply.add(api.origin(listing), listing.files)
    supply.close()
    summary = fetch(
        listing.files, supply, out.parent / "parts",
        lambda file, part, sha256, git: part.rename(out / file.path),
        client=client, arrived=lambda file: (out / file.path).exists(),
    )
    print(summary.fetched_bytes)
""")


def start_process(hub: Origin, folder: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", SCRIPT, str(root), hub.url, str(folder)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_a_killed_process_loses_almost_nothing(pull, hub):
    hub.set(rate=2e6)
    process = start_process(hub, pull.folder)
    while hub.sent_bytes() < size_of(BIG) // 2:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    sent = hub.sent_bytes()
    hub.set(rate=None)

    summary = pull.run(hub, repo=BIG)

    pull.check(hub, BIG)
    # What was in buffers and on the wire of 16 connections; at 2 MB/s each that is 0.25 s.
    assert summary.fetched_bytes <= size_of(BIG) - sent + 16 * (700 << 10)


def test_two_processes_share_the_work(pull, hub):
    hub.set(rate=2e6)
    hub.counters(reset=True)

    processes = [start_process(hub, pull.folder) for _number in range(2)]
    fetched = [int(process.communicate(timeout=60)[0]) for process in processes]

    assert sum(fetched) == size_of(BIG)
    # Only what was on its way when an idle connection took over a lease comes twice.
    assert hub.counters().sent_bytes <= size_of(BIG) + 8 * MIB
    for path, expected in hub.sha256("lab/big").items():
        assert hashlib.sha256(pull.place(path).read_bytes()).hexdigest() == expected


def test_a_full_disk_is_told_and_keeps_what_is_there(tmp_path, hub):
    with mounted_tmpfs(tmp_path / "disk", 30 << 10) as folder:
        pull = Pull(folder)
        with pytest.raises(TransferFailed) as caught:
            pull.run(hub, repo=BIG)

        assert caught.value.trouble == "disk_full"
        kept = sum(path.stat().st_blocks * 512 for path in folder.rglob("*.*"))
        assert kept > 20 * MIB
        # With room made, it goes on.
        subprocess.run(["mount", "-o", "remount,size=100m", str(folder)], check=True)
        summary = pull.run(hub, repo=BIG)
        pull.check(hub, BIG)
        assert summary.fetched_bytes < size_of(BIG) - 10 * MIB


# Listings that know little, or differ


def test_files_of_unknown_size_arrive(pull, hub):
    known = pull.supply(hub, repo=MIXED)
    ((origin, _offer),) = known.origins()
    wanted = [RemoteFile(f.path, None, f.sha256, f.git_sha1) for f in known.wanted]
    supply = Supply(wanted)
    supply.add(origin, wanted)
    supply.close()

    pull.run(supply=supply)

    pull.check(hub, MIXED)


def test_without_any_hash_the_length_still_counts(pull, hub):
    known = pull.supply(hub, repo=ONE)
    ((origin, _offer),) = known.origins()
    wanted = [RemoteFile(f.path, f.size) for f in known.wanted]
    supply = Supply(wanted)
    supply.add(origin, wanted)
    supply.close()
    hub.fault("*", first=1, fin_after=3 * MIB)

    pull.run(supply=supply)

    pull.check(hub, ONE)


@dataclass(frozen=True)
class Named:
    name: str
    endpoint: str = "e"
    hub: str = "huggingface"
    is_node: bool = False

    def request(self, path: str) -> tuple[str, dict[str, str]]:
        return f"http://127.0.0.1:9/{path}", {}


def test_other_content_is_a_conflict_and_never_taken():
    supply = Supply(
        [RemoteFile("a", 5, "11" * 32), RemoteFile("b", 5), RemoteFile("c", 1, "2" * 64)]
    )
    origin: OriginLike = Named("other")
    supply.add(Named("first"), supply.wanted)

    conflicts = supply.add(
        origin,
        [RemoteFile("a", 5, "22" * 32), RemoteFile("b", 6), RemoteFile("c", 1, git_sha1="3" * 40)],
    )

    assert [(c.path, c.origin) for c in conflicts] == [("a", "other"), ("b", "other")]
    assert "sha256 2222" in conflicts[0].found and "6 bytes" in conflicts[1].found
    # The one without a common hash may be taken as a whole.
    assert list(supply.origins()[1][1]) == [0, 0, 2]


def test_content_without_a_common_hash_is_taken_whole_and_judged(pull, hub, other_hub):
    known = pull.supply(hub, repo=ONE)
    ((first, _offer),) = known.origins()
    second = pull.supply(other_hub, repo=ONE).origins()[0][0]
    supply = Supply(known.wanted)
    supply.add(first, known.wanted)
    supply.add(second, [RemoteFile(f.path, f.size) for f in known.wanted])
    supply.close()
    hub.set(rate=4e6, die_after=8 * MIB)

    pull.run(supply=supply)

    pull.check(other_hub, ONE)
    assert other_hub.counters().sent_bytes >= size_of(ONE)


def test_a_million_files_are_scheduled_in_linear_time_and_little_memory():
    import tracemalloc

    from swift_jupyter.hub.transfer.origins import NoHealth
    from swift_jupyter.hub.transfer.scheduler import Scheduler

    def seconds(count: int) -> float:
        wanted = [RemoteFile(f"{n:07}", 1) for n in range(count)]
        tracemalloc.start()
        supply = Supply(wanted)
        supply.add(Named("first"), wanted)
        supply.close()
        scheduler = Scheduler(supply, Path("unused"), 4, NoHealth(), lambda file: False, 30.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 150 * count + MIB
        began = time.perf_counter()
        while (task := scheduler.next_task()) is not None:
            scheduler.small_done(task)
            scheduler.delivered(task.number)
        return time.perf_counter() - began

    assert seconds(40_000) < 8 * seconds(10_000)


def test_a_dead_address_does_not_hold_up_the_others(pull, hub, other_hub):
    pull.client = Client({}, limits=Limits(connect=1.0))
    supply = pull.supply(hub, other_hub, repo=SMALL)
    hub.die()

    began = time.monotonic()
    pull.run(supply=supply)

    pull.check(other_hub, SMALL)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("dripping", ["model.safetensors", "half.json"], ids=["large", "small"])
def test_a_dripping_reply_is_taken_over(pull, server, dripping):
    # Given a reply that never stalls but would take hours, beside others that flow
    repo = Repo("lab/drip", {"half.json": 600_000, "model.safetensors": 120 * MIB})
    hub = server.add_origin([repo], rate=4e6)
    hub.fault(dripping, first=1, rate=1000.0)

    began = time.monotonic()
    pull.run(hub, repo=repo)

    assert time.monotonic() - began < 20
    pull.check(hub, repo)
