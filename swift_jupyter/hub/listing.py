"""The files of a repository as a hub lists them, and which of them a pull takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from swift_jupyter.hub.reference import RepoKind

Hub = Literal["modelscope", "huggingface"]
HUB_NAMES: dict[Hub, str] = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}

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
SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")

# Halves of a surrogate pair are no characters: no file system can write them.
_PART = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f\x7f\ud800-\udfff]+"
_SAFE_PATH = re.compile(rf"(?!.?:){_PART}(?:/{_PART})*", re.DOTALL)
_LONGEST_PART = 255


class UnsafePath(ValueError):
    """A listed path that would leave the folder of its repository."""


@dataclass(frozen=True, slots=True)
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
    lfs : bool
        Whether the hub keeps it outside git. Hugging Face's cache names such
        files by their SHA-256, the others by git's blob id.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    lfs: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class RepoListing:
    """All files of one revision of a repository, as one hub lists them.

    Parameters
    ----------
    hub : {"modelscope", "huggingface"}
        The hub.
    repo_id : str
        Its ``owner/name`` there.
    kind : {"model", "dataset"}
        What the repository holds.
    revision : str
        The name that was asked for: a branch, a tag or a commit.
    commit : str
        40 hex digits. ModelScope names no commit, so there it is `content_commit`.
    files : tuple of RemoteFile
        Its files; every path has passed `check_path`.
    """

    hub: Hub
    repo_id: str
    kind: RepoKind
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]


def content_commit(files: Iterable[RemoteFile]) -> str:
    """Return 40 hex digits that change exactly when paths, sizes or hashes do."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        line = f"{file.path}\0{file.size}\0{file.sha256 or file.git_sha1}\n"
        digest.update(line.encode())
    return digest.hexdigest()[:40]


def check_path(path: str) -> str:
    """Return `path` when it stays inside any folder it is joined to.

    Raises
    ------
    UnsafePath
        For absolute paths, drives, ``..``, empty parts, backslashes, control
        characters, and names too long for a file system.
    """
    if not _SAFE_PATH.fullmatch(path) or (
        len(path) > _LONGEST_PART // 4
        and any(len(part.encode()) > _LONGEST_PART for part in path.split("/"))
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
