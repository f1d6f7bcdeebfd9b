"""What several test modules share: the real demo model, converted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.hub.pull import pull
from swift_jupyter.settings import Settings


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `cache_dir` that holds smollm2-demo, from the package on this machine."""
    folder = tmp_path_factory.mktemp("demo-cache")
    settings = Settings(cache_dir=str(folder), state_dir=str(folder / "state"))
    pull(resolve("smollm2-demo"), settings, source="local")
    return folder
