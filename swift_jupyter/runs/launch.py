"""Starting a worker for a run, and taking a run up again."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import swift_jupyter
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.folder import RunFolder, create_run_folder, discard_run_folder
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.process import ProcessIdentity, identify
from swift_jupyter.runs.record import RunRecord, State
from swift_jupyter.runs.run import Run
from swift_jupyter.settings import Settings


def launch(
    command: str,
    options: dict[str, Any],
    output_dir: Path,
    settings: Settings,
    *,
    title: str = "",
    add_version: bool = True,
    fill_inputs: Callable[[Path, dict[str, Any]], dict[str, Any]] | None = None,
) -> Run:
    """Create a run folder and start its worker.

    Parameters
    ----------
    command : str
        Which job of `swift_jupyter.runs.jobs` does the work.
    options : dict
        The job's options as JSON values.
    output_dir : Path
        Where the folder is made.
    settings : Settings
        The settings that the worker uses.
    title : str
        What a list of runs shows.
    add_version : bool
        Whether the folder gets a version below `output_dir`.
    fill_inputs : callable, optional
        Called with the folder and the options before the start; writes Python
        objects into files and returns the options that name them.

    Returns
    -------
    Run
        The run, whose worker is a process in a session of its own.
    """
    folder = create_run_folder(output_dir, add_version)
    try:
        if fill_inputs is not None:
            options = fill_inputs(folder.path, options)
        index = RunIndex(settings)
        record = RunRecord(
            id=index.new_id(command),
            command=command,
            title=title,
            launcher=identify(),
            options=options,
            settings=dataclasses.asdict(settings),
            created=time.time(),
        )
        folder.write(record)
        index.add(record.id, folder)
    except BaseException:
        discard_run_folder(folder)
        raise
    _start_worker(folder)
    return Run(folder)


def resume(run: Run, settings: Settings) -> Run:
    """Take up a run that stopped, failed or was lost, from its last checkpoint.

    Raises
    ------
    UserError
        When the run is still at work or already done.
    """
    record = run.record()
    state = run.state
    if state.active:
        raise UserError(
            _("{id} is still at work ({state}).", id=record.id, state=state.value),
            next_step=_("To watch it: %swift runs attach {id}", id=record.id),
        )
    if state is State.DONE:
        raise UserError(
            _("{id} is done, so there is nothing to resume.", id=record.id),
            next_step=_("To use it: %swift infer --adapters {path}", path=run.path),
        )
    run.folder.clear_requests()
    run.folder.write(
        dataclasses.replace(
            record,
            state=State.QUEUED,
            reason="",
            worker=None,
            launcher=identify(),
            resumed=record.resumed + 1,
            finished=0.0,
        )
    )
    RunIndex(settings).add(record.id, run.folder)
    _start_worker(run.folder)
    return run


def _start_worker(folder: RunFolder) -> None:
    """Start the worker in a session of its own.

    An interrupt, restart or shutdown of the kernel reaches its process group only,
    so a worker in another session lives on.
    """
    # A checkout that is not installed must be found, too; last, to shadow nothing.
    package_parent = str(Path(swift_jupyter.__file__).parents[1])
    program = (
        f"import sys; sys.path.append({package_parent!r}); "
        "from swift_jupyter.runs.worker import main; main()"
    )
    # A file such as `datasets.py` beside the notebook must not shadow a library.
    environment = {"GOMP_SPINCOUNT": _spin_count(), **os.environ, "PYTHONSAFEPATH": "1"}
    with folder.log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", program, str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            env=environment,
            close_fds=True,
        )
    folder.note_spawned(identify(process.pid) or ProcessIdentity(process.pid, "gone"))


def _spin_count() -> str:
    """Return how long idle OpenMP threads of the worker shall spin before they sleep.

    On a machine that others use, too, spinning threads hold the cores that their own
    siblings wait for, which halves the speed of a small model or worse; alone, a short
    spin is quicker than waking up.
    """
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.6 * (os.cpu_count() or 1)
    return "0" if busy else "5000"
