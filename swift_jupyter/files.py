"""Writing files so that a crash leaves either the old content or the new one."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

_NO_ROOM = 2**20
_FULL_MESSAGES = ("no space left on device", "os error 28", "disk quota exceeded")


def write_text_atomically(path: Path, text: str) -> None:
    """Replace `path` with `text` in one step.

    Raises
    ------
    OSError
        When the folder cannot be written; nothing is left behind then.
    """
    write_bytes_atomically(path, text.encode("utf-8"))


def write_json_atomically(
    path: Path, value: Any, *, private: bool = False, durable: bool = True
) -> None:
    """Replace `path` with `value` as JSON, in one step; see `write_bytes_atomically`."""
    write_bytes_atomically(path, encode_json(value, indent=2), private=private, durable=durable)


def encode_json(
    value: Any, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> bytes:
    """Return `value` as JSON in UTF-8, with a line end; `default` is that of `json.dumps`.

    Characters that UTF-8 has not (halves of a pair, as in undecodable file names)
    become JSON's own escapes.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=default) + "\n"
    return text.encode("utf-8", "backslashreplace")


def write_bytes_atomically(
    path: Path, content: bytes, *, private: bool = False, durable: bool = True
) -> None:
    """Replace `path` with `content` in one step; see `write_text_atomically`.

    Parameters
    ----------
    path : Path
        The file.
    content : bytes
        What it shall hold.
    private : bool, optional
        Whether only its owner may read it.
    durable : bool, optional
        Whether to wait until the disk has it. What is written again and again need not.
    """
    # Not `tempfile`, whose files nobody else may read: checkpoints are shared.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    mode = 0o600 if private else 0o666
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def size_text(size: float) -> str:
    """Return `size` bytes in decimal units, such as ``135.2 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def check_room(folder: Path, needed: int, what: str = "", next_step: str = "") -> None:
    """See ahead that `needed` more bytes fit on the disk of `folder`.

    Parameters
    ----------
    folder : Path
        The folder, which may not exist yet.
    needed : int
        Bytes.
    what, next_step : str, optional
        The first and the last line of the error.

    Raises
    ------
    UserError
        When they do not fit.
    """
    free = shutil.disk_usage(existing_parent(folder)).free
    if needed <= free:
        return
    raise UserError(
        what or _("The disk has not enough room."),
        _(
            "{folder} needs {needed}, and {free} are free.",
            folder=folder,
            needed=size_text(needed),
            free=size_text(free),
        ),
        next_step or _("Free some space, for example with %swift cache, and try again."),
    )


def existing_parent(folder: Path) -> Path:
    """Return `folder`, or the nearest folder above it that exists."""
    folder = folder.absolute()
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Tell whether writing into `folder` failed because no room was left.

    Parameters
    ----------
    error : BaseException
        What was raised. The writers of torch and safetensors raise errors of their
        own, some without the reason, so the room that is left counts as well.
    folder : Path
        Where the writing happened; ask before anything there is cleaned up.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(message in str(error).lower() for message in _FULL_MESSAGES):
        return True
    try:
        return shutil.disk_usage(folder).free < _NO_ROOM
    except OSError:
        return False


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder`, and the folders themselves, to the disk."""
    for directory, _folders, names in os.walk(folder):
        for name in names:
            _sync(Path(directory, name))
        _sync(Path(directory))


def sync_folder(folder: Path) -> None:
    """Flush the entries of `folder` (a rename in it) to the disk."""
    _sync(folder)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle of a folder that could be flushed.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
