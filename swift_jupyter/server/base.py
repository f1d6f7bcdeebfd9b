"""What all handlers share: authorisation, work off the event loop, errors as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from jupyter_server.base.handlers import APIHandler
from tornado.ioloop import IOLoop
from tornado.web import HTTPError

from swift_jupyter.errors import UserError

Result = TypeVar("Result")


class RequestError(HTTPError):
    """A request that cannot be served, in words for a person.

    Parameters
    ----------
    status_code : int
        The HTTP status.
    message : str
        What happened.
    why : str, optional
        The cause and what to do about it.

    Notes
    -----
    The words are kept out of `HTTPError.reason`, which goes into the status
    line and so may hold neither line breaks nor letters outside Latin-1.
    """

    def __init__(self, status_code: int, message: str, why: str = "") -> None:
        super().__init__(status_code)
        self.message = message
        self.why = why

    def __str__(self) -> str:
        return f"{super().__str__()} ({self.message})"


class SwiftHandler(APIHandler):
    """Base of the handlers under ``swift-jupyter/``."""

    auth_resource = "swift_jupyter"

    async def off_loop(self, work: Callable[[], Result]) -> Result:
        """Run `work`, which reads or writes files, in a thread.

        Raises
        ------
        RequestError
            With status 500 when `work` raises a `UserError` or `OSError`.
        """
        try:
            return await IOLoop.current().run_in_executor(None, work)
        except UserError as error:
            rest = " ".join(error.lines[1:])
            raise RequestError(500, error.what, rest) from error
        except OSError as error:
            raise RequestError(500, str(error)) from error

    def answer(self, content: Any) -> None:
        """Finish with `content` as JSON."""
        self.finish(json.dumps(_finite(content), ensure_ascii=False, allow_nan=False))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer ``{"message": …, "reason": …}``."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if not isinstance(error, RequestError):
            super().write_error(status_code, **kwargs)
            return
        self.answer({"message": error.message, "reason": error.why})


class PolledHandler(SwiftHandler):
    """A handler that is asked again and again, which is no activity of the user.

    A server that is culled when idle would otherwise live as long as its tab.
    """

    _track_activity = False


def _finite(content: Any) -> Any:
    """Write numbers that JSON does not have, such as a diverged loss, as text."""
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
