"""From what the transfer engine tells to the reports that a parent gets."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import asdict
from typing import Any

from swift_jupyter.hub.progress import MAX_SHOWN_FILES, FileProgress, Phase
from swift_jupyter.hub.transfer.channel import Channel
from swift_jupyter.hub.transfer.state import FileTransfer, TransferState

_SPEED_SECONDS = 5.0
_MOST_NOTICES = 50
_LAST_FINISHED = 4


class Feed:
    """Sends reports of a pull; the observer of its transfer.

    Parameters
    ----------
    channel : Channel
        Where they go.
    source : str
        Who is asked at first, for people.
    """

    def __init__(self, channel: Channel, source: str = "") -> None:
        self.source = source
        self.trouble = threading.Event()
        self._channel = channel
        self._notices: list[str] = []
        self._finished: deque[FileTransfer] = deque(maxlen=_LAST_FINISHED)
        self._speeds: deque[tuple[float, int]] = deque()
        # What was there before the transfer began.
        self.base_bytes = 0
        self.base_files = 0

    def phase(
        self, phase: Phase, done: int = 0, total: int | None = None, file: str | None = None
    ) -> None:
        """Report something else than the transfer itself."""
        self._channel.progress(phase, done, total, file, **self._common())

    def check(self) -> None:
        """Raise `TransferCancelled` when the pull is no longer wanted."""
        self._channel.check()

    def notice(self, text: str) -> None:
        """Tell the user something; each sentence once."""
        self.trouble.set()
        if text not in self._notices and len(self._notices) < _MOST_NOTICES:
            self._notices.append(text)

    @property
    def notices(self) -> tuple[str, ...]:
        """What was noticed so far."""
        return tuple(self._notices)

    def progress(self, state: TransferState) -> None:
        """Report how far the transfer is."""
        self._finished.extend(file for file in state.files if file.state == "done")
        active = [file for file in state.files if file.state in ("downloading", "verifying")]
        active.sort(key=lambda file: -file.done)
        shown = [*active[: MAX_SHOWN_FILES - _LAST_FINISHED], *self._finished]
        speed = self._speed(state.fetched_bytes)
        total = None if state.total_bytes is None else state.total_bytes + self.base_bytes
        done = state.done_bytes + self.base_bytes
        names = [name for name, count in state.fetched_from.items() if count]
        self._channel.progress(
            "downloading",
            done,
            total,
            active[0].path if active else None,
            **{
                **self._common(),
                "source": ", ".join(names) or self.source,
                "bytes_per_second": speed,
                "seconds_left": (total - done) / speed if speed and total is not None else None,
                "finished_files": state.finished_files + self.base_files,
                "total_files": state.total_files + self.base_files,
                "files": [_shown(file) for file in shown],
            },
        )

    def _common(self) -> dict[str, Any]:
        return {"source": self.source, "notices": list(self._notices)}

    def _speed(self, fetched: int) -> float | None:
        now = time.monotonic()
        self._speeds.append((now, fetched))
        while now - self._speeds[0][0] > _SPEED_SECONDS and len(self._speeds) > 2:
            self._speeds.popleft()
        began, before = self._speeds[0]
        return (fetched - before) / (now - began) if now - began > 0.2 else None


def _shown(file: FileTransfer) -> dict[str, Any]:
    return asdict(FileProgress(file.path, file.done, file.total, file.origin, file.state))
