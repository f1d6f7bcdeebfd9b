"""Running a node: from its options to a listening server, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from swift_jupyter.errors import UserError
from swift_jupyter.files import existing_parent
from swift_jupyter.hub.http.client import Client, Limits
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.node.access import Guard, check_exposure, is_loopback
from swift_jupyter.hub.node.access_log import AccessLog
from swift_jupyter.hub.node.app import Node
from swift_jupyter.hub.node.exchange import Server
from swift_jupyter.hub.node.filling import Filler
from swift_jupyter.hub.node.holdings import Holdings
from swift_jupyter.hub.node.library import Library
from swift_jupyter.hub.node.pieces import piece_hashes
from swift_jupyter.hub.node.running import announced
from swift_jupyter.hub.node.sending import Sender
from swift_jupyter.hub.node.serving import ByteServer
from swift_jupyter.hub.node.stats import Stats
from swift_jupyter.hub.node.status_page import status_page
from swift_jupyter.hub.node.upstream import Upstream, upstream_endpoints
from swift_jupyter.hub.store.store import Store
from swift_jupyter.hub.tokens import Secret
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings
from swift_jupyter.version import __version__

DEFAULT_PORT = 8970
_BACKLOG = 1024
_MAX_HEADER_BYTES = 32 << 10
_MAX_BODY_BYTES = 1 << 20
_IDLE_SECONDS = 75.0
_BODY_SECONDS = 15.0
_SAVE_SECONDS = 30.0
_POLL_SECONDS = 0.3
_GRACE_SECONDS = 3.0
_HOLDINGS_SECONDS = 5.0
_UPSTREAM_CONNECTIONS = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeOptions:
    """How a node is run.

    Attributes
    ----------
    root : Path
        The folder of its store.
    host, port : str, int
        Where it listens; port 0 takes a free one.
    token : Secret or None
        What clients have to show.
    is_open : bool
        Whether others may ask without a token.
    tls_cert, tls_key : Path or None
        A certificate and its key.
    on_demand : bool
        Whether it fetches what it does not hold.
    upstream : tuple of str
        From where; empty means the user's own order of hubs and mirrors.
    """

    root: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: Secret | None = field(default=None, repr=False)
    is_open: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    on_demand: bool = False
    upstream: tuple[str, ...] = ()

    @property
    def state_folder(self) -> Path:
        """Where the node keeps what is its own: counts, logs, its token."""
        return self.root / "node"


def serve(
    options: NodeOptions,
    settings: Settings,
    environ: Mapping[str, str],
    ready: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Serve until told to stop, and return what was done.

    Parameters
    ----------
    options : NodeOptions
        How.
    settings, environ
        Name upstream addresses and tokens.
    ready : callable
        Told the address once the node listens.
    should_stop : callable
        Asked a few times a second; in the main thread, SIGINT and SIGTERM count, too.

    Raises
    ------
    UserError
        When the port is taken, the certificate is wrong, or the folder cannot be written.
    """
    check_exposure(options.host, options.token, options.is_open)
    tls = _tls_context(options)
    _make_folder(options.state_folder)
    sockets = _bind(options)
    port = int(sockets[0].getsockname()[1])
    try:
        endpoints = []
        if options.on_demand:
            own = _own_names(options.host, port)
            endpoints = upstream_endpoints(options.upstream, settings, environ, own)
    except BaseException:
        for socket in sockets:
            socket.close()
        raise
    scheme = "https" if tls else "http"
    address = f"{scheme}://{_shown_host(options.host)}:{port}"
    _raise_file_limit()
    client = Client(
        environ, limits=Limits(first_byte=20.0, stall=5.0), connections=_UPSTREAM_CONNECTIONS
    )
    try:
        asks_token = options.token is not None
        here = announced(options.root, port, url=address, asks_token=asks_token)
        with _logging(), here:
            upstream = Upstream(endpoints, client) if options.on_demand else None
            running = _Running(options, upstream)
            return asyncio.run(running.run(sockets, tls, lambda: ready(address), should_stop))
    finally:
        client.close()


