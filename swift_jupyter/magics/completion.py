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

_LINE = re.compile(r"^\s*(?:[\w.,\s]+=\s*)?%{1,2}swift(?:\s+(?P<rest>.*))?$", re.DOTALL)
_CELL = re.compile(r"^\s*%%swift\s+(?P<command>[\w-]+)")
_REMEMBERED_SECONDS = 5.0
_MOST = 200


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

        @context_matcher(identifier="swift_jupyter.matcher", priority=100)  # type: ignore[untyped-decorator]
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            found = self._complete(context)
            completions = [SimpleCompletion(text=text, type="param") for text in found or ()]
            return {"completions": completions, "suppress": bool(completions)}

        self.matcher = matcher

    def _complete(self, context: CompletionContext) -> list[str] | None:
        """Return what may stand at the cursor; None when the place is not ours."""
        before = context.text_until_cursor
        first_line = context.full_text.split("\n", 1)[0]
        if context.cursor_line == 0:
            match = _LINE.match(before)
            return self._on_line(match.group("rest") or "", context.token) if match else None
        cell = _CELL.match(first_line)
        if cell is None or cell.group("command") not in COMMANDS:
            return None
        command = COMMANDS[cell.group("command")]
        line = before.split("\n")[-1]
        return self._in_body(command, line) if command.body == "yaml" else None

    def _on_line(self, rest: str, token: str) -> list[str]:
        words = rest.split()
        if not words or (len(words) == 1 and not rest.endswith((" ", "\t"))):
            return _starting(COMMANDS, words[0] if words else "")
        command = COMMANDS.get(words[0])
        if command is None:
            return []
        specs = option_specs(command.load_options())
        typed = "" if rest.endswith((" ", "\t")) else words[-1]
        previous = words[-1] if not typed else words[-2] if len(words) > 1 else ""
        if typed.startswith("--") and "=" not in typed:
            names = [spec.flag for spec in specs.values()] + ["--out", "--help"]
            return _starting(names, typed.replace("-", "_").replace("__", "--", 1))
        if typed.startswith("--"):
            name, _sign, typed = typed.partition("=")
            return self._values(_named(specs, name), typed)
        if previous.startswith("-"):
            return self._values(_named(specs, previous), typed)
        return [
            value
            for spec in specs.values()
            if spec.positional
            for value in self._values(spec, typed)
        ]

    def _in_body(self, command: Command, line: str) -> list[str]:
        specs = option_specs(command.load_options())
        key, sign, value = line.partition(":")
        if not sign:
            return [f"{name}:" for name in _starting(specs, line.strip())]
        words = value.split()
        typed = "" if not words or value.endswith(" ") else words[-1]
        return self._values(specs.get(key.strip().replace("-", "_")), typed)

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
        if kind == "dataset":
            return ["self-cognition"]
        if kind in ("run", "adapter"):
            from swift_jupyter.runs.index import list_runs

            return [run.id for run in list_runs(self._settings())]
        from swift_jupyter.hub.cache import scan_cache

        cached = [entry.repo_id for entry in scan_cache(self._settings()).entries]
        if kind == "cached":
            return cached
        from swift_jupyter.engine.models.catalogue import names

        return list(dict.fromkeys([*cached, *names()]))


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
