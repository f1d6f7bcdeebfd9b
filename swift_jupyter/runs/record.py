"""`run.json`: who does the work, for what, and how it stands."""

from __future__ import annotations

import dataclasses
import json
import socket
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.files import write_json_atomically
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.process import ProcessIdentity, is_alive
from swift_jupyter.settings import Settings


class State(str, Enum):
    """How a run stands."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"

    @property
    def active(self) -> bool:
        """Whether a process is, or should be, at work."""
        return self in (State.QUEUED, State.STARTING, State.RUNNING, State.STOPPING)


@dataclass(frozen=True)
class RunRecord:
    """The content of `run.json`.

    Attributes
    ----------
    id : str
        A short name, unique among the user's runs.
    command : str
        The subcommand whose work it is.
    state : State
        As its last writer saw it; `RunFolder.state` also looks at the process.
    reason : str
        Why it failed or stopped.
    host : str
        The machine; only there the process can be looked up.
    worker, launcher : ProcessIdentity or None
        The process that works, and the one that started it.
    options : dict
        What the job was asked to do, as JSON.
    settings : dict
        The settings in force when it was launched.
    versions : dict
        The versions of the libraries that did the work.
    created, started, finished : float
        Seconds since 1970; 0 when not yet.
    resumed : int
        How many times it was taken up again.
    cwd : str
        The folder in which relative paths of the options are meant.
    """

    id: str
    command: str
    state: State = State.QUEUED
    reason: str = ""
    title: str = ""
    host: str = field(default_factory=socket.gethostname)
    worker: ProcessIdentity | None = None
    launcher: ProcessIdentity | None = None
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    resumed: int = 0
    cwd: str = ""

    @property
    def is_local(self) -> bool:
        """Whether its processes would be on this machine."""
        return self.host == socket.gethostname()

    def read_settings(self) -> Settings:
        """Return the settings of the launch, without what this version does not know."""
        known = {f.name for f in dataclasses.fields(Settings)}
        return Settings(**{name: v for name, v in self.settings.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> RunRecord:
        """Build a record, ignoring fields that a newer version may have added.

        Raises
        ------
        ValueError, TypeError, KeyError
            When `value` is no record.
        """
        if not isinstance(value, dict):
            raise ValueError(_("it is not a JSON object"))
        known = {f.name for f in dataclasses.fields(cls)}
        values = {key: item for key, item in value.items() if key in known}
        for name in ("worker", "launcher"):
            if values.get(name):
                values[name] = ProcessIdentity.from_json(values[name])
        values["state"] = State(values.get("state", State.QUEUED))
        return cls(**values)

    def observed_state(self, spawned: ProcessIdentity | None = None) -> State:
        """Return the state, `lost` when the process that should work is gone.

        On another host the processes cannot be seen, so the stored state counts.

        Parameters
        ----------
        spawned : ProcessIdentity, optional
            The process that the launcher started, which counts until the worker
            has entered itself.
        """
        if not self.state.active or not self.is_local:
            return self.state
        responsible = self.worker or spawned or self.launcher
        if responsible is None or is_alive(responsible):
            return self.state
        return State.LOST


def read_record(path: Path) -> RunRecord:
    """Read `run.json`.

    Raises
    ------
    UserError
        When it is absent or broken.
    """
    try:
        return RunRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            _("{path} is not the folder of a run.", path=path.parent),
            _("Its run.json cannot be read: {error}", error=error),
            _("Type %swift runs to list the runs."),
        ) from None


def write_record(path: Path, record: RunRecord) -> None:
    """Replace `run.json` in one step."""
    write_json_atomically(path, record.to_json())
