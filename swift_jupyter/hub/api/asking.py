"""One question to a hub's API: credentials, patience, and a second try without a refused token."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

from swift_jupyter.hub.api.base import Endpoint
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.http.errors import HttpError

_PAUSES = (0.3, 1.0)
_LONGEST_PAUSE = 5.0


class Asker:
    """Asks one address for JSON.

    Parameters
    ----------
    endpoint : Endpoint
        Who is asked.
    client : Client
        The connections.
    deadline : float
        Seconds that all questions together may take.
    """

    def __init__(self, endpoint: Endpoint, client: Client, deadline: float) -> None:
        self.endpoint = endpoint
        self._client = client
        self._until = time.monotonic() + deadline
        self._anonymous = endpoint.token is None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that this address may see, credentials included."""
        if not self._anonymous and self.endpoint.token:
            token = self.endpoint.token.reveal()
            headers = {"Authorization": f"Bearer {token}"}
            if self.endpoint.hub == "modelscope":
                headers["Cookie"] = f"m_session_id={token}"
            return headers
        if self.endpoint.login:
            login = base64.b64encode(self.endpoint.login.reveal().encode()).decode()
            return {"Authorization": f"Basic {login}"}
        return {}

    def ask(
        self, url: str, object_hook: Callable[[dict[str, Any]], Any] | None = None
    ) -> tuple[Any, Mapping[str, str]]:
        """Return the JSON value of an answer and its headers.

        A token that is refused must not keep a user from what everybody may
        see: an expired login is common. So the question is asked once more
        without it, and if that fails as well, the first answer counts.

        Raises
        ------
        HttpError
            When there is no good answer.
        """
        try:
            return self._ask_patiently(url, object_hook)
        except HttpError as error:
            if error.status not in (401, 403) or self._anonymous:
                raise
            self._anonymous = True
            try:
                return self._ask_patiently(url, object_hook)
            except HttpError:
                self._anonymous = False
                raise error from None

    def _ask_patiently(
        self, url: str, object_hook: Callable[[dict[str, Any]], Any] | None
    ) -> tuple[Any, Mapping[str, str]]:
        for pause in _PAUSES:
            try:
                return self._ask_once(url, object_hook)
            except HttpError as error:
                if not _passes(error):
                    raise
                wait = pause if error.retry_after is None else error.retry_after
                if wait > min(_LONGEST_PAUSE, self._until - time.monotonic()):
                    raise
                time.sleep(wait)
        return self._ask_once(url, object_hook)

    def _ask_once(
        self, url: str, object_hook: Callable[[dict[str, Any]], Any] | None
    ) -> tuple[Any, Mapping[str, str]]:
        left = max(0.1, self._until - time.monotonic())
        return self._client.read_json(url, self.headers, deadline=left, object_hook=object_hook)


def _passes(error: HttpError) -> bool:
    if error.kind == "status":
        return error.status in (408, 425, 429) or (error.status or 0) >= 500
    return error.kind == "reset"
