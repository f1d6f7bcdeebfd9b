"""The files of a repository as a hub lists them, and which of them a pull takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

# Copies of the weights for other frameworks, which nothing here can load.
FOREIGN_FORMATS = (
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.onnx_data",
    "*.ot",
    "*.tflite",
    "*.mlmodel",
    "*.mlpackage/*",
    "*.pth",
    "*.zip",
    "consolidated*",
    "original/*",
    "onnx/*",
    "openvino/*",
    "coreml/*",
)
PICKLED_FORMATS = ("*.bin", "*.pt", "*.ckpt")
WEIGHT_FORMATS = ("*.safetensors", *PICKLED_FORMATS, "*.gguf")


class UnsafePath(ValueError):
    """A listed path that would leave the folder of its repository."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    Parameters
    ----------
    path : str
        Its path in the repository, with forward slashes.
    size : int or None
        Bytes, as listed.
    sha256, git_sha1 : str or None
        Hash of the content, and git's blob id; lower-case hex.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


def check_path(path: str) -> str:
    """Return `path` when it stays inside any folder it is joined to.

    Raises
    ------
    UnsafePath
        For absolute paths, drives, ``..``, empty parts, backslashes and
        control characters.
    """
    parts = path.split("/")
    if (
        not path
        or "\\" in path
        or any(ord(character) < 32 or ord(character) == 127 for character in path)
        or any(part in ("", ".", "..") for part in parts)
        or PurePosixPath(path).is_absolute()
        or PureWindowsPath(path).drive
        or ":" in parts[0][:2]
    ):
        raise UnsafePath(path)
    return path


def pull_patterns(
    files: Iterable[RemoteFile],
    kind: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patterns to take and the patterns to leave; none to take means all.

    With `include` only matching files are taken. Without it, a model leaves
    out weights for other frameworks and, when it has safetensors or pickled
    weights, the redundant formats beside them.
    """
    if include or kind != "model":
        return tuple(include), tuple(exclude)
    return (), (*_redundant_patterns(list(files)), *exclude)


def select_files(
    files: Iterable[RemoteFile],
    kind: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[RemoteFile]:
    """Choose what to pull by `pull_patterns`."""
    files = list(files)
    take, leave = pull_patterns(files, kind, include, exclude)
    return [
        file
        for file in files
        if (not take or _matches(file.path, take)) and not _matches(file.path, leave)
    ]


def _redundant_patterns(files: Sequence[RemoteFile]) -> tuple[str, ...]:
    def has(*patterns: str) -> bool:
        return any("/" not in file.path and _matches(file.path, patterns) for file in files)

    if has("*.safetensors"):
        return (*FOREIGN_FORMATS, *PICKLED_FORMATS, "*.gguf")
    if has(*PICKLED_FORMATS):
        return (*FOREIGN_FORMATS, "*.gguf")
    if has("*.gguf"):
        return FOREIGN_FORMATS
    return ()


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatchcase(path, pattern) or (pattern.endswith("/") and path.startswith(pattern))
        for pattern in patterns
    )
