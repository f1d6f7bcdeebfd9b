"""Entry point of a transfer process: one job on stdin, events on stdout.

Work in a process of its own leaves the kernel's interpreter free, prints
nothing into a notebook, and is ended by an interrupt at once. The end of stdin
is the wish to stop, so that the work also ends when the parent dies.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback

from swift_jupyter.errors import UserError
from swift_jupyter.hub.transfer.channel import Channel, TransferCancelled, TransferFailed

TASKS = {
    "pull": "swift_jupyter.hub.transfer.pull_task",
    "convert": "swift_jupyter.hub.transfer.gguf_conversion",
}
GRACE_SECONDS = 1.5
CANCELLED = 130


def main() -> int:
    """Run the job and return the exit code."""
    channel = _open_channel()
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch_parent, args=(channel,), daemon=True).start()
    try:
        task = importlib.import_module(TASKS[job["task"]])
        channel.send("started")
        channel.send("done", **task.run(job, channel))
    except TransferCancelled:
        return CANCELLED
    except TransferFailed as error:
        answers = getattr(error, "answers", ())
        channel.send("failed", trouble=error.trouble, reason=error.reason, answers=list(answers))
        return 1
    except UserError as error:
        channel.send("refused", what=error.what, why=error.why, next_step=error.next_step)
        return 1
    except Exception as error:
        traceback.print_exc()
        channel.send("failed", trouble="failed", reason=f"{type(error).__name__}: {error}")
        return 1
    return 0


def _open_channel() -> Channel:
    """Keep stdout for events alone; what libraries print goes to stderr."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Channel(stream)


def _watch_parent(channel: Channel) -> None:
    while sys.stdin.read(4096):
        pass
    channel.cancel()
    time.sleep(GRACE_SECONDS)
    os._exit(CANCELLED)


if __name__ == "__main__":
    # Threads that wait for a dead server must not hold the process.
    code = main()
    sys.stderr.flush()
    os._exit(code)
