"""What both hubs' clients share: the plan of a pull and the check of its result."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swift_jupyter.hub.listing import RemoteFile, UnsafePath, check_path, select_files
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.hub.transfer.channel import Channel, TransferFailed
from swift_jupyter.hub.verify import Mismatch, verify_files
from swift_jupyter.i18n import translate as _


def plan_files(files: Iterable[RemoteFile], job: Mapping[str, Any]) -> list[RemoteFile]:
    """Return the files to pull, after every listed path was checked.

    Raises
    ------
    TransferFailed
        For a path that would leave the folder, or when nothing is left.
    """
    files = list(files)
    for file in files:
        try:
            check_path(file.path)
        except UnsafePath:
            raise TransferFailed(
                _("it lists the path {path}, which would leave the folder", path=repr(file.path))
            ) from None
    chosen = select_files(files, job["kind"], job["include"], job["exclude"])
    if not chosen:
        raise TransferFailed(_("no file of the repository matches the patterns"), "not_found")
    return chosen


def check_room(folder: Path, files: Sequence[RemoteFile], present: int) -> None:
    """Raise `TransferFailed` when the disk cannot hold what is still to come."""
    needed = sum(file.size or 0 for file in files) - present
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise TransferFailed(
            _(
                "{folder} needs {needed}, and {free} are free.",
                folder=folder,
                needed=size_text(needed),
                free=size_text(free),
            ),
            "disk_full",
        )


def present_bytes(folder: Path, files: Iterable[RemoteFile]) -> int:
    """Return the bytes of the files that are in `folder` with their full size."""
    total = 0
    for file in files:
        path = folder / file.path
        if path.is_file() and file.size is not None and path.stat().st_size == file.size:
            total += file.size
    return total


def verify(folder: Path, files: Sequence[RemoteFile], channel: Channel) -> list[Mismatch]:
    """Compare the pulled files with the listing and report progress meanwhile."""
    total = sum(file.size or 0 for file in files)
    done = 0

    def count(path: str, read: int) -> None:
        nonlocal done
        done += read
        channel.progress("verifying", done, total, path)

    channel.progress("verifying", 0, total)
    return verify_files(folder, files, count)


def corrupt(mismatch: Mismatch) -> TransferFailed:
    """Return the failure for a file that stayed wrong."""
    return TransferFailed(
        _(
            "{file} is damaged: expected {expected}, got {found}",
            file=mismatch.path,
            expected=mismatch.expected,
            found=mismatch.found,
        ),
        "corrupt",
    )


def unexpected(error: BaseException, is_network: bool, status: int | None) -> TransferFailed:
    """Return the failure for an error that a client gives no better name."""
    if status:
        return TransferFailed(_("it answers with HTTP {status}", status=status), "unreachable")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return TransferFailed(lines[0], "unreachable" if is_network else "failed")


def is_disk_full(error: BaseException | None) -> bool:
    """Tell whether `error` or one of its causes says that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def result(
    folder: Path, revision: str, files: Sequence[RemoteFile], listing: Sequence[RemoteFile]
) -> dict[str, Any]:
    """Return the values of the final event."""
    return {
        "path": str(folder),
        "revision": revision,
        "size": sum(file.size or 0 for file in files),
        "files": [file.to_dict() for file in listing],
    }
