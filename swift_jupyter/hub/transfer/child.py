"""Entry point of a transfer process: one job on stdin, events on stdout.

The hubs' clients and the model converter print, log, draw bars and need
seconds to import. In a process of their own none of that reaches a notebook,
and an interrupt ends them at once. The end of stdin is the wish to stop, so
that the work also ends when the parent dies.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import traceback

from swift_jupyter.hub.transfer.channel import Channel, TransferCancelled, TransferFailed

TASKS = {
    "modelscope": "swift_jupyter.hub.transfer.modelscope_client",
    "huggingface": "swift_jupyter.hub.transfer.huggingface_client",
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
        channel.send("failed", trouble=error.trouble, reason=error.reason)
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
    channel.abort()
    os._exit(CANCELLED)


if __name__ == "__main__":
    # Threads of a client that wait for a dead server must not hold the process.
    code = main()
    sys.stderr.flush()
    os._exit(code)
