"""How long ``%load_ext swift_jupyter`` takes in a shell that is already at work.

Run: ``python tests/benchmarks/load_ext.py``. The target is a median of 150 ms at most.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

_REPEATS = 15
_CODE = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("0;")
started = time.perf_counter()
shell.run_cell("%load_ext swift_jupyter").raise_error()
print(1000 * (time.perf_counter() - started))
"""


def measure() -> float:
    """Return the milliseconds of one load, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    measure()  # The first writes the bytecode.
    times = [measure() for _repeat in range(_REPEATS)]
    print(f"median {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f} ms")
