"""What a watcher shows: the journals of a run, read as they grow."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from swift_jupyter.hub.download_progress import DownloadProgress, read_download_progress
from swift_jupyter.journal import JournalReader
from swift_jupyter.runs.record import RunRecord, State
from swift_jupyter.runs.run import Run


@dataclass
class RunProgress:
    """All that is known of a run at one moment.

    Attributes
    ----------
    record : RunRecord
        The content of `run.json`.
    state : State
        As observed now.
    rows : list of dict
        The logged rows, each step once.
    phase, phase_done, phase_total
        What is being done now, and how far it is.
    notices : list of str
        What the user should know.
    download : DownloadProgress or None
        How far a download is; None for other runs.
    """

    record: RunRecord
    state: State
    path: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    phase: str = ""
    phase_done: int | None = None
    phase_total: int | None = None
    notices: list[str] = field(default_factory=list)
    download: DownloadProgress | None = None

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Return the steps and values at which `key` was logged."""
        points = [
            (int(row["step"]), float(row[key]))
            for row in self.rows
            if row.get(key) is not None and "step" in row
        ]
        return [step for step, _value in points], [value for _step, value in points]

    def latest(self, key: str) -> Any:
        """Return the last logged value of `key`, or None."""
        return next((row[key] for row in reversed(self.rows) if row.get(key) is not None), None)

    @property
    def step(self) -> int:
        """The last logged step."""
        return int(self.latest("step") or 0)

    @property
    def max_steps(self) -> int:
        """How many steps there will be; 0 when not known yet."""
        total = str(self.latest("global_step/max_steps") or "").partition("/")[2]
        return int(total) if total.isdigit() else 0


class ProgressReader:
    """Follows a run's journals.

    Parameters
    ----------
    run : Run
        The run to follow.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._metrics = JournalReader(run.folder.metrics_file)
        self._events = JournalReader(run.folder.events_file)
        self._written = 0
        record = run.record()
        self._progress = RunProgress(record, run.folder.state(record), str(run.path))

    def read(self) -> RunProgress:
        """Return the progress as of now; the same object, brought up to date."""
        progress = self._progress
        # The state first: what a finished worker wrote is then surely read below.
        progress.record = self._run.record()
        progress.state = self._run.folder.state(progress.record)
        rows = self._metrics.new_rows()
        if self._metrics.restarted:
            progress.rows.clear()
        progress.rows.extend(rows)
        for event in self._events.new_rows():
            self._take(event)
        if progress.record.command == "download":
            self._read_download()
        return progress

    def _read_download(self) -> None:
        path = self._run.folder.progress_file
        with contextlib.suppress(OSError):
            written = path.stat().st_mtime_ns
            if written != self._written:
                self._written = written
                self._progress.download = read_download_progress(path) or self._progress.download

    def _take(self, event: dict[str, Any]) -> None:
        progress = self._progress
        if event.get("event") == "phase":
            progress.phase = str(event.get("text", ""))
            progress.phase_done = event.get("done")
            progress.phase_total = event.get("total")
        elif event.get("event") == "notice":
            progress.notices.append(str(event.get("text", "")))
