"""The folder of a run: its names, its creation, its control files."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from swift_jupyter.engine.training.checkpoints import numbered
from swift_jupyter.errors import UserError
from swift_jupyter.files import write_json_atomically
from swift_jupyter.i18n import translate as _
from swift_jupyter.journal import append_row
from swift_jupyter.runs.process import ProcessIdentity
from swift_jupyter.runs.record import RunRecord, State, read_record, write_record

_VERSION = re.compile(r"v(\d+)-")


class RunFolder:
    """The files of one run. Holds no state but the path.

    Parameters
    ----------
    path : Path
        The folder, ``<output_dir>/v<N>-<timestamp>``.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def record_file(self) -> Path:
        """`run.json`."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """`logging.jsonl`: one row per logged step, in ms-swift's words."""
        return self.path / "logging.jsonl"

    @property
    def events_file(self) -> Path:
        """`events.jsonl`: phases, notices and checkpoints."""
        return self.path / "events.jsonl"

    @property
    def log_file(self) -> Path:
        """`worker.log`: what the worker printed."""
        return self.path / "worker.log"

    @property
    def result_file(self) -> Path:
        """`result.json`: what the finished job returned."""
        return self.path / "result.json"

    @property
    def progress_file(self) -> Path:
        """`progress.json`: how far it is, replaced as a whole."""
        return self.path / "progress.json"

    @property
    def lock_file(self) -> Path:
        """The lock that keeps two workers out of one folder."""
        return self.path / "control" / "worker.lock"

    @property
    def reserve_file(self) -> Path:
        """Some room that is given up when the disk is full and the end must be told."""
        return self.path / "control" / "reserve"

    @property
    def stop_file(self) -> Path:
        """Its presence asks the worker to save and stop."""
        return self.path / "control" / "stop"

    def read(self) -> RunRecord:
        """Read `run.json`."""
        return read_record(self.record_file)

    def write(self, record: RunRecord) -> None:
        """Replace `run.json`."""
        write_record(self.record_file, record)

    def write_end(self, record: RunRecord) -> None:
        """Replace `run.json`, also when the disk is full."""
        try:
            self.write(record)
        except OSError:
            self.reserve_file.unlink(missing_ok=True)
            self.write(record)

    def append_event(self, kind: str, **values: Any) -> None:
        """Append to `events.jsonl`."""
        append_row(self.events_file, {"time": round(time.time(), 3), "event": kind, **values})

    def request_stop(self) -> None:
        """Ask the worker to save a checkpoint and stop at the next step."""
        self.stop_file.parent.mkdir(exist_ok=True)
        self.stop_file.touch()

    def stop_requested(self) -> bool:
        """Tell whether a stop was asked for."""
        return self.stop_file.exists()

    def clear_requests(self) -> None:
        """Forget earlier requests, before the run is taken up again."""
        self.stop_file.unlink(missing_ok=True)
        self._spawned_file.unlink(missing_ok=True)

    def state(self, record: RunRecord | None = None) -> State:
        """Return the state, as the record, the process and the requests tell it."""
        state = (record or self.read()).observed_state(self.spawned())
        if state in (State.STARTING, State.RUNNING) and self.stop_requested():
            return State.STOPPING
        return state

    def note_spawned(self, process: ProcessIdentity) -> None:
        """Record which process the launcher started."""
        write_json_atomically(self._spawned_file, dataclasses.asdict(process))

    def spawned(self) -> ProcessIdentity | None:
        """Return the process that the launcher started, when it is known."""
        try:
            content = json.loads(self._spawned_file.read_text(encoding="utf-8"))
            return ProcessIdentity.from_json(content)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    @property
    def _spawned_file(self) -> Path:
        return self.path / "control" / "spawned.json"

    def checkpoints(self) -> list[Path]:
        """Return the published checkpoints, the oldest first."""
        return numbered(self.path)


def create_run_folder(output_dir: Path, add_version: bool = True) -> RunFolder:
    """Make the folder of a new run.

    Parameters
    ----------
    output_dir : Path
        The folder that the user named.
    add_version : bool
        Whether the run gets ``v<N>-<timestamp>`` below it, or the folder itself.

    Raises
    ------
    UserError
        When the folder cannot be written, the disk is full, or it already
        belongs to another run.
    """
    output_dir = Path(output_dir).expanduser().absolute()
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        path = _new_version(output_dir) if add_version else output_dir
        if (path / "run.json").exists():
            raise UserError(
                _("{path} already holds a run.", path=path),
                next_step=_("Choose another --output_dir, or leave --add_version on."),
            )
        (path / "control").mkdir()
        _check_writable(path)
    except OSError as error:
        raise UserError(
            _("No run can be created in {path}.", path=output_dir),
            error.strerror or str(error),
            _("Choose a folder that can be written: --output_dir FOLDER"),
        ) from None
    return RunFolder(path)


def _new_version(output_dir: Path) -> Path:
    numbers = [
        int(match.group(1))
        for entry in output_dir.iterdir()
        if (match := _VERSION.match(entry.name))
    ]
    number = max(numbers, default=-1) + 1
    while True:
        path = output_dir / f"v{number}-{time.strftime('%Y%m%d-%H%M%S')}"
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1  # Another kernel was quicker.


def _check_writable(path: Path) -> None:
    probe = path / "control" / ".probe"
    probe.write_bytes(b"")
    probe.unlink()


def discard_run_folder(folder: RunFolder) -> None:
    """Remove a folder whose run never started, and the parent when it is empty."""
    shutil.rmtree(folder.path, ignore_errors=True)
    try:
        folder.path.parent.rmdir()
    except OSError:
        return  # Other runs live there.
