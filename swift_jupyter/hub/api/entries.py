"""From a hub's list of entries to checked files. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from swift_jupyter.hub.listing import (
    GIT_SHA1,
    SHA256,
    RemoteFile,
    UnsafePath,
    check_path,
)
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

# More than the largest known repositories hold; beyond it somebody plays tricks.
MOST_FILES = 2_000_000
# 8 EiB: what file systems and their tools count up to.
_LARGEST_SIZE = 2**63 - 1
# What the .gitattributes of a new repository at Hugging Face keep outside git.
_LFS_SUFFIXES = (
    *(".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gz", ".h5", ".joblib", ".mlmodel"),
    *(".model", ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle"),
    *(".pkl", ".pt", ".pth", ".rar", ".safetensors", ".tar", ".tflite", ".tgz", ".wasm"),
    *(".xz", ".zip", ".zst"),
)
_LFS_FROM = 10 << 20
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder among the entries."""

    path: str


def modelscope_entry(values: dict[str, Any]) -> Any:
    """Return a ModelScope entry as `RemoteFile` or `Folder`; anything else as it is."""
    path, sort = _either(values, "Path"), _either(values, "Type")
    if not isinstance(path, str) or not isinstance(sort, str):
        return values
    if sort.lower() in ("tree", "dir", "directory"):
        return Folder(path)
    sha256 = _hash(_either(values, "Sha256"))
    size = _either(values, "Size")
    if size == 0 and sha256 != EMPTY_SHA256:
        size = None  # So the server says that it does not know.
    lfs = _either(values, "IsLFS")
    if not isinstance(lfs, bool):
        lfs = _is_probably_lfs(path, size)
    return RemoteFile(path, size, sha256, None, lfs)


def huggingface_entry(values: dict[str, Any]) -> Any:
    """Return a Hugging Face entry as `RemoteFile` or `Folder`; anything else as it is."""
    path, sort = values.get("path"), values.get("type")
    if not isinstance(path, str) or not isinstance(sort, str):
        return values
    if sort != "file":
        return Folder(path)
    lfs = values.get("lfs")
    if isinstance(lfs, dict):
        size = lfs.get("size", values.get("size"))
        return RemoteFile(path, size, _hash(lfs.get("oid")), None, True)
    return RemoteFile(path, values.get("size"), None, _hash(values.get("oid")))


def checked_files(entries: Iterable[Any]) -> tuple[RemoteFile, ...]:
    """Return the files among `entries`, each once.

    Raises
    ------
    SourceUnavailable
        For a path that would leave the folder, a size or a hash that cannot
        be, two different files of one name, a file where another one needs a
        folder, too many files, and an entry that is none.
    """
    files: dict[str, RemoteFile] = {}
    for entry in entries:
        if isinstance(entry, Folder):
            continue
        if not isinstance(entry, RemoteFile):
            raise SourceUnavailable(_("its list of files is not one"), "failed")
        _check(entry)
        if files.setdefault(entry.path, entry) != entry:
            raise SourceUnavailable(
                _("it lists {path} twice, with different contents", path=repr(entry.path))
            )
        if len(files) > MOST_FILES:
            raise SourceUnavailable(_("it lists more than {count} files", count=MOST_FILES))
    _check_folders(files)
    return tuple(files.values())


def _check(file: RemoteFile) -> None:
    try:
        check_path(file.path)
    except UnsafePath:
        raise SourceUnavailable(
            _(
                "it lists the path {path}, which would leave the folder or cannot be a file",
                path=ascii(file.path[:300]),
            )
        ) from None
    if file.size is not None and (
        type(file.size) is not int or not 0 <= file.size <= _LARGEST_SIZE
    ):
        raise SourceUnavailable(
            _(
                "it lists the size {size} for {path}",
                size=ascii(file.size)[:40],
                path=repr(file.path),
            )
        )
    if (file.sha256 and not SHA256.fullmatch(file.sha256)) or (
        file.git_sha1 and not GIT_SHA1.fullmatch(file.git_sha1)
    ):
        raise SourceUnavailable(_("it lists a hash for {path} that is none", path=repr(file.path)))


def _check_folders(files: dict[str, RemoteFile]) -> None:
    """Refuse ``a`` beside ``a/b``. Each folder is looked up once."""
    folders = {path.rpartition("/")[0] for path in files}
    while folders:
        both = next((folder for folder in folders if folder in files), None)
        if both is not None:
            raise SourceUnavailable(_("it lists {path} as a file and as a folder", path=repr(both)))
        folders = {folder.rpartition("/")[0] for folder in folders} - {""}


def in_folder(entries: Sequence[Any], root: str) -> list[Any]:
    """Return the entries below `root`, for servers that ignore which folder is asked for."""
    return [entry for entry in entries if getattr(entry, "path", "").startswith(f"{root}/")]


def _is_probably_lfs(path: str, size: Any) -> bool:
    """Guess what Hugging Face would do; a wrong guess only means that its client asks again."""
    return path.endswith(_LFS_SUFFIXES) or (isinstance(size, int) and size >= _LFS_FROM)


def _either(values: dict[str, Any], name: str) -> Any:
    """Return a value by its name, or by the same name in lower case."""
    return values[name] if name in values else values.get(name.lower())


def _hash(value: Any) -> str | None:
    return value.lower() if isinstance(value, str) and value else None
