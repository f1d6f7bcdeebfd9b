"""Tab completion of commands, options and values, on the line and in the body."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from swift_jupyter.commands.table import COMMANDS, Command
from swift_jupyter.options import OptionSpec, option_specs
from swift_jupyter.settings import FIELDS, Settings

_LINE = re.compile(r"^\s*(?:[\w.,][\w.,\s]*=\s*)?%{1,2}swift\s+(?P<rest>.*)$", re.DOTALL)
_CELL = re.compile(r"^\s*%%swift\s+(?P<command>[\w-]+)")
_REMEMBERED_SECONDS = 5.0
_MOST = 200
_SOURCES = ("auto", "modelscope", "huggingface", "node", "cache", "local")


class SwiftMatcher:
    """Completes what follows ``%swift``; never touches the network.

    Parameters
    ----------
    settings : callable
        Returns the settings in force.
    """

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._remembered: dict[str, tuple[float, list[str]]] = {}

        @context_matcher(identifier="swift_jupyter.matcher", priority=100)
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            try:
                found = self._complete(context)
            except Exception:  # A broken cache or settings file must not disturb typing.
                found = []
            return {
                "completions": [SimpleCompletion(text=text, type="param") for text in found],
                "suppress": bool(found),
                "matched_fragment": context.token,
                "do_not_suppress": set(),
                "ordered": True,
            }

        self.matcher = matcher

    def _complete(self, context: CompletionContext) -> list[str]:
        """Return what may stand at the cursor; nothing when the place is not ours."""
        before = context.text_until_cursor
        cell = _CELL.match(context.full_text)
        if cell is None or context.cursor_line == 0:
            match = _LINE.match(before)
            return self._on_line(match.group("rest")) if match else []
        command = COMMANDS.get(cell.group("command"))
        if command is None or command.body != "yaml":
            return []
        return self._in_body(command, before)

    def _on_line(self, rest: str) -> list[str]:
        words = rest.split()
        typed = "" if not words or rest[-1].isspace() else words.pop()
        if not words:
            return _starting(COMMANDS, typed)
        command = COMMANDS.get(words[0])
        if command is None:
            return []
        specs = option_specs(command.load_options())
        if typed.startswith("--"):
            name, sign, value = typed.partition("=")
            if sign:
                return self._values(_named(specs, name), value)
            names = [spec.flag for spec in specs.values()] + ["--out", "--help"]
            return _starting(names, "--" + name[2:].replace("-", "_"))
        return self._values(_expected(specs, words[1:]), typed)

    def _in_body(self, command: Command, line: str) -> list[str]:
        specs = option_specs(command.load_options())
        key, sign, value = line.partition(":")
        if not sign:
            return [f"{name}:" for name in _starting(specs, line.strip().replace("-", "_"))]
        typed = "" if not value or value[-1].isspace() else value.split()[-1]
        return self._values(_named(specs, key.strip()), typed)

    def _values(self, spec: OptionSpec | None, typed: str) -> list[str]:
        if spec is None:
            return []
        if spec.choices:
            return _starting(spec.choices, typed)
        if spec.kind == "flag":
            return _starting(("true", "false"), typed)
        return _starting(self._known(spec.completer), typed)

    def _known(self, kind: str) -> list[str]:
        """Return the names of a kind, read anew at most every few seconds."""
        if not kind or kind == "path":
            return []
        moment, names = self._remembered.get(kind, (0.0, []))
        if not moment or time.monotonic() - moment > _REMEMBERED_SECONDS:
            names = self._read(kind)
            self._remembered[kind] = (time.monotonic(), names)
        return names

    def _read(self, kind: str) -> list[str]:
        if kind == "setting":
            return list(FIELDS)
        if kind in ("mirror", "source"):
            from swift_jupyter.hub.mirrors.lists import known_mirrors

            mirrors = [mirror.name for mirror in known_mirrors()]
            return [*_SOURCES, *mirrors] if kind == "source" else mirrors
        if kind in ("run", "adapter"):
            from swift_jupyter.runs.index import list_runs

            return [run.id for run in list_runs(self._settings())]
        from swift_jupyter.hub.cache.scan import scan_cache

        entries = scan_cache(self._settings()).entries
        if kind == "cached":
            return [entry.repo_id for entry in entries]
        cached = [entry.repo_id for entry in entries if entry.kind == kind]
        if kind == "dataset":
            return ["self-cognition", *cached]
        from swift_jupyter.engine.models.catalogue import names

        return list(dict.fromkeys([*cached, *names()]))


def _expected(specs: dict[str, OptionSpec], words: list[str]) -> OptionSpec | None:
    """Return the option whose value comes after `words`, which follow the command."""
    current: OptionSpec | None = None
    positional = [spec for spec in specs.values() if spec.positional]
    for word in words:
        if word.startswith("-"):
            current = None if "=" in word else _named(specs, word)
            if current is not None and current.kind == "flag":
                current = None
        elif current is not None:
            current = current if current.many else None
        elif positional and not (positional[0].many or positional[0].takes_rest):
            positional.pop(0)
    if current is not None:
        return current
    return positional[0] if positional else None


def _named(specs: dict[str, OptionSpec], flag: str) -> OptionSpec | None:
    name = flag.lstrip("-").replace("-", "_")
    for spec in specs.values():
        if name == spec.name or name in spec.aliases or (spec.short and name == spec.short):
            return spec
    return None


def _starting(names: Iterable[Any], typed: str) -> list[str]:
    """Return the names that begin with `typed`, in any case."""
    found = [str(name) for name in names if str(name).lower().startswith(typed.lower())]
    return found[:_MOST]
