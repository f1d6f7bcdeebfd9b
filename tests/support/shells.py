"""A real IPython shell for tests, with nothing of the user's own in it."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from swift_jupyter.sdk import session
from swift_jupyter.settings import ENVIRONMENT_PREFIX, FIELDS

_FOLDERS = (
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_DATA_HOME",
    "IPYTHONDIR",
    "MODELSCOPE_CACHE",
    "HF_HOME",
)


def isolated_environment(root: Path) -> dict[str, str]:
    """Return the variables that keep a process inside `root`."""
    return {name: str(root / name.lower()) for name in _FOLDERS}


@contextmanager
def isolated_shell(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """Give a fresh shell that works below `root`; its `run_cell` raises what a cell raised."""
    for name, value in isolated_environment(root).items():
        monkeypatch.setenv(name, value)
    for name in FIELDS:
        monkeypatch.delenv(ENVIRONMENT_PREFIX + name.upper(), raising=False)
    monkeypatch.chdir(root)
    session.cache_clear()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = RaisingShell.instance(config=config)
    try:
        yield shell
    finally:
        shell.extension_manager.unload_extension("swift_jupyter")
        # At exit every shell would collect all garbage of the process anew.
        atexit.unregister(shell.atexit_operations)
        RaisingShell.clear_instance()
        session.cache_clear()


class RaisingShell(InteractiveShell):
    """A shell whose cells raise their errors, after printing them as always."""

    def run_cell(self, *arguments: Any, **options: Any) -> Any:
        """Run a cell."""
        result = super().run_cell(*arguments, **options)
        result.raise_error()
        return result
