"""The commands as Python functions."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.frontend import SilentFrontend
from swift_jupyter.commands.parsing import parse
from swift_jupyter.commands.results import Result
from swift_jupyter.commands.table import COMMANDS, Command
from swift_jupyter.display.frontends import frontend_for
from swift_jupyter.display.shown import forget_after_cell
from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option_specs
from swift_jupyter.settings import load_settings

if TYPE_CHECKING:
    from swift_jupyter.engine.inference.handle import ModelHandle


@functools.cache
def session() -> Context:
    """Return the process's one context: magics and functions share the loaded models."""
    return Context(load_settings(), SilentFrontend())


def _kernel_shell() -> Any:
    """Return the shell of the kernel that this code runs in; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if hasattr(shell, "kernel") else None


def _run(command: Command, options: Any) -> Any:
    """Run a command; it draws in a notebook and is silent elsewhere."""
    shell, context = _kernel_shell(), _prepared()
    result = command.load_function()(options, context)
    if shell is not None:
        forget_after_cell(result, shell)
    elif isinstance(result, Result):
        result.shown = False  # Nobody has seen it.
    return result


def _prepared() -> Context:
    """Return the session's context with the settings and the frontend of this moment."""
    shell, context = _kernel_shell(), session()
    context.refresh()
    context.frontend = (
        SilentFrontend() if shell is None else frontend_for(shell, context.settings.display)
    )
    return context


class CommandFunction:
    """A command that is called with keyword arguments and returns its result.

    Parameters
    ----------
    command : Command
        The subcommand.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self.__name__ = command.function_name
        self.__doc__ = _(
            "{summary} Type %swift {name} --help for the arguments.",
            summary=command.summary,
            name=command.name,
        )

    def __repr__(self) -> str:
        return f"<swift_jupyter.{self.__name__}>"

    @property
    def __signature__(self) -> inspect.Signature:
        """The options as keyword arguments, for help and completion."""
        specs = option_specs(self._command.load_options()).values()
        return inspect.Signature(
            [
                inspect.Parameter("values", inspect.Parameter.VAR_POSITIONAL),
                *(
                    inspect.Parameter(
                        spec.name, inspect.Parameter.KEYWORD_ONLY, default=spec.default
                    )
                    for spec in specs
                ),
            ]
        )

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
        return _run(self._command, parsed.options)

    def _positionals(self, values: tuple[Any, ...]) -> dict[str, Any]:
        specs = [s for s in option_specs(self._command.load_options()).values() if s.positional]
        given: dict[str, Any] = {}
        rest = list(values)
        for spec in specs:
            if rest:
                given[spec.name], rest = (_all(rest), []) if spec.many else (rest[0], rest[1:])
        if rest:
            raise OptionError(
                _("{name}() takes fewer values without a name.", name=self.__name__),
                next_step=_("Name them, such as model='smollm2-demo'."),
            )
        return given


def _all(values: list[Any]) -> Any:
    """Return one list as it is, and several values as a list."""
    return values[0] if len(values) == 1 else values


class InferFunction(CommandFunction):
    """``infer(prompt, model=…)``, and ``infer.load_model(name)`` for a model to keep."""

    def load_model(
        self, model: str, *, adapters: Any = (), torch_dtype: str | None = None
    ) -> ModelHandle:
        """Load a model into memory, pulling it when it is not on this machine.

        Parameters
        ----------
        model : str
            A model id, short name or folder.
        adapters : sequence
            Runs, folders or ``name=folder``. The first answers unless another is named:
            ``generate(…, adapter=name)``.
        torch_dtype : str, optional
            ``float32``, ``bfloat16`` or ``float16``.

        Returns
        -------
        ModelHandle
            With ``generate``, ``stream`` and ``chat``.
        """
        from swift_jupyter.commands.infer import locate
        from swift_jupyter.commands.pulling import pull_with_progress
        from swift_jupyter.engine.inference.handle import ModelHandle
        from swift_jupyter.engine.models.catalogue import resolve
        from swift_jupyter.engine.models.options import ModelOptions

        context = _prepared()
        snapshot = pull_with_progress(resolve(model), context.frontend, context.settings)
        loaded = context.models.load(
            model, Path(snapshot.path), ModelOptions(model=model, torch_dtype=torch_dtype)
        )
        values = adapters if isinstance(adapters, (list, tuple)) else [adapters]
        located = [locate(adapter, context) for adapter in values]
        for adapter in located:
            loaded.add_adapter(adapter)
        return ModelHandle(loaded, located[0].name if located else "")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    command.function_name: (InferFunction if name == "infer" else CommandFunction)(command)
    for name, command in COMMANDS.items()
}
