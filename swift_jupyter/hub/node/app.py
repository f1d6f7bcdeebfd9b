"""The node's answers: from a request to the shelf it means and the protocol it speaks."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from swift_jupyter.files import encode_json
from swift_jupyter.hub.listing import SHA256
from swift_jupyter.hub.node import huggingface, modelscope
from swift_jupyter.hub.node.access import Guard
from swift_jupyter.hub.node.access_log import AccessLog
from swift_jupyter.hub.node.addresses import BadTarget, Target, parse_target
from swift_jupyter.hub.node.exchange import ClientGone, Exchange
from swift_jupyter.hub.node.library import Library, Missing, NotHere, Shelf
from swift_jupyter.hub.node.pieces import PIECE_SIZE
from swift_jupyter.hub.node.serving import ByteServer, patiently
from swift_jupyter.hub.node.stats import Stats
from swift_jupyter.i18n import translate as _

_STATUS: dict[Missing, int] = {
    "repo": 404,
    "revision": 404,
    "file": 404,
    "denied": 403,
    "unreachable": 502,
}
_MOST_PATHS = 10_000
_LONG_LISTING = 2_000
_log = logging.getLogger(__name__)


class Node:
    """Answers every request of a node; belongs to one event loop.

    Parameters
    ----------
    guard : Guard
        Who may ask.
    library : Library
        What is there.
    byte_server : ByteServer
        Gives the bytes.
    stats : Stats
        Counts.
    access_log : AccessLog
        Remembers.
    status : callable
        Returns what the status page shows.
    page : callable
        Turns that into HTML; told the address under which the client sees the node.
    hash_pieces : callable
        Returns the hashes of an object's pieces, None when there is no such object.
    """

    def __init__(
        self,
        guard: Guard,
        library: Library,
        byte_server: ByteServer,
        stats: Stats,
        access_log: AccessLog,
        status: Callable[[], Awaitable[dict[str, Any]]],
        page: Callable[[dict[str, Any], str], str],
        hash_pieces: Callable[[str], Awaitable[list[str] | None]],
    ) -> None:
        self._guard = guard
        self._library = library
        self._byte_server = byte_server
        self._stats = stats
        self._access_log = access_log
        self._status = status
        self._page = page
        self._hash_pieces = hash_pieces
        self._answers: dict[str, Callable[[Exchange, Target], Awaitable[None]]] = {
            "home": self._home,
            "health": self._health,
            "status": self._status_json,
            "pieces": self._pieces,
            "region": self._region,
            "info": self._info,
            "revisions": self._revisions,
            "files": self._files,
            "bytes": self._bytes,
            "hf_info": self._hf_info,
            "hf_tree": self._hf_tree,
            "hf_paths_info": self._hf_paths_info,
            "hf_refs": self._hf_refs,
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answer a request.

        Raises
        ------
        ClientGone
            When the connection has to be closed.
        """
        try:
            await self._answer(exchange)
        except ClientGone:
            exchange.note = exchange.note or "gone"
            raise
        except asyncio.CancelledError:
            raise ClientGone from None
        except Exception:
            _log.exception("%s %s", exchange.method, exchange.uri.partition("?")[0])
            if exchange.status:
                raise ClientGone from None  # The head is out, so only breaking off is honest.
            await exchange.respond_json(500, {"error": _("the node failed; its log says why")})
        finally:
            self._stats.count(exchange)
            self._access_log.write(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            target = parse_target(exchange.uri)
        except BadTarget:
            await exchange.respond_json(400, {"error": _("this address makes no sense")})
            return
        allowed: tuple[str, ...] = ("GET", "HEAD")
        if target is not None and target.action == "hf_paths_info":
            allowed = ("POST",)
        if target is not None and target.action == "health" and exchange.method in allowed:
            await self._health(exchange, target)
            return
        token = target.query.get("token") if target and target.action == "home" else None
        refusal = self._guard.refusal(exchange, token)
        if refusal is not None:
            await self._refuse(exchange, *refusal)
        elif exchange.method not in allowed:
            headers = {"Allow": ", ".join(allowed)}
            await exchange.respond_json(405, {"error": _("nodes are read-only")}, headers)
        elif target is None:
            await exchange.respond_json(404, {"error": _("nothing is here")})
        else:
            await self._answer_target(exchange, target)

    async def _refuse(self, exchange: Exchange, status: int, reason: str) -> None:
        headers = {"X-Error-Message": reason}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
            # By these words Hugging Face's client knows a wrong token from a hidden repository.
            headers["X-Error-Message"] = "Invalid credentials in Authorization header"
        body = {**modelscope.refusal(status, reason), "error": reason}
        await exchange.respond_json(status, body, headers)

    async def _answer_target(self, exchange: Exchange, target: Target) -> None:
        try:
            await self._answers[target.action](exchange, target)
        except NotHere as problem:
            status = _STATUS[problem.missing]
            if target.hub == "huggingface":
                body, headers = huggingface.refusal(problem.missing, problem.reason)
            else:
                body, headers = modelscope.refusal(status, problem.reason), {}
            await exchange.respond_json(status, body, headers)

    async def _find(self, exchange: Exchange, target: Target) -> Shelf:
        return await patiently(exchange, self._library.find(target))

    async def _home(self, exchange: Exchange, target: Target) -> None:
        host = exchange.headers.get("Host", "") or "127.0.0.1"
        address = f"{'https' if exchange.secure else 'http'}://{host}"
        page = self._page(await self._status(), address)
        headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "SAMEORIGIN",
        }
        await exchange.respond(200, page.encode(), "text/html; charset=utf-8", headers)

    async def _health(self, exchange: Exchange, target: Target) -> None:
        await exchange.respond_json(200, {"status": "ok"})

    async def _status_json(self, exchange: Exchange, target: Target) -> None:
        await exchange.respond_json(200, await self._status(), {"Cache-Control": "no-store"})

    async def _pieces(self, exchange: Exchange, target: Target) -> None:
        hashes = None
        if SHA256.fullmatch(target.path):
            hashes = await patiently(exchange, self._hash_pieces(target.path))
        if hashes is None:
            await exchange.respond_json(404, {"error": _("this node does not hold it")})
            return
        await exchange.respond_json(200, {"piece_size": PIECE_SIZE, "sha256": hashes})

    async def _region(self, exchange: Exchange, target: Target) -> None:
        await exchange.respond_json(200, modelscope.region())

    async def _info(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        repo_id = shelf.names.at("modelscope")
        number = self._library.number(target.kind, repo_id)
        await self._tell(exchange, shelf, lambda: modelscope.info(shelf, repo_id, number))

    async def _revisions(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        names = await self._library.revisions(target)
        await self._tell(exchange, shelf, lambda: modelscope.revisions(names))

    async def _files(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        await self._tell(exchange, shelf, lambda: modelscope.files(shelf, target))

    async def _hf_info(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        with_sizes = "blobs=true" in exchange.uri.lower()
        make = functools.partial(huggingface.info, shelf, target.repo_id, with_sizes)
        await self._tell(exchange, shelf, make)

    async def _hf_tree(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        recursive = bool(re.search(r"[?&]recursive=(true|1)\b", exchange.uri, re.IGNORECASE))
        make = functools.partial(huggingface.tree, shelf, target.path, recursive)
        await self._tell(exchange, shelf, make)

    async def _hf_paths_info(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        try:
            form = parse_qs(exchange.body.decode(), max_num_fields=_MOST_PATHS)
        except ValueError:
            await exchange.respond_json(400, {"error": _("this form makes no sense")})
            return
        make = functools.partial(huggingface.paths_info, shelf, form.get("paths", []))
        await self._tell(exchange, shelf, make)

    async def _hf_refs(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        names = await self._library.revisions(target)
        await self._tell(exchange, shelf, lambda: huggingface.refs(shelf, names))

    async def _bytes(self, exchange: Exchange, target: Target) -> None:
        shelf = await self._find(exchange, target)
        file = shelf.files.get(target.path)
        if file is None:
            raise NotHere("file", _("there is no {file}", file=target.path))
        headers = _age(shelf)
        if target.hub == "huggingface":
            etag = huggingface.etag(file, shelf)
            headers.update(huggingface.byte_headers(file, shelf))
        else:
            etag = modelscope.etag(file, shelf)
            headers.update(modelscope.byte_headers(file))
        await self._byte_server.serve(exchange, shelf, file, etag, headers)

    async def _tell(self, exchange: Exchange, shelf: Shelf, make: Callable[[], Any]) -> None:
        """Answer with what `make` returns; a long listing does not keep the others waiting."""
        if len(shelf.files) < _LONG_LISTING:
            body = encode_json(make())
        else:
            body = await asyncio.get_running_loop().run_in_executor(
                None, lambda: encode_json(make())
            )
        await exchange.respond(200, body, headers=_age(shelf))


def _age(shelf: Shelf) -> dict[str, str]:
    """Return the header that says that upstream could not be asked."""
    if not shelf.stale:
        return {}
    seconds = round(time.monotonic() - shelf.checked)
    return {"X-Node-Stale": f"{shelf.stale}; asked {seconds} s ago"[:300]}
