"""``GET env``: which Python the server runs in, as it may differ from a kernel's."""

from __future__ import annotations

import sys

import tornado.web
from jupyter_server.auth.decorator import authorized

from swift_jupyter.server.base import SwiftHandler
from swift_jupyter.version import __version__


class EnvironmentHandler(SwiftHandler):
    """The interpreter and the version of this package in it."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer ``{"python": …, "version": …}``."""
        self.answer({"python": sys.executable, "version": __version__})
