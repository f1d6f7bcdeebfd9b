"""The commands as Python functions."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.frontend import Frontend, SilentFrontend
from swift_jupyter.commands.parsing import parse
from swift_jupyter.commands.table import COMMANDS, Command
from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option_specs
from swift_jupyter.settings import load_settings

if TYPE_CHECKING:
    from swift_jupyter.engine.inference.chat_model import ChatModel


@functools.cache
def session() -> Context:
    """Return the process's one context: magics and functions share the loaded models."""
    return Context(load_settings(), _frontend())


def _frontend() -> Frontend:
    """Return the notebook's frontend inside a kernel, a silent one elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and hasattr(shell, "kernel"):
        from swift_jupyter.display.notebook import NotebookFrontend

        return NotebookFrontend()
    return SilentFrontend()


class CommandFunction:
    """A command that is called with keyword arguments and returns its result.

    Parameters
    ----------
    command : Command
        The subcommand.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self.__name__ = command.name
        self.__doc__ = _("{summary} Type %swift {name} --help for the arguments.").format(
            summary=command.summary, name=command.name
        )

    def __repr__(self) -> str:
        return f"<swift_jupyter.{self._command.name}>"

    def __call__(self, *values: Any, **options: Any) -> Any:
        """Run the command.

        Parameters
        ----------
        *values
            The options that need no flag, in order.
        **options
            The options by name.
        """
        parsed = parse(self._command, [], given={**self._positionals(values), **options})
        return self._command.load_function()(parsed.options, session())

    def _positionals(self, values: tuple[Any, ...]) -> dict[str, Any]:
        specs = [s for s in option_specs(self._command.load_options()).values() if s.positional]
        given: dict[str, Any] = {}
        rest = list(values)
        for spec in specs:
            if rest:
                given[spec.name], rest = (rest, []) if spec.many else (rest[0], rest[1:])
        if rest:
            raise OptionError(
                _("{name}() takes fewer values without a name.", name=self._command.name),
                next_step=_("Name them, such as model='smollm2-demo'."),
            )
        return given


class InferFunction(CommandFunction):
    """``infer(prompt, model=…)``, and ``infer.load_model(name)`` for a model to keep."""

    def load_model(
        self, model: str, *, adapters: Any = (), torch_dtype: str | None = None
    ) -> ChatModel:
        """Load a model into memory, pulling it when it is not on this machine.

        Parameters
        ----------
        model : str
            A model id, short name or folder.
        adapters : sequence
            Runs, folders or ``name=folder``; choose one in ``generate(…, adapter=name)``.
        torch_dtype : str, optional
            ``float32``, ``bfloat16`` or ``float16``.

        Returns
        -------
        ChatModel
            With ``generate``, ``stream`` and ``chat``.
        """
        from swift_jupyter.commands.infer import locate
        from swift_jupyter.commands.pulling import pull_with_progress
        from swift_jupyter.engine.models.catalogue import resolve
        from swift_jupyter.engine.models.options import ModelOptions

        context = session()
        snapshot = pull_with_progress(resolve(model), context.frontend, context.settings)
        loaded = context.models.load(
            model, Path(snapshot.path), ModelOptions(model=model, torch_dtype=torch_dtype)
        )
        for adapter in adapters if isinstance(adapters, (list, tuple)) else [adapters]:
            loaded.add_adapter(locate(adapter, context))
        return loaded


FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: (InferFunction if name == "infer" else CommandFunction)(command)
    for name, command in COMMANDS.items()
}
