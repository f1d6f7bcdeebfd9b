"""The HTTP side: addresses, keys, streams and errors."""

from __future__ import annotations

import base64
import json
import logging
import struct
import time
from collections.abc import AsyncIterator
from typing import Any, cast

from tornado import web
from tornado.iostream import StreamClosedError

from swift_jupyter.engine.inference.batching.text import held_back
from swift_jupyter.engine.inference.server import metrics as metrics_module
from swift_jupyter.engine.inference.server.asks import (
    ChatAsk,
    CompletionAsk,
    parse_body,
    parse_chat,
    parse_completion,
    parse_embedding,
)
from swift_jupyter.engine.inference.server.bodies import Bodies
from swift_jupyter.engine.inference.server.errors import ApiError
from swift_jupyter.engine.inference.server.metrics import Metrics
from swift_jupyter.engine.inference.server.service import Piece, Service, Usage
from swift_jupyter.engine.inference.server.tools import OPENING, parse_calls
from swift_jupyter.hub.node.access import Guard
from swift_jupyter.hub.node.exchange import Exchange
from swift_jupyter.i18n import translate as _
from swift_jupyter.version import __version__

_log = logging.getLogger(__name__)


class _Handler(web.RequestHandler):
    """What all addresses have in common."""

    endpoint = ""
    guarded = True

    def initialize(self, service: Service, guard: Guard, metrics: Metrics) -> None:
        self.service = service
        self.guard = guard
        self.metrics = metrics
        self.started = time.perf_counter()
        self.gone = False

    def set_default_headers(self) -> None:
        self.set_header("Server", f"swift-jupyter/{__version__}")

    def prepare(self) -> None:
        if not self.guarded:
            return
        # The guard looks at the headers only.
        refusal = self.guard.refusal(cast(Exchange, self.request), None)
        if refusal is not None:
            status, _reason = refusal
            if status == 401:
                raise ApiError(
                    401,
                    _("The API key is missing or wrong."),
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            raise ApiError(status, _("This server serves its own machine only."))

    def on_connection_close(self) -> None:
        self.gone = True

    def on_finish(self) -> None:
        if self.endpoint:
            self.metrics.requests.labels(self.endpoint, str(self.get_status())).inc()
            self.metrics.seconds.labels(self.endpoint).observe(time.perf_counter() - self.started)

    def send_json(self, value: Any) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (kwargs.get("exc_info") or (None, None))[1]
        if not isinstance(error, ApiError):
            texts = {
                404: _("Nothing is here; the API begins with /v1/."),
                405: _("This address does not take this method."),
            }
            fallback = texts.get(status_code, _("The server failed; its log says why."))
            if 400 <= status_code < 500:
                fallback = texts.get(status_code, _("The request cannot be understood."))
            error = ApiError(status_code, fallback)
        self.set_status(error.status)
        for name, value in error.headers.items():
            self.set_header(name, value)
        self.send_json(error.body())
        self.finish()

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        error = (kwargs.get("exc_info") or (None, None))[1]
        super().send_error(error.status if isinstance(error, ApiError) else status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        if isinstance(value, (ApiError, StreamClosedError)):
            return
        if isinstance(value, web.HTTPError) and value.status_code < 500:
            return
        _log.error("%s %s", self.request.method, self.request.path, exc_info=(typ, value, tb))


class _Nothing(_Handler):
    def prepare(self) -> None:
        super().prepare()
        raise web.HTTPError(404)


class _Health(_Handler):
    guarded = False

    def get(self) -> None:
        self.send_json({"status": "ok"})


class _Metrics(_Handler):
    def get(self) -> None:
        self.set_header("Content-Type", metrics_module.CONTENT_TYPE)
        self.write(self.metrics.text())


class _Models(_Handler):
    endpoint = "models"

    def get(self, name: str | None = None) -> None:
        base = self.service.names[0]
        models = [
            {
                "id": known,
                "object": "model",
                "created": int(self.metrics.started),
                "owned_by": "swift-jupyter",
                "root": base,
                "parent": None if known == base else base,
                "max_model_len": self.service.engine.longest,
            }
            for known in self.service.names
        ]
        if name is None:
            self.send_json({"object": "list", "data": models})
            return
        found = [model for model in models if model["id"] == name]
        if not found:
            raise ApiError(
                404, _("The model '{model}' does not exist here.", model=name[:200]), "model",
                "model_not_found",
            )  # fmt: skip
        self.send_json(found[0])


class _Answers(_Handler):
    """Conversations and plain texts."""

    chat = False

    async def post(self) -> None:
        body = parse_body(self.request.body)
        ask: ChatAsk | CompletionAsk
        if self.chat:
            ask = parse_chat(body)
            self.service.check_name(ask.model)
            prompts = self.service.chat_prompt(ask)
        else:
            ask = parse_completion(body)
            self.service.check_name(ask.model)
            prompts = self.service.completion_prompts(ask.prompts)
        usage = Usage()
        pieces = self._timed(self.service.answer(ask, prompts, usage))
        bodies = Bodies(ask.model, self.chat)
        try:
            if ask.stream:
                await self._stream(ask, pieces, bodies, usage)
            else:
                await self._whole(ask, pieces, bodies, usage)
        finally:
            await pieces.aclose()

    async def _timed(self, pieces: AsyncIterator[Piece]) -> Any:
        first = True
        try:
            async for piece in pieces:
                if first:
                    self.metrics.first_token.observe(time.perf_counter() - self.started)
                    first = False
                yield piece
        finally:
            await cast(Any, pieces).aclose()

    async def _whole(self, ask: Any, pieces: Any, bodies: Bodies, usage: Usage) -> None:
        by_choice: dict[int, list[Piece]] = {}
        async for piece in pieces:
            by_choice.setdefault(piece.choice, []).append(piece)
            if self.gone:
                return
        choices = []
        for number, parts in sorted(by_choice.items()):
            text = "".join(part.text for part in parts)
            calls: list[dict[str, Any]] = []
            if getattr(ask, "tools", None):
                text, calls = parse_calls(text)
            choices.append(bodies.choice(number, parts, text, calls, ask.logprobs is not None))
        self.send_json(bodies.whole(choices, usage))

    async def _stream(self, ask: Any, pieces: Any, bodies: Bodies, usage: Usage) -> None:
        tools = bool(getattr(ask, "tools", None))
        readers: dict[int, ToolReader] = {}
        try:
            async for piece in pieces:
                if self.gone:
                    return
                if piece.choice not in readers:
                    readers[piece.choice] = ToolReader(tools)
                    if self.chat:
                        opening = {"role": "assistant", "content": ""}
                        await self._event(bodies.chunk([bodies.part(piece.choice, opening, "")]))
                for delta, reason in readers[piece.choice].take(piece):
                    logprobs = bodies.logprobs([piece]) if piece.token is not None else None
                    part = bodies.part(piece.choice, delta, reason, logprobs)
                    await self._event(bodies.chunk([part]))
        except ApiError as error:
            if not self._headers_written:
                raise
            await self._event(error.body())
            return
        except StreamClosedError:
            return
        if ask.include_usage:
            await self._event(bodies.chunk([], usage))
        self.write(b"data: [DONE]\n\n")
        await self.flush()

    async def _event(self, value: Any) -> None:
        if not self._headers_written:
            self.set_header("Content-Type", "text/event-stream; charset=utf-8")
            self.set_header("Cache-Control", "no-cache")
            self.set_header("X-Accel-Buffering", "no")
        text = json.dumps(value, ensure_ascii=False)
        self.write(b"data: " + text.encode("utf-8", "replace") + b"\n\n")
        await self.flush()


class _Chat(_Answers):
    endpoint = "chat"
    chat = True


class _Completions(_Answers):
    endpoint = "completions"


class ToolReader:
    """Turns pieces into deltas; from the first call of a tool on, text is held for the end.

    Parameters
    ----------
    on : bool
        Whether there are tools at all.
    """

    def __init__(self, on: bool) -> None:
        self._on = on
        self._held = ""

    def take(self, piece: Piece) -> list[tuple[dict[str, Any], str]]:
        """Return the deltas of a piece, each with a reason to finish or none."""
        if not self._on:
            return [
                ({"content": piece.text} if piece.text or piece.token else {}, piece.finish_reason)
            ]
        self._held += piece.text
        if piece.finish_reason:
            content, calls = parse_calls(self._held)
            deltas: list[tuple[dict[str, Any], str]] = []
            if content:
                deltas.append(({"content": content}, ""))
            if calls:
                numbered = [{"index": number, **call} for number, call in enumerate(calls)]
                deltas.append(({"tool_calls": numbered}, ""))
            return [*deltas, ({}, "tool_calls" if calls else piece.finish_reason)]
        place = self._held.find(OPENING)
        end = place if place >= 0 else len(self._held) - held_back(self._held, [OPENING])
        text, self._held = self._held[:end], self._held[end:]
        return [({"content": text}, "")] if text or piece.token else []


class _Embeddings(_Handler):
    endpoint = "embeddings"

    async def post(self) -> None:
        ask = parse_embedding(parse_body(self.request.body))
        usage = Usage()
        vectors = await self.service.embed(ask, usage)
        data = [
            {"object": "embedding", "index": number, "embedding": _encoded(vector, ask.base64)}
            for number, vector in enumerate(vectors)
        ]
        counted = usage.to_dict()
        del counted["completion_tokens"]
        self.send_json({"object": "list", "model": ask.model, "data": data, "usage": counted})


def _encoded(vector: list[float], as_base64: bool) -> Any:
    if not as_base64:
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def make_app(service: Service, guard: Guard, metrics: Metrics) -> web.Application:
    """Return tornado's application.

    Parameters
    ----------
    service : Service
        Answers.
    guard : Guard
        Decides who may ask.
    metrics : Metrics
        Counts.
    """
    given = {"service": service, "guard": guard, "metrics": metrics}
    return web.Application(
        [
            (r"/health", _Health, given),
            (r"/metrics", _Metrics, given),
            (r"/v1/models", _Models, given),
            (r"/v1/models/(.+)", _Models, given),
            (r"/v1/chat/completions", _Chat, given),
            (r"/v1/completions", _Completions, given),
            (r"/v1/embeddings", _Embeddings, given),
        ],
        default_handler_class=_Nothing,
        default_handler_args=given,
        log_function=lambda handler: None,
    )
