"""The result of ``deploy``: its run, how clients find it, and a way to ask it at once."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swift_jupyter.commands.run_result import RunResult
from swift_jupyter.engine.inference.protocol import Answer, conversation
from swift_jupyter.errors import Interrupted, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.runs.progress import ProgressReader, RunProgress

_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 600.0
_LOG_LINES = 8


class DeployRun(RunResult):
    """A server in the background."""

    @property
    def url(self) -> str:
        """The base URL for clients, such as ``http://127.0.0.1:8001/v1``; empty before."""
        from swift_jupyter.hub.node.running import running_nodes

        record = self._run.record()
        if record.worker is None or not self._run.state.active:
            return ""
        nodes = running_nodes(Path(self._run.path))
        return next((str(n["url"]) for n in nodes if n["pid"] == record.worker.pid), "")

    @property
    def model(self) -> str:
        """What clients call the model."""
        return str(self._run.record().options["name"])

    @property
    def models(self) -> list[str]:
        """The model and the adapters, as clients call them."""
        adapters = self._run.record().options["adapters"]
        return [self.model, *(name for name, _path in adapters)]

    def wait_until_serving(self, tell: Callable[..., None] = lambda *_texts: None) -> None:
        """Wait until the server answers.

        Parameters
        ----------
        tell : callable
            Told what it does now.

        Raises
        ------
        UserError
            When it ends before, with its last words.
        """
        reader = ProgressReader(self._run)
        while not self.url:
            progress = reader.read()
            if not progress.state.active:
                self._raise_end(progress)
            if progress.phase:
                tell(progress.phase)
            time.sleep(_POLL_SECONDS)

    def _raise_end(self, progress: RunProgress) -> None:
        what, _newline, rest = progress.record.reason.partition("\n")
        why, _newline, next_step = rest.partition("\n")
        if what:
            raise UserError(what, why, next_step)
        tail = [line for line in self._run.log_tail(_LOG_LINES) if line.strip()]
        raise UserError(
            _("The server {id} ended before it answered.", id=self.id),
            "\n".join(tail) or self.last_words(),
            _("All of its log: %swift runs logs {id}", id=self.id),
        )

    def chat(
        self,
        messages: str | Sequence[Any],
        *,
        model: str = "",
        system: str = "",
        **options: Any,
    ) -> Answer:
        """Ask the server.

        Parameters
        ----------
        messages : str or sequence
            A question, or a conversation as a list of messages.
        model : str
            The name of an adapter; the model itself by default.
        system : str
            The system text.
        **options
            Further fields of the request, such as ``temperature`` or ``max_tokens``.

        Raises
        ------
        UserError
            When the server is not there, or refuses.
        """
        if isinstance(messages, str):
            asked = conversation(messages, system)
        else:
            turns: list[Any] = list(messages)
            asked = conversation(turns[-1]["content"], system, turns[:-1])
        started = time.perf_counter()
        body = {"model": model or self.model, "messages": asked, **options}
        body.pop("stream", None)
        value = self._post("/chat/completions", body)
        choice, usage = value["choices"][0], value["usage"]
        return Answer.of(
            choice["message"]["content"] or "",
            finish_reason=choice["finish_reason"],
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            seconds=time.perf_counter() - started,
            messages=asked,
        )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import urllib3

        url = self.url
        if not url:
            raise UserError(
                _("The server {id} does not answer: it is {state}.", id=self.id, state=self.state),
                next_step=_("Start it again: %swift runs resume {id}", id=self.id),
            )
        headers = {"Content-Type": "application/json", **self._authorization()}
        try:
            with urllib3.PoolManager(retries=False, timeout=_ANSWER_SECONDS) as http:
                reply = http.request("POST", url + path, body=json.dumps(body), headers=headers)
            value: dict[str, Any] = json.loads(reply.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise UserError(
                _("The server {id} did not answer.", id=self.id),
                str(error),
                _("Look at its log: %swift runs logs {id}", id=self.id),
            ) from None
        if reply.status != 200:
            raise UserError(_("The server refused."), str(value["error"]["message"]))
        return value

    def _authorization(self) -> dict[str, str]:
        from swift_jupyter.hub.node.access import read_token

        file = self._run.record().options["key_file"]
        key = read_token(Path(file)) if file else None
        return {"Authorization": f"Bearer {key.reveal()}"} if key else {}

    def to_dict(self) -> dict[str, Any]:
        """Return the status, and the address where it serves."""
        return {**super().to_dict(), "url": self.url, "models": self.models}

    def __repr__(self) -> str:
        return f"<deploy {self.id}: {self.state} {self.url}".rstrip() + ">"

    def client_snippet(self) -> str:
        """Return Python code that asks the server through OpenAI's client."""
        asks_key = bool(self._run.record().options["key_file"])
        key = 'os.environ["SWIFT_JUPYTER_API_KEY"]' if asks_key else '"unused"'
        lines = [
            *(["import os"] if asks_key else []),
            "from openai import OpenAI",
            f"client = OpenAI(base_url={json.dumps(self.url)}, api_key={key})",
            "answer = client.chat.completions.create(",
            f"    model={json.dumps(self.model, ensure_ascii=False)},",
            '    messages=[{"role": "user", "content": "Name three colours."}],',
            ")",
            "print(answer.choices[0].message.content)",
        ]
        return "\n".join(lines)

    def text(self) -> str:
        """Return the address, a client to copy, and what can be typed next."""
        lines = [repr(self)[1:-1]]
        if self.url:
            if len(self.models) > 1:
                lines.append(_("Models: {names}", names=", ".join(self.models)))
            lines += ["", self.client_snippet(), ""]
        return "\n".join([*lines, self.next_steps()])

    def html(self) -> str:
        """Return the same, with the address as a link."""
        if not self.url:
            return super().html()
        head = f"{html.escape(self.id)}: {html.escape(self.state)}"
        models = html.escape(", ".join(self.models))
        return (
            f"<div><strong>{head}</strong> <code>{html.escape(self.url)}</code> ({models})</div>"
            f"<pre>{html.escape(self.client_snippet())}</pre>"
            f"<pre>{html.escape(self.next_steps())}</pre>"
        )

    def stopped(self, progress: RunProgress) -> Interrupted:
        """Return the error for a server that was stopped while a cell watched it."""
        return Interrupted(
            _("The server {id} was stopped.", id=self.id),
            next_step=_("To start it again: %swift runs resume {id}", id=self.id),
            result=self,
        )

    def lost(self, progress: RunProgress) -> UserError:
        """Return the error for a server whose process disappeared."""
        return UserError(
            _("The server {id} disappeared.", id=self.id),
            "\n".join(line for line in self._run.log_tail(_LOG_LINES) if line.strip())
            or self.last_words(),
            _("To start it again: %swift runs resume {id}", id=self.id),
        )
