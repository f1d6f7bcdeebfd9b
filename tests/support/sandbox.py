"""A session of its own for tests: folders, environment and waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

VARIABLES = {
    "SWIFT_JUPYTER_STATE_DIR": "state",
    "SWIFT_JUPYTER_CACHE_DIR": "cache",
    "XDG_CONFIG_HOME": "config",
    "HF_HOME": "hf",
    "MODELSCOPE_CACHE": "modelscope",
}


def environment(folder: Path) -> dict[str, str]:
    """Return the variables that keep everything below `folder`, on one thread."""
    variables = {name: str(folder / value) for name, value in VARIABLES.items()}
    return {**variables, "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8", "LANGUAGE": ""}


@contextlib.contextmanager
def isolated_session(folder: Path) -> Iterator[Any]:
    """Let `swift_jupyter.sft(…)` and its kin work below `folder`; yields the context."""
    from swift_jupyter.sdk import session

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        session.cache_clear()
        yield session()
        session.cache_clear()


def wait_for(condition: Callable[[], Any], seconds: float = 60.0, poll: float = 0.005) -> Any:
    """Return the first true value of `condition`; fails when it takes too long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(poll)
    raise AssertionError(f"not within {seconds} s: {condition}")
