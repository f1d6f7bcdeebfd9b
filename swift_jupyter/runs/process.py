"""Processes by identity: a pid alone may belong to somebody else by now."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class ProcessIdentity:
    """A pid with the moment its process started.

    Attributes
    ----------
    pid : int
        The process id.
    started : str
        On Linux the boot id and the start in clock ticks since boot, which no
        change of the clock moves; elsewhere the creation time.
    """

    pid: int
    started: str

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ProcessIdentity:
        """Build an identity, ignoring fields that a newer version may have added."""
        return cls(int(value["pid"]), str(value["started"]))


def identify(pid: int | None = None) -> ProcessIdentity | None:
    """Return the identity of a living process, the current one by default.

    Returns None when there is no such process or only its zombie is left.
    """
    pid = os.getpid() if pid is None else pid
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        started = _linux_start(pid) if sys.platform == "linux" else str(process.create_time())
    except (psutil.Error, OSError, ValueError):
        return None
    return ProcessIdentity(pid, started)


def _linux_start(pid: int) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    # The command's name is in parentheses and may contain anything, ')' too.
    ticks = stat.rpartition(")")[2].split()[19]
    return f"{boot}:{ticks}"


def is_alive(identity: ProcessIdentity) -> bool:
    """Tell whether the very process that `identity` names is still alive."""
    return identify(identity.pid) == identity


def kill(identity: ProcessIdentity) -> None:
    """End a process and its group at once; nothing happens when it is gone."""
    if not is_alive(identity):
        return
    with contextlib.suppress(OSError, psutil.Error):
        if hasattr(os, "killpg") and os.getpgid(identity.pid) == identity.pid:
            os.killpg(identity.pid, signal.SIGKILL)
        else:
            psutil.Process(identity.pid).kill()
