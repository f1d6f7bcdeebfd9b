"""The result of a download in the background, and what a finished one gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swift_jupyter.commands.results import Facts, Result, Table
from swift_jupyter.commands.run_result import RunResult
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.hub.lock_file import LOCK_FILE
from swift_jupyter.hub.snapshot import Snapshot, size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress


class DownloadRun(RunResult):
    """A download that is a run."""

    @property
    def snapshots(self) -> list[Snapshot]:
        """What is there; empty before the end."""
        found = self._run.result().get("snapshots", ())
        return [Snapshot.from_dict(snapshot) for snapshot in found]

    def __repr__(self) -> str:
        status = self._run.status()
        detail = f", {status.detail}" if status.detail else ""
        return f"<download {status.id} of {status.title}: {status.state}{detail}>"

    def finished(self) -> Result:
        """Return where everything is."""
        lock = self.path / LOCK_FILE
        return summary(self.snapshots, lock if lock.exists() else None)

    def stopped(self, progress: RunProgress) -> Interrupted:
        """Return the error for a download that was stopped."""
        how = _("killed") if progress.record.reason == "killed" else _("stopped")
        known = progress.download
        there = size_text(known.done_bytes) if known is not None else ""
        return Interrupted(
            _("The download {id} was {how}.", id=self.id, how=how),
            _("What has arrived is kept: {size}.", size=there) if there else "",
            _("The same command goes on from there, or: %swift runs resume {id}", id=self.id),
            result=self,
        )

    def lost(self, progress: RunProgress) -> UserError:
        """Return the error for a download whose worker disappeared."""
        return UserError(
            _("The worker of {id} disappeared.", id=self.id),
            self.last_words(),
            _("The same command goes on from there, or: %swift runs resume {id}", id=self.id),
        )


def summary(snapshots: Sequence[Snapshot], lock: Path | None = None) -> Result:
    """Return facts about one snapshot, or a table of several.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        What was pulled.
    lock : Path, optional
        The lock file that brings exactly the same again.
    """
    return _facts(snapshots[0], lock) if len(snapshots) == 1 else _table(snapshots, lock)


def _facts(snapshot: Snapshot, lock: Path | None) -> Facts:
    facts = {
        _("source"): snapshot.source,
        _("size"): size_text(snapshot.size_bytes),
        _("folder"): str(snapshot.path),
    }
    if lock is not None:
        facts[_("lock file")] = str(lock)
    notes = list(snapshot.notices)
    if snapshot.kind == "model":
        notes.append(_("Chat with it: %%swift infer --model {id}", id=snapshot.repo_id))
    data = {**snapshot.to_dict(), "path": snapshot.path, "lock": lock and str(lock)}
    return Facts(snapshot.repo_id, facts, data, "\n".join(notes))


def _table(snapshots: Sequence[Snapshot], lock: Path | None) -> Table:
    rows = [
        {
            "name": snapshot.repo_id,
            "source": snapshot.source,
            "size": size_text(snapshot.size_bytes),
            "folder": str(snapshot.path),
        }
        for snapshot in snapshots
    ]
    notes = [f"{snapshot.repo_id}: {text}" for snapshot in snapshots for text in snapshot.notices]
    if lock is not None:
        notes.append(_("Lock file: {path}", path=lock))
    data = {"lock": lock and str(lock)}
    return Table(("name", "source", "size", "folder"), rows, note="\n".join(notes), data=data)
