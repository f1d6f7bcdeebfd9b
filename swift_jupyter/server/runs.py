"""``GET runs`` and ``POST runs/<id>/stop``: no kernel takes part."""

from __future__ import annotations

import contextlib
from typing import Any

import tornado.web
from jupyter_server.auth.decorator import authorized

from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.index import list_runs
from swift_jupyter.server.base import PolledHandler, RequestError, SwiftHandler
from swift_jupyter.settings import load_settings


class RunsHandler(PolledHandler):
    """The runs that the state folder knows."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer ``{"runs": […]}``."""
        self.answer({"runs": await self.off_loop(_list)})


class StopRunHandler(SwiftHandler):
    """Asks a run to write a checkpoint and end."""

    @tornado.web.authenticated
    @authorized
    async def post(self, run_id: str) -> None:
        """Answer ``{"id": …, "state": …}`` with the state before the request, or 404 or 409."""
        state = await self.off_loop(lambda: _stop(run_id))
        self.set_status(202)
        self.answer({"id": run_id, "state": state})


def _list() -> list[dict[str, Any]]:
    found = []
    for run in list_runs(load_settings()):
        # A folder may be removed while the others are read.
        with contextlib.suppress(UserError):
            found.append(run.status().to_dict())
    return found


def _stop(run_id: str) -> str:
    # The id comes from outside: it is only ever compared with ids that were found.
    known = {run.id: run for run in list_runs(load_settings())}
    run = known.get(run_id)
    if run is None:
        raise RequestError(
            404, _("There is no run '{name}'.", name=run_id), did_you_mean(run_id, known)
        )
    state = run.state
    if not state.active:
        raise RequestError(
            409, _("The run {name} is not running; it is {state}.", name=run_id, state=state.value)
        )
    run.request_stop()
    return state.value
