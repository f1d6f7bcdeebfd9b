"""How much memory the host has left, and a limit so that too much is an error.

Linux gives out more memory than there is and kills a process when it is used. Nothing
could answer that, while an allocation that fails can be answered by smaller batches.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_CGROUPS = Path("/sys/fs/cgroup")
_RESERVE = 256 * 2**20  # For the rest of the machine, and what grows without asking.


def available_memory(cgroups: Path = _CGROUPS) -> int:
    """Return how many bytes this process can still get, by the host and its container.

    Swap counts as well: with it, training is slow but does not end.
    """
    left = int(psutil.virtual_memory().available + psutil.swap_memory().free)
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
        ),
    ):
        most, now = _number(cgroups / limit), _number(cgroups / used)
        if most is not None and now is not None:
            left = min(left, most - now + _file_cache(cgroups / statistics))
    return max(0, left)


def _file_cache(path: Path) -> int:
    """Return what a container uses for cached files, which it gives up when needed."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    pairs = (line.split() for line in lines)
    values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    prefix = "total_" if "total_inactive_file" in values else ""
    return values.get(f"{prefix}inactive_file", 0) + values.get(f"{prefix}active_file", 0)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None  # No such group, or "max".


def limit_memory(growth: int | None = None) -> bool:
    """Let allocations fail once this process has taken what is available.

    Parameters
    ----------
    growth : int, optional
        How many bytes the process may grow by; what is available by default.

    Returns
    -------
    bool
        Whether there is such a limit now; only Linux has it.
    """
    if sys.platform != "linux":
        return False
    import resource

    if growth is None:
        growth = available_memory() - _RESERVE
    taken = psutil.Process().memory_info().data
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = taken + max(0, growth)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    return True


def lift_limit() -> None:
    """Take `limit_memory` back."""
    if sys.platform == "linux":
        import resource

        _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def trim_heap() -> None:
    """Give freed memory back to the system, where the C library can.

    glibc keeps what is freed in pieces; buffers that come and go with every weight make
    it keep several times what a step needs. It takes some milliseconds.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class HostMemoryLimit(TrainerCallback):
    """Limits the memory while steps are made.

    Not earlier, since weights that are mapped from a file would count as taken.

    Parameters
    ----------
    trim : bool
        Whether to give back freed memory after each step.
    """

    def __init__(self, trim: bool = False) -> None:
        self._trim = trim

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the limit, with model and optimizer in place."""
        limit_memory()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lift it."""
        lift_limit()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give back what the step has freed."""
        if self._trim:
            trim_heap()