class _Running:
    """The parts of one node, put together."""

    def __init__(self, options: NodeOptions, upstream: Upstream | None) -> None:
        self._options = options
        self._upstream = upstream
        self._store = Store(options.root)
        self._stats = Stats(options.state_folder / "stats.json")
        self._holdings = Holdings(self._store)
        self._filler: Filler | None = None
        self._background = ThreadPoolExecutor(1, thread_name_prefix="node-hashing")
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="node-status")
        self._hashing: dict[str, asyncio.Future[list[str] | None]] = {}
        self._stopping = threading.Event()

    async def run(
        self,
        sockets: list[Any],
        tls: ssl.SSLContext | None,
        ready: Callable[[], None],
        should_stop: Callable[[], bool],
    ) -> dict[str, Any]:
        library = Library(self._store, self._upstream)
        sender = Sender()
        if self._upstream is not None:
            self._filler = Filler(self._store, self._upstream, self._count_fetched)
        access_log = AccessLog(self._options.state_folder / "access.log")
        local_only = is_loopback(self._options.host) and not self._options.is_open
        node = Node(
            Guard(self._options.token, local_only),
            library,
            ByteServer(library, sender, self._filler, self._stats),
            self._stats,
            access_log,
            self._status,
            status_page,
            self._hash_pieces,
        )
        server = HTTPServer(
            Server(node.handle),
            ssl_options=tls,
            max_header_size=_MAX_HEADER_BYTES,
            max_body_size=_MAX_BODY_BYTES,
            max_buffer_size=2 * _MAX_BODY_BYTES,
            idle_connection_timeout=_IDLE_SECONDS,
            body_timeout=_BODY_SECONDS,
        )
        server.add_sockets(sockets)
        try:
            with _signals() as signalled:
                ready()
                await self._wait(lambda: signalled.is_set() or should_stop())
        finally:
            server.stop()
            self._stopping.set()
            if self._filler is not None:
                self._filler.close()
            await self._let_finish()
            await server.close_all_connections()
            library.close()
            sender.close()
            self._stats.save()
            access_log.close()
            for pool in (self._background, self._looking):
                pool.shutdown(wait=False, cancel_futures=True)
        return {**asdict(self._stats.totals), "bytes_saved": self._stats.totals.bytes_saved}

    async def _wait(self, is_over: Callable[[], bool]) -> None:
        saved = time.monotonic()
        while not is_over():
            await asyncio.sleep(_POLL_SECONDS)
            if time.monotonic() - saved > _SAVE_SECONDS:
                saved = time.monotonic()
                self._stats.save()

    async def _let_finish(self) -> None:
        """Give short transfers the time to end."""
        end = time.monotonic() + _GRACE_SECONDS
        while self._stats.active and time.monotonic() < end:
            await asyncio.sleep(0.05)

    def _count_fetched(self, file: RemoteFile, count: int) -> None:
        self._stats.totals.fills += 1
        self._stats.totals.bytes_fetched += count

    async def _status(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        held = await loop.run_in_executor(self._looking, self._holdings.all, _HOLDINGS_SECONDS)
        fills = self._filler.active if self._filler else []
        endpoints = self._upstream.endpoints if self._upstream else ()
        return {
            "version": __version__,
            "root": str(self._options.root),
            "on_demand": self._options.on_demand,
            "asks_token": self._options.token is not None,
            "upstream": list(dict.fromkeys(end.name for end in endpoints)),
            "bytes_held": self._holdings.distinct_bytes,
            "bytes_free": shutil.disk_usage(existing_parent(self._options.root)).free,
            "held": [holding.to_dict() for holding in held],
            "filling": [
                {
                    "path": fill.file.path,
                    "done": fill.frontier,
                    "total": fill.file.size,
                    "source": fill.source,
                }
                for fill in fills
            ],
            **self._stats.to_dict(),
        }

    async def _hash_pieces(self, sha256: str) -> list[str] | None:
        future = self._hashing.get(sha256)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._background, self._read_pieces, sha256)
            self._hashing[sha256] = future
            future.add_done_callback(lambda _done: self._hashing.pop(sha256, None))
        return await asyncio.shield(future)

    def _read_pieces(self, sha256: str) -> list[str] | None:
        path = self._store.find(sha256)
        if path is None:
            return None
        hashes = piece_hashes(path, sha256, self._options.state_folder / "pieces", self._check)
        if hashes is None and path == self._store.object_path(sha256):
            self._store.reject(sha256)
        return hashes

    def _check(self) -> None:
        if self._stopping.is_set():
            raise UserError(_("The node is stopping."))


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Set the event on SIGINT and SIGTERM, where this is the main thread."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    taken = []
    if threading.current_thread() is threading.main_thread() and sys.platform != "win32":
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            loop.add_signal_handler(number, event.set)
            taken.append((number, before))
    try:
        yield event
    finally:
        for number, before in taken:
            loop.remove_signal_handler(number)
            signal.signal(number, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Write warnings of the node, and what it did about upstream, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("swift_jupyter.hub.node")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _tls_context(options: NodeOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None:
        raise UserError(
            _("A key alone is not enough for TLS."), next_step=_("Give --tls_cert FILE, too.")
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            _("The certificate {path} cannot be used.", path=options.tls_cert),
            error.strerror or str(error),
            _("It is a PEM file; the key is in it or in --tls_key FILE."),
        ) from None
    return context


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            _("The node cannot use the folder {path}.", path=folder),
            error.strerror or str(error),
            _("Give another one: --root FOLDER"),
        ) from None


def _bind(options: NodeOptions) -> list[Any]:
    try:
        return list(bind_sockets(options.port, options.host or None, backlog=_BACKLOG))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            _("The node cannot listen on {host}:{port}.", host=options.host, port=options.port),
            reason,
            _("Give another port, for example --port {port}", port=options.port + 1),
        ) from None


def _own_names(host: str, port: int) -> list[str]:
    import socket

    names = {"localhost", "127.0.0.1", "[::1]", socket.gethostname(), host}
    return [f"{name}:{port}" for name in names]


def _shown_host(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        import socket

        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _raise_file_limit() -> None:
    """Let many clients in: each transfer holds two files and a socket open."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
