"""Running the server: from its options to a listening socket, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from swift_jupyter.engine.inference.batching.engine import BatchEngine
from swift_jupyter.engine.inference.chat_model import ChatModel
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.hub.node.access import Guard, is_loopback
from swift_jupyter.hub.tokens import Secret
from swift_jupyter.i18n import translate as _

_BACKLOG = 256
_MAX_HEADER_BYTES = 32 << 10
_MAX_BODY_BYTES = 8 << 20
_IDLE_SECONDS = 75.0
_BODY_SECONDS = 30.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens and who may ask.

    Attributes
    ----------
    host, port : str, int
        The address; port 0 takes a free one.
    api_key : Secret or None
        What clients have to show.
    name : str
        What the model is called.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8001
    api_key: Secret | None = field(default=None, repr=False)


def check_exposure(host: str, api_key: Secret | None) -> None:
    """Refuse to serve other machines without a key.

    Raises
    ------
    OptionError
        When it would.
    """
    if not is_loopback(host) and api_key is None:
        raise OptionError(
            _("Other machines could reach {host} without a key.", host=host),
            next_step=_("Give --api_key TEXT, or leave --host away to serve this machine alone."),
        )


def bind(host: str, port: int) -> list[Any]:
    """Return listening sockets.

    Raises
    ------
    UserError
        When the port is taken or the address is not of this machine.
    """
    try:
        return list(bind_sockets(port, host or None, backlog=_BACKLOG))
    except (OSError, OverflowError) as error:
        raise UserError(
            _("The server cannot listen on {host}:{port}.", host=host, port=port),
            getattr(error, "strerror", None) or str(error),
            _("Give another port, for example --port {port}", port=port + 1),
        ) from None


def url_of(host: str, port: int) -> str:
    """Return the base URL that clients of this machine use."""
    everywhere = host in ("", "0.0.0.0", "::")
    shown = "127.0.0.1" if everywhere else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/v1"


def serve(
    model: ChatModel,
    engine: BatchEngine,
    options: ServerOptions,
    sockets: list[Any],
    ready: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Serve until told to stop, and return what was done.

    Parameters
    ----------
    model : ChatModel
        With its adapters.
    engine : BatchEngine
        Of this model; started and closed here.
    options : ServerOptions
        Who may ask.
    sockets : list of socket
        From `bind`.
    ready : callable
        Told the base URL once requests are answered.
    should_stop : callable
        Asked a few times a second.
    """
    engine.start()
    try:
        asyncio.run(_serve(model, engine, options, sockets, ready, should_stop))
    finally:
        engine.close()
    return {
        "prompt_tokens": engine.counts.prompt_tokens,
        "shared_tokens": engine.counts.shared_tokens,
        "generated_tokens": engine.counts.new_tokens,
        "answers": engine.counts.finished,
    }


async def _serve(
    model: ChatModel,
    engine: BatchEngine,
    options: ServerOptions,
    sockets: list[Any],
    ready: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> None:
    from swift_jupyter.engine.inference.server.app import make_app
    from swift_jupyter.engine.inference.server.metrics import Metrics
    from swift_jupyter.engine.inference.server.service import Service

    guard = Guard(options.api_key, is_loopback(options.host))
    app = make_app(Service(model, engine, options.name), guard, Metrics(engine))
    server = HTTPServer(
        app,
        max_header_size=_MAX_HEADER_BYTES,
        max_body_size=_MAX_BODY_BYTES,
        max_buffer_size=2 * _MAX_BODY_BYTES,
        idle_connection_timeout=_IDLE_SECONDS,
        body_timeout=_BODY_SECONDS,
    )
    server.add_sockets(sockets)
    port = int(sockets[0].getsockname()[1])
    try:
        with _quiet():
            ready(url_of(options.host, port))
            while not should_stop():
                await asyncio.sleep(_POLL_SECONDS)
    finally:
        server.stop()
        await server.close_all_connections()


class _NotMalformed(logging.Filter):
    """Leaves out what tornado says of malformed requests, which would fill the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR


@contextlib.contextmanager
def _quiet() -> Any:
    loggers = [logging.getLogger("tornado.general"), logging.getLogger("tornado.access")]
    only_errors = _NotMalformed()
    for logger in loggers:
        logger.addFilter(only_errors)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(only_errors)
