"""Servers of tiny models, started through `deploy`, and unmodified clients for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox import isolated_session
from tiny_models import build_tiny_model

import swift_jupyter
from swift_jupyter.runs.process import kill


@contextlib.contextmanager
def deploy_session(folder: Path) -> Iterator[Any]:
    """Let `swift_jupyter.deploy(…)` and its kin work below `folder`, runs included."""
    with pytest.MonkeyPatch.context() as patch, isolated_session(folder) as context:
        patch.setenv("SWIFT_JUPYTER_OUTPUT_ROOT", str(folder / "output"))
        yield context


@contextlib.contextmanager
def deployed(model: Path, **options: Any) -> Iterator[Any]:
    """Deploy a model in the session at hand; yields the result, and ends the server."""
    result = swift_jupyter.deploy(model=str(model), port=0, **options)
    try:
        yield result
    finally:
        result.stop()
        result.wait(20)
        worker = result.run.record().worker
        if worker is not None:
            kill(worker)


def build_lively_model(folder: Path, **options: Any) -> Path:
    """Save a tiny model whose greedy answers depend on its prompts, and return its folder.

    Random weights as training begins with them say the same to everybody.
    """
    import torch
    from transformers import AutoModelForCausalLM

    build_tiny_model(folder, tied=False, **options)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def client(result: Any, **options: Any) -> Any:
    """Return OpenAI's client for a deployed model, without retries."""
    from openai import OpenAI

    given = {"api_key": "unused", "max_retries": 0, "timeout": 60.0, **options}
    return OpenAI(base_url=result.url, **given)
