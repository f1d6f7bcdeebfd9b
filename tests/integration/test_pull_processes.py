"""Pulls that are killed, interrupted, doubled, or have no room."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fault_machine import MIB, REPO_ID, WEIGHTS, FaultMachine, fault_machine
from fault_server import FaultServer
from sandbox import wait_for
from tmpfs import mounted_tmpfs

from swift_jupyter.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and disks of Linux")


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path, server: FaultServer) -> Iterator[FaultMachine]:
    with fault_machine(tmp_path, server) as machine:
        yield machine


def transfer_child(process: subprocess.Popen[str]) -> psutil.Process:
    """Return the process in which a pull transfers."""
    return wait_for(
        lambda: next(iter(psutil.Process(process.pid).children(recursive=True)), None), 20
    )


def wait_for_half(machine: FaultMachine) -> None:
    wait_for(lambda: machine.hub.sent_bytes() >= machine.total / 2, 20)


def wait_for_quiet(machine: FaultMachine) -> None:
    """Wait until nothing is sent any more."""

    def quiet() -> bool:
        before = machine.hub.sent_bytes()
        time.sleep(0.15)
        return machine.hub.sent_bytes() == before

    wait_for(quiet, 20)


@pytest.mark.parametrize("victim", ["child", "parent"])
def test_a_killed_pull_goes_on_where_it_was(machine: FaultMachine, victim: str) -> None:
    # Given a pull whose child or parent is killed at half
    machine.hub.set(rate=1e6)
    process = machine.start()
    child = transfer_child(process)
    wait_for_half(machine)
    os.kill(child.pid if victim == "child" else process.pid, signal.SIGKILL)
    # Then both end soon, and no file is published half
    process.communicate(timeout=20)
    assert process.returncode != 0
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 20)
    machine.assert_nothing_wrong()
    wait_for_quiet(machine)
    # When the model is pulled again
    machine.hub.set(rate=4e6)
    snapshot = machine.pull()
    # Then all is right, and at most 5 % came twice
    machine.assert_right(snapshot.path)
    assert machine.hub.sent_bytes() <= 1.05 * machine.total


def test_an_interrupt_keeps_what_has_arrived(machine: FaultMachine) -> None:
    machine.hub.set(rate=1e6)
    process = machine.start()
    child = transfer_child(process)
    wait_for_half(machine)
    # When the pull is interrupted
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.communicate(timeout=20)
    # Then it stops within seconds, and so does its child
    assert process.returncode == 130
    assert time.monotonic() - started < 5
    wait_for(lambda: not child.is_running(), 5)
    wait_for_quiet(machine)
    # And the same pull goes on from there
    machine.hub.set(rate=4e6)
    machine.assert_right(machine.pull().path)
    assert machine.hub.sent_bytes() <= 1.05 * machine.total


def test_a_dead_child_is_an_error_and_not_a_hang(machine: FaultMachine) -> None:
    machine.hub.set(rate=1e6)
    process = machine.start()
    child = transfer_child(process)
    wait_for_half(machine)
    child.kill()
    _out, err = process.communicate(timeout=20)
    assert "UserError" in err
    assert REPO_ID in err


def test_two_processes_at_once_share_one_transfer(machine: FaultMachine) -> None:
    # Given two processes that pull the same model into the same caches
    machine.hub.set(rate=2e6)
    processes = [machine.start() for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    # Then both are right
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err
        machine.assert_right(Path(out.splitlines()[-1]))
    # And the hub gave little more than one of them needs
    assert machine.hub.sent_bytes() <= 1.1 * machine.total


def test_the_second_of_two_takes_over_when_the_first_dies(machine: FaultMachine) -> None:
    machine.hub.set(rate=1e6)
    first, second = machine.start(), machine.start()
    children = [transfer_child(process) for process in (first, second)]
    wait_for_half(machine)
    for victim in (psutil.Process(first.pid), children[0]):
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    first.communicate(timeout=20)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    machine.assert_right(Path(out.splitlines()[-1]))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, server: FaultServer) -> None:
    # Given a disk that is smaller than the model
    with (
        mounted_tmpfs(tmp_path / "disk", 24 * 1024) as disk,
        fault_machine(disk, server) as machine,
    ):
        # When it is pulled
        started = time.monotonic()
        with pytest.raises(UserError) as caught:
            machine.pull()
        # Then the error tells of the room, soon, and without a transfer that cannot end
        assert time.monotonic() - started < 10
        assert "room" in str(caught.value) or "space" in str(caught.value)
        machine.assert_nothing_wrong()
        assert machine.hub.sent_bytes() < machine.total


def test_a_disk_that_fills_on_the_way_keeps_what_has_arrived(
    tmp_path: Path, server: FaultServer
) -> None:
    with (
        mounted_tmpfs(tmp_path / "disk", 48 * 1024) as disk,
        fault_machine(disk, server) as machine,
    ):
        machine.hub.set(rate=2e6)
        process = machine.start()
        wait_for(lambda: machine.hub.sent_bytes() > 0, 20)
        # When something else takes the room
        filler = disk / "other.bin"
        with contextlib.suppress(OSError):
            filler.write_bytes(b"x" * (64 * MIB))
        _out, err = process.communicate(timeout=60)
        # Then the pull ends with one clear error
        assert process.returncode == 1
        assert "UserError" in err
        machine.assert_nothing_wrong()
        wait_for_quiet(machine)
        # And goes on when there is room again
        filler.unlink()
        machine.hub.set(rate=4e6)
        machine.assert_right(machine.pull().path)
        assert machine.hub.sent_bytes() <= 1.3 * machine.total


def test_a_read_only_cache_is_one_clear_error(tmp_path: Path, server: FaultServer) -> None:
    with (
        mounted_tmpfs(tmp_path / "disk", 64 * 1024) as disk,
        fault_machine(disk, server) as machine,
    ):
        _remount(disk, "ro")
        with pytest.raises(UserError) as caught:
            machine.pull()
        _remount(disk, "rw")
    assert str(disk) in str(caught.value)
    assert machine.hub.sent_bytes() == 0 or caught.value.why


def test_a_snapshot_in_a_read_only_cache_can_be_used(tmp_path: Path, server: FaultServer) -> None:
    with (
        mounted_tmpfs(tmp_path / "disk", 128 * 1024) as disk,
        fault_machine(disk, server) as machine,
    ):
        first = machine.pull()
        machine.hub.die()
        _remount(disk, "ro")
        try:
            again = machine.pull(source="auto")
            machine.assert_right(again.path)
            assert again.path == first.path
        finally:
            _remount(disk, "rw")


def _remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)


def test_nothing_is_left_behind_by_a_pull_that_succeeds(machine: FaultMachine) -> None:
    machine.hub.fault(WEIGHTS, first=1, flip_at=3 * MIB)
    machine.assert_right(machine.pull().path)
    left = [
        path
        for path in machine.root.rglob("*")
        if path.suffix in (".part", ".journal", ".incomplete", ".tmp")
    ]
    assert not left
