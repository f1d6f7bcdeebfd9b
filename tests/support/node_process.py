"""A mirror node in a process of its own, started through the terminal's door."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sandbox import environment

ROOT = Path(__file__).parents[2]


class NodeProcess:
    """Runs ``swift-jupyter mirror serve`` on a free port.

    Parameters
    ----------
    folder : Path
        Holds the store, the log and the settings.
    options : sequence of str
        Further words of the command.
    """

    def __init__(
        self, folder: Path, *options: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.url = ""
        self._options = options
        self._variables = dict(variables or {})
        self.process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        """What the node said."""
        return (self.folder / "node.log").read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> NodeProcess:
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["mirror", "serve", "--root", str(self.store), "--port", "0", *self._options]
        with (self.folder / "node.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "swift_jupyter.cli", *words],
                cwd=ROOT,
                env={**os.environ, **environment(self.folder), **self._variables},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = [word for word in line.split() if word.startswith(("http://", "https://"))]
            if found:
                self.url = found[0]
                return self
        raise AssertionError(f"the node did not start: {self.log}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None and self.process.stdout is not None
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Ask the node; return status, headers (by any case) and body."""
        request = urllib.request.Request(
            self.url + path, headers=dict(headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def json(self, path: str) -> Any:
        """Ask for JSON."""
        status, _headers, body = self.get(path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def status(self) -> dict[str, Any]:
        """Return what the status page shows."""
        value: dict[str, Any] = self.json("/_sj/v1/status")
        return value


def run_client(code: str, folder: Path, variables: Mapping[str, str], seconds: float = 120) -> str:
    """Run Python code, such as a hub's own client, in a process with empty caches."""
    env = {**os.environ, **environment(folder), **variables}
    env["PYTHONPATH"] = ""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
