"""One run, as anybody who has its folder sees it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.hub.download_progress import read_download_progress
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.journal import parse_rows, read_rows
from swift_jupyter.runs.folder import RunFolder
from swift_jupyter.runs.process import kill
from swift_jupyter.runs.record import RunRecord, State

_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class RunStatus:
    """How a run stands, in a form that tables and the server can show."""

    id: str
    command: str
    title: str
    state: str
    reason: str
    step: int
    max_steps: int
    loss: float | None
    output_dir: str
    created: float
    share: float | None = None
    detail: str = ""

    @property
    def progress_text(self) -> str:
        """How far it is, in a few words; empty when that is not known."""
        if self.detail:
            return self.detail
        return f"{self.step}/{self.max_steps}" if self.max_steps else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


class Run:
    """A handle on a run; reads the folder anew at each call.

    Parameters
    ----------
    folder : RunFolder
        The run's files.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def id(self) -> str:
        """The run's short name."""
        return self.record().id

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def state(self) -> State:
        """How the run stands now."""
        return self.folder.state()

    def record(self) -> RunRecord:
        """Return the content of `run.json`."""
        return self.folder.read()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the logged rows, in ms-swift's words."""
        return read_rows(self.folder.metrics_file)

    def events(self) -> list[dict[str, Any]]:
        """Return phases, notices and checkpoints."""
        return read_rows(self.folder.events_file)

    def result(self) -> dict[str, Any]:
        """Return what the finished job returned; empty before that."""
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(self.folder.result_file.read_text(encoding="utf-8"))
            if isinstance(value, dict):
                return value
        return {}

    def log_tail(self, lines: int = 40) -> list[str]:
        """Return the last lines that the worker printed."""
        return [line.decode(errors="replace") for line in _tail(self.folder.log_file)[-lines:]]

    def status(self) -> RunStatus:
        """Return a summary; reads only the end of the journal."""
        record = self.record()
        rows = parse_rows(_tail(self.folder.metrics_file))
        step, max_steps = _last_step(rows)
        return RunStatus(
            id=record.id,
            command=record.command,
            title=record.title,
            state=self.folder.state(record).value,
            reason=record.reason,
            step=step,
            max_steps=max_steps,
            loss=next((row["loss"] for row in reversed(rows) if row.get("loss") is not None), None),
            output_dir=str(self.path),
            created=record.created,
            **self._download_status(record),
        )

    def _download_status(self, record: RunRecord) -> dict[str, Any]:
        if record.command != "download":
            return {}
        known = read_download_progress(self.folder.progress_file)
        if known is None:
            return {}
        done, total = size_text(known.done_bytes), known.total_bytes
        return {
            "share": known.share,
            "detail": f"{done}/{size_text(total)}" if total is not None else done,
        }

    def request_stop(self) -> None:
        """Ask for a checkpoint and a clean stop at the next step; returns at once."""
        self.folder.request_stop()

    def kill(self) -> None:
        """End the worker at once; the last published checkpoint stays.

        Safe to call at any time, also when the worker has already gone.
        """
        # A worker that has only just been started has not entered itself yet.
        for process in (self.record().worker, self.folder.spawned()):
            if process is not None:
                kill(process)
        record = self.record()
        if record.state.active:
            self.folder.write(
                dataclasses.replace(
                    record, state=State.STOPPED, reason="killed", finished=time.time()
                )
            )


def _tail(path: Path) -> list[bytes]:
    """Return the last lines of a file, however long it is."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            lines = stream.read().split(b"\n")
    except OSError:
        return []
    return [line for line in (lines[1:] if size > _TAIL_BYTES else lines) if line]


def _last_step(rows: list[dict[str, Any]]) -> tuple[int, int]:
    """Return (step, max_steps) of the last row that has ``global_step/max_steps``."""
    for row in reversed(rows):
        step, _sign, total = str(row.get("global_step/max_steps", "")).partition("/")
        if step.isdigit() and total.isdigit():
            return int(step), int(total)
    return 0, 0
