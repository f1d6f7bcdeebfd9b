"""The result of a mirror in the background: its run, and how clients find it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from swift_jupyter.commands.run_result import RunResult
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import RunProgress

_START_SECONDS = 60.0
_POLL_SECONDS = 0.1


class MirrorRun(RunResult):
    """A run of ``mirror serve`` or ``mirror sync --every``."""

    @property
    def url(self) -> str:
        """The address of the node; empty while it does not serve."""
        from swift_jupyter.hub.node.running import running_nodes

        record = self._run.record()
        if record.options.get("action") != "serve" or record.worker is None:
            return ""
        nodes = running_nodes(Path(record.options["root"]))
        found = [node["url"] for node in nodes if node["pid"] == record.worker.pid]
        return str(found[0]) if found else ""

    def wait_until_serving(self) -> None:
        """Wait until the node listens.

        Raises
        ------
        UserError
            When it does not, with the reason.
        """
        end = time.monotonic() + _START_SECONDS
        while not self.url:
            state = self._run.state
            if not state.active:
                what, _newline, rest = self._run.record().reason.partition("\n")
                raise UserError(what or self.last_words(), rest)
            if time.monotonic() > end:
                raise UserError(
                    _("The node has not begun to listen yet."),
                    next_step=_("Look at it: %swift runs logs {id}", id=self.id),
                )
            time.sleep(_POLL_SECONDS)

    def to_dict(self) -> dict[str, Any]:
        """Return the status, and the address where it serves."""
        return {**super().to_dict(), "url": self.url}

    def __repr__(self) -> str:
        return f"<mirror {self.id}: {self.state} {self.url}".rstrip() + ">"

    def next_steps(self) -> str:
        """Say how clients find it, and how it is stopped."""
        lines = []
        if self.url:
            from swift_jupyter.hub.node.status_page import exports

            asks_token = bool(self._run.record().options.get("asks_token"))
            for title, words in exports(self.url, asks_token):
                lines += [f"{title}:", *(f"    {word}" for word in words)]
            lines.append(_("Status page: {url}/", url=self.url))
        return "\n".join([*lines, super().next_steps()])

    def stopped(self, progress: RunProgress) -> Interrupted:
        """Return the error for a mirror that was stopped while a cell watched it."""
        return Interrupted(
            _("The mirror {id} was stopped.", id=self.id),
            _("What it holds is kept."),
            _("To start it again: %swift runs resume {id}", id=self.id),
            result=self,
        )

    def lost(self, progress: RunProgress) -> UserError:
        """Return the error for a mirror whose worker disappeared."""
        return UserError(
            _("The worker of {id} disappeared.", id=self.id),
            self.last_words(),
            _("To start it again: %swift runs resume {id}", id=self.id),
        )
