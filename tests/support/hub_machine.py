"""A user's machine with two hubs on the loopback device, for tests of pulls."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fake_hub import FakeHub, free_dead_url

from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.settings import Settings

WEIGHTS = random.Random(1).randbytes(3_000_000)
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same again",
    "sub folder/note-中.txt": b"hello",
}
DATASET = {f"part-{number:03}.jsonl": b'{"a": 1}\n' * number for number in range(210)}
PULLED = {"config.json", "model.safetensors", "sub folder/note-中.txt"}
HUBS = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}
REFERENCE = RepoReference.of_hub("lab/tiny")


class Machine:
    """A user's machine: two hubs, an environment and settings."""

    def __init__(self, root: Path, modelscope: FakeHub, huggingface: FakeHub) -> None:
        self.root = root
        self.hubs = {"modelscope": modelscope, "huggingface": huggingface}
        self.settings = Settings(cache_dir=str(root / "own"), state_dir=str(root / "state"))
        # Nothing of the surrounding environment may turn an outcome.
        self.environ = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(root),
            "LANGUAGE": "en",
            "NO_PROXY": "127.0.0.1",
            "MODELSCOPE_ENDPOINT": modelscope.url,
            "HF_ENDPOINT": huggingface.url,
        }
        self.reports: list[PullProgress] = []

    def pull(self, reference: RepoReference = REFERENCE, **options: object) -> Snapshot:
        return pull(
            reference,
            self.settings,
            environ=self.environ,
            report=self.reports.append,
            **options,  # type: ignore[arg-type]
        )

    def remove(self, name: str) -> None:
        """Remove a file from both hubs' caches."""
        for path in (self.root / ".cache").rglob(name):
            path.unlink()

    def unplug(self) -> None:
        self.environ["MODELSCOPE_ENDPOINT"] = self.environ["HF_ENDPOINT"] = free_dead_url()


@contextmanager
def two_hubs(root: Path) -> Iterator[Machine]:
    """Open both hubs with the same content."""
    with FakeHub(_content()) as modelscope, FakeHub(_content()) as huggingface:
        yield Machine(root, modelscope, huggingface)


def _content() -> dict[tuple[str, str], dict[str, bytes]]:
    return {("model", "lab/tiny"): dict(MODEL), ("dataset", "lab/rows"): dict(DATASET)}


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
