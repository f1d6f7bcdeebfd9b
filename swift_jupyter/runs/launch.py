"""Starting a worker for a run, and taking a run up again."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.folder import RunFolder, create_run_folder, discard_run_folder
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.process import ProcessIdentity, identify
from swift_jupyter.runs.record import RunRecord, State
from swift_jupyter.runs.run import Run
from swift_jupyter.runs.words import after_done
from swift_jupyter.settings import Settings, secret_variables

_LOCK_SECONDS = 5.0


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

    Raises
    ------
    UserError
        When the folder cannot be made or filled; nothing is left behind then.
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
            settings=dataclasses.asdict(settings.without_secrets()),
            created=time.time(),
            cwd=str(Path.cwd()),
        )
        folder.write(record)
        index.add(record.id, folder)
        _start_worker(folder, record.cwd, settings)
    except OSError as error:
        discard_run_folder(folder)
        raise UserError(
            _("No run can be started in {path}.", path=output_dir),
            error.strerror or str(error),
            _("Choose a folder with some room: --output_dir FOLDER"),
        ) from error
    except BaseException:
        discard_run_folder(folder)
        raise
    return Run(folder)


def resume(run: Run, settings: Settings) -> Run:
    """Take up a run that stopped, failed or was lost, from its last checkpoint.

    A run of another machine, whose process cannot be seen from here, is taken up when
    nobody holds its lock: notebooks in containers change their machine's name.

    Raises
    ------
    UserError
        When the run is still at work or already done, or its folder cannot be written.
    """
    from filelock import FileLock, Timeout

    _check_resumable(run)
    try:
        run.folder.lock_file.parent.mkdir(exist_ok=True)
        # A worker that has just told its end still holds the lock for a moment.
        with FileLock(run.folder.lock_file, timeout=_LOCK_SECONDS):
            _check_resumable(run)
            _requeue(run)
        RunIndex(settings).add(run.id, run.folder)
        _start_worker(run.folder, run.record().cwd, settings)
    except Timeout:
        raise _still_at_work(run) from None
    except OSError as error:
        raise UserError(
            _("{id} cannot be resumed.", id=run.id),
            f"{run.path}: {error.strerror or error}",
        ) from error
    return run


def _still_at_work(run: Run) -> UserError:
    return UserError(
        _("{id} is still at work ({state}).", id=run.id, state=run.state.value),
        next_step=_("To watch it: %swift runs attach {id}", id=run.id),
    )


def _check_resumable(run: Run) -> None:
    state = run.state
    if state.active and run.record().is_local:
        raise _still_at_work(run)
    if state is State.DONE:
        raise UserError(
            _("{id} is done, so there is nothing to resume.", id=run.id),
            next_step=after_done(run.record().command, run.path),
        )


def _requeue(run: Run) -> None:
    record = run.record()
    run.folder.clear_requests()
    run.folder.write(
        dataclasses.replace(
            record,
            state=State.QUEUED,
            reason="",
            host=socket.gethostname(),
            worker=None,
            launcher=identify(),
            resumed=record.resumed + 1,
            finished=0.0,
        )
    )


def _start_worker(folder: RunFolder, cwd: str, settings: Settings) -> None:
    """Start the worker in a session of its own, where the run was first launched.

    An interrupt, restart or shutdown of the kernel reaches its process group only,
    so a worker in another session lives on.
    """
    # A checkout that is not installed must be found, too; last, to shadow nothing.
    package_parent = str(Path(__file__).parents[2])
    program = (
        f"import sys; sys.path = [p for p in sys.path if p] + [{package_parent!r}]; "
        "from swift_jupyter.runs.worker import main; main()"
    )
    # A file such as `datasets.py` beside the notebook must not shadow a library. The
    # variable, known from Python 3.11 on, is for the worker's own children.
    # Tokens go the way on which every process finds settings, and never into a file.
    environment = {
        "GOMP_SPINCOUNT": _spin_count(),
        **os.environ,
        **secret_variables(settings),
        "PYTHONSAFEPATH": "1",
    }
    with folder.log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", program, str(folder.path)],
            cwd=cwd if cwd and Path(cwd).is_dir() else None,
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
