"""Where the user's runs are: one small file per run, active and finished apart.

The folder of a run may be anywhere; the index finds it again from any kernel.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from pathlib import Path

from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.files import write_json_atomically
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.folder import RunFolder
from swift_jupyter.runs.run import Run
from swift_jupyter.settings import Settings


class RunIndex:
    """The list of runs below `settings.state_path`.

    Parameters
    ----------
    settings : Settings
        Names the folder of the index.
    """

    def __init__(self, settings: Settings) -> None:
        self._active = settings.state_path / "runs" / "active"
        self._finished = settings.state_path / "runs" / "finished"

    def new_id(self, command: str) -> str:
        """Return an id that no run has yet, such as ``sft-3fa2``."""
        while True:
            run_id = f"{command}-{secrets.token_hex(2)}"
            if self._entry(run_id) is None:
                return run_id

    def add(self, run_id: str, folder: RunFolder) -> None:
        """Enter a run as active."""
        self._active.mkdir(parents=True, exist_ok=True)
        write_json_atomically(self._active / f"{run_id}.json", {"path": str(folder.path)})
        (self._finished / f"{run_id}.json").unlink(missing_ok=True)

    def finish(self, run_id: str) -> None:
        """Move a run from the active to the finished ones."""
        self._finished.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (self._active / f"{run_id}.json").replace(self._finished / f"{run_id}.json")

    def active(self) -> list[Run]:
        """Return the runs that were active when last seen, the newest first."""
        return self._runs(self._active)

    def all(self) -> list[Run]:
        """Return every run whose folder still exists, the newest first."""
        runs = self._runs(self._active) + self._runs(self._finished)
        return sorted(runs, key=lambda run: run.record().created, reverse=True)

    def find(self, name: str) -> Run:
        """Return a run by its id, the beginning of its id, or its folder.

        Raises
        ------
        UserError
            When nothing or more than one thing fits.
        """
        entry = self._entry(name)
        if entry is not None and (run := _open(entry)) is not None:
            return run
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # No path at all.
            folder = Path(name).expanduser().absolute()
            if name and (folder / "run.json").is_file():
                return Run(RunFolder(folder))
        runs = {run.id: run for run in self.all()}
        found = [run for run_id, run in runs.items() if name and run_id.startswith(name)]
        if len(found) == 1:
            return found[0]
        raise UserError(
            _("There is no run '{name}'.", name=name),
            did_you_mean(name, runs),
            _("Type %swift runs to list the runs."),
        )

    def _entry(self, run_id: str) -> Path | None:
        if not run_id or Path(run_id).name != run_id:
            return None
        for folder in (self._active, self._finished):
            if (folder / f"{run_id}.json").is_file():
                return folder / f"{run_id}.json"
        return None

    def _runs(self, folder: Path) -> list[Run]:
        runs = [run for entry in folder.glob("*.json") if (run := _open(entry)) is not None]
        return sorted(runs, key=lambda run: run.record().created, reverse=True)


def _open(entry: Path) -> Run | None:
    """Return the run of an entry; None when its folder is gone or unreadable."""
    try:
        run = Run(RunFolder(Path(json.loads(entry.read_text(encoding="utf-8"))["path"])))
        run.record()
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    return run


def list_runs(settings: Settings) -> list[Run]:
    """Return every run of the user, the newest first."""
    return RunIndex(settings).all()


def find_run(name: str, settings: Settings) -> Run:
    """Return one run; see `RunIndex.find`."""
    return RunIndex(settings).find(name)
