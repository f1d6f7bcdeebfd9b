"""A user's machine whose hubs fail: pulls through the public door, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fault_content import sha256_of
from fault_server import FaultServer, Origin, Repo

from swift_jupyter.hub.progress import PullProgress
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
REPO_ID = "lab/faulty"
REFERENCE = RepoReference.of_hub(REPO_ID)
FILES: dict[str, int | bytes] = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001-of-00002.safetensors": 20 * MIB + 1,
    "model-00002-of-00002.safetensors": 12 * MIB,
    "notes/readme.md": 30_000,
}
WEIGHTS = "*.safetensors"
_FINAL = {"objects", "snapshots", "blobs"}
_PULL = """
import json, sys
from pathlib import Path
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.settings import Settings
job = json.loads(sys.argv[1])
settings = Settings(cache_dir=job["cache_dir"])
try:
    snapshot = pull(RepoReference.of_hub(job["repo_id"]), settings, source=job["source"])
    print(snapshot.path)
except KeyboardInterrupt:
    sys.exit(130)
"""


class FaultMachine:
    """Caches and an environment of their own, and hubs that do as they are told.

    Parameters
    ----------
    root : Path
        The folder that holds all caches.
    server : FaultServer
        Where the hubs live.
    """

    def __init__(self, root: Path, server: FaultServer) -> None:
        self.root = root
        self.server = server
        self.repo = Repo(REPO_ID, FILES, seed="faulty")
        self.hub = server.add_origin([self.repo])
        self.settings = Settings(cache_dir=str(root / "own"))
        self.reports: list[PullProgress] = []
        self.environ = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(root / "home"),
            "LANGUAGE": "en",
            "NO_PROXY": "*",
            "MODELSCOPE_CACHE": str(root / "modelscope"),
            "HF_HOME": str(root / "huggingface"),
            "SWIFT_JUPYTER_STATE_DIR": str(root / "state"),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_STATE_HOME": str(root / "state-home"),
            "XDG_CACHE_HOME": str(root / "cache-home"),
            "MODELSCOPE_ENDPOINT": self.hub.url,
            "HF_ENDPOINT": self.hub.url,
        }

    @property
    def total(self) -> int:
        """The bytes of the repository."""
        return sum(size if isinstance(size, int) else len(size) for size in FILES.values())

    def add_hub(self) -> Origin:
        """Open Hugging Face as a second place with the same files."""
        other = self.server.add_origin([self.repo])
        self.environ["HF_ENDPOINT"] = other.url
        return other

    def pull(
        self,
        reference: RepoReference = REFERENCE,
        source: str = "modelscope",
        **options: object,
    ) -> Snapshot:
        """Pull in this process; the transfer runs in its child."""
        return pull(
            reference,
            self.settings,
            source=source,
            environ=self.environ,
            report=self.reports.append,
            **options,  # type: ignore[arg-type]
        )

    def start(self, source: str = "modelscope", repo_id: str = REPO_ID) -> subprocess.Popen[str]:
        """Pull in a process of its own."""
        job = {"cache_dir": self.settings.cache_dir, "source": source, "repo_id": repo_id}
        return subprocess.Popen(
            [sys.executable, "-c", _PULL, json.dumps(job)],
            env={**self.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def assert_right(self, folder: Path, repo_id: str = REPO_ID) -> None:
        """Check every file of a snapshot, and that there are no others."""
        expected = self.hub.sha256(repo_id)
        found = {
            path.relative_to(folder).as_posix(): sha256_of(path)
            for path in folder.rglob("*")
            if path.is_file()
        }
        assert found == expected

    def published(self) -> dict[str, Path]:
        """Return every file that stands under the final name of some cache."""
        return {
            path.relative_to(self.root).as_posix(): path
            for path in self.root.rglob("*")
            if path.is_file() and _FINAL & set(path.relative_to(self.root).parts[:-1])
        }

    def assert_nothing_wrong(self, hashes: Mapping[str, str] | None = None) -> None:
        """Check that no file under a final name has wrong bytes."""
        expected = dict(hashes or self.hub.sha256(REPO_ID))
        names = {Path(path).name: sha256 for path, sha256 in expected.items()}
        for path in self.published().values():
            if path.name in names:
                assert sha256_of(path) == names[path.name], path
            elif len(path.name) == 64:
                assert sha256_of(path) == path.name, path


@contextlib.contextmanager
def fault_machine(root: Path, server: FaultServer) -> Iterator[FaultMachine]:
    """Yield a machine; its first hub is dead afterwards, so that nothing waits for it."""
    machine = FaultMachine(root, server)
    try:
        yield machine
    finally:
        machine.hub.die()
