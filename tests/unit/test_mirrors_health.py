"""Health of addresses: circuit breaker, speeds, and one file for many processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.mirrors.health import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    OPENS_AFTER,
    PAUSE_GROWTH,
    EndpointHealth,
    StoredHealth,
)

PLACE = "http://place"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(tmp_path: Path, clock: Clock) -> StoredHealth:
    return StoredHealth(tmp_path / "deep" / "health.json", clock)


def fail(health: StoredHealth, clock: Clock, times: int = OPENS_AFTER) -> None:
    for _time in range(times):
        clock.now += 1
        health.failed(PLACE, "connect")


def test_the_circuit_opens_is_tried_and_closes(health: StoredHealth, clock: Clock) -> None:
    # Given some failures, then nothing happens yet
    fail(health, clock, OPENS_AFTER - 1)
    assert health.circuit(PLACE) == "closed" and health.allows(PLACE)
    # When there is one more, it is left alone
    fail(health, clock, 1)
    assert health.circuit(PLACE) == "open" and not health.allows(PLACE)
    # And after a pause it is on trial
    clock.now += FIRST_PAUSE + 0.1
    assert health.circuit(PLACE) == "half-open" and health.allows(PLACE)
    # When it fails its trial, the pause grows
    health.failed(PLACE, "timeout")
    assert health.circuit(PLACE) == "open"
    clock.now += FIRST_PAUSE + 0.1
    assert health.circuit(PLACE) == "open"
    clock.now += FIRST_PAUSE * PAUSE_GROWTH
    assert health.circuit(PLACE) == "half-open"
    # When it works, all is forgiven
    health.succeeded(PLACE, 1, 0.1)
    assert health.circuit(PLACE) == "closed"
    fail(health, clock)
    clock.now += FIRST_PAUSE + 0.1
    assert health.circuit(PLACE) == "half-open"


def test_what_fails_at_one_moment_on_many_connections_counts_once(
    health: StoredHealth, clock: Clock
) -> None:
    for _connection in range(16):
        clock.now += 0.001
        health.failed(PLACE, "reset")
    assert health.circuit(PLACE) == "closed"
    assert health.known(PLACE).failures == 1


def test_no_pause_is_longer_than_the_longest(health: StoredHealth, clock: Clock) -> None:
    for _trial in range(30):
        clock.now += LONGEST_PAUSE + 1
        health.failed(PLACE, "connect")
    assert health.known(PLACE).open_until - clock.now == LONGEST_PAUSE
    # And a clock that is set back does not keep it shut for years
    clock.now -= 10 * 86400
    assert health.allows(PLACE)


def test_speed_follows_what_is_seen_and_small_answers_do_not_count(
    health: StoredHealth, clock: Clock
) -> None:
    health.succeeded(PLACE, 10_000, 1.0)
    assert health.known(PLACE).bytes_per_second is None
    health.succeeded(PLACE, 10_000_000, 1.0)
    assert health.known(PLACE).bytes_per_second == pytest.approx(1e7)
    for _piece in range(60):
        health.succeeded(PLACE, 1_000_000, 1.0)
    assert health.known(PLACE).bytes_per_second == pytest.approx(1e6, rel=0.1)
    # What is old is not known any more
    clock.now += 30 * 86400
    assert health.known(PLACE).speed(clock.now) is None


def test_old_errors_fade(health: StoredHealth, clock: Clock) -> None:
    fail(health, clock, 20)
    before = health.known(PLACE).errors(clock.now)
    assert before > 0.9
    clock.now += 4 * 3600
    assert health.known(PLACE).errors(clock.now) < 0.01


def test_order_prefers_what_works_and_is_clearly_faster(health: StoredHealth, clock: Clock) -> None:
    for name, speed in {"a": 1e6, "b": 1.1e6, "c": 9e6}.items():
        health.succeeded(name, int(speed), 1.0)
    assert health.order(["a", "b", "c"]) == ["c", "a", "b"]
    assert health.order(["new", "a", "b"]) == ["new", "a", "b"]
    for _failure in range(OPENS_AFTER):
        clock.now += 1
        health.failed("c", "connect")
    assert health.order(["c", "a", "new"]) == ["a", "new", "c"]


def test_what_one_process_saw_is_known_to_the_next(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "health.json"
    first, second = StoredHealth(path, clock), StoredHealth(path, clock)
    first.succeeded("a", 10_000_000, 1.0)
    second.succeeded("b", 10_000_000, 1.0)
    # When both write, nobody's findings get lost
    first.flush()
    second.flush()
    third = StoredHealth(path, clock)
    assert third.known("a").bytes_per_second and third.known("b").bytes_per_second
    # And the circuit that one opened is open for the others
    fail(third, clock)
    third.flush()
    assert not StoredHealth(path, clock).allows(PLACE)


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from swift_jupyter.hub.mirrors.health import StoredHealth\n"
        "for n in range(20):\n"
        "    h = StoredHealth(Path(sys.argv[1])); h.succeeded(f'{sys.argv[2]}-{n}', 300000, 1)\n"
        "    h.flush()\n"
    )
    path = tmp_path / "health.json"
    workers = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in "abc"]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert len(json.loads(path.read_text())["endpoints"]) == 60
    assert not list(tmp_path.glob("*.tmp"))


@given(
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda value: json.dumps({"version": 1, "endpoints": {PLACE: value}}).encode(),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=5)),
                lambda inner: st.dictionaries(
                    st.sampled_from([*EndpointHealth.__dataclass_fields__, "x"]), inner
                ),
                max_leaves=8,
            ),
        ),
    )
)
def test_a_broken_file_does_no_harm(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.mktemp("h") / "health.json"
    path.write_bytes(content)
    health = StoredHealth(path)
    assert health.order([PLACE, "b"])
    health.failed(PLACE, "x")
    health.succeeded(PLACE, 300_000, 0.5)
    health.flush()
    assert StoredHealth(path).known(PLACE).last_success > 0


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    health = StoredHealth(tmp_path / "file" / "health.json", clock)
    fail(health, clock)
    health.flush()
    assert not health.allows(PLACE)
