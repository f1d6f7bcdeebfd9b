"""The whole life of a language model inside a notebook.

``%load_ext swift_jupyter`` gives ``%swift`` and ``%%swift``; the same commands are
functions of this package: ``swift_jupyter.sft(model=…, dataset=…)``. Nothing heavy
is imported until a command needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swift_jupyter.version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension"]


def __getattr__(name: str) -> Any:
    """Return the function of a command, made on first use."""
    from swift_jupyter.sdk import FUNCTIONS

    if name in FUNCTIONS:
        return FUNCTIONS[name]
    raise AttributeError(f"module 'swift_jupyter' has no attribute '{name}'")


def __dir__() -> list[str]:
    from swift_jupyter.sdk import FUNCTIONS

    return sorted([*globals(), *FUNCTIONS])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; called by ``%load_ext swift_jupyter``."""
    from swift_jupyter.magics import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics away again; called by ``%unload_ext swift_jupyter``."""
    from swift_jupyter.magics import unload

    unload(shell)


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "swift-jupyter"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "swift_jupyter"}]


def _load_jupyter_server_extension(server_app: Any) -> None:
    from swift_jupyter.server import setup_handlers

    setup_handlers(server_app.web_app)
    server_app.log.info("swift_jupyter server extension loaded")
