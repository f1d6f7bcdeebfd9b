"""Giving a file another name without a second copy, where the file system can."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.files import is_disk_full
from swift_jupyter.i18n import translate as _

_FICLONE = 0x40049409  # linux/fs.h: make a file share the blocks of another one.


def temporary_beside(target: str) -> str:
    """Return an unused hidden name in the folder of `target`."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.tmp")


def share(source: str, target: str) -> None:
    """Make `target` a new hard link to `source`, else a reflink, else a copy.

    Raises
    ------
    FileExistsError
        When `target` exists; it is left as it is.
    OSError
        When it cannot be written; nothing is left behind.
    """
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            raise
        duplicate(source, target)


def duplicate(source: str, target: str) -> None:
    """Make `target` an independent file with the content of `source`; see `share`."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    temporary = temporary_beside(target)
    try:
        if not _reflink(source, temporary):
            shutil.copyfile(source, temporary)
        _publish_new(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def replace_by_share(source: str, target: str) -> None:
    """Put a link to `source` (or a copy) in the place of `target`, in one step."""
    temporary = temporary_beside(target)
    try:
        share(source, temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # rename does nothing between two links of one file


def move(source: str, target: str) -> None:
    """Rename `source` over `target`; onto another file system it is copied first."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        temporary = temporary_beside(target)
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    with contextlib.suppress(FileNotFoundError):
        os.unlink(source)


def _publish_new(temporary: str, target: str) -> None:
    """Rename to `target` unless it exists; not in one step where there are no hard links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.replace(temporary, target)
    else:
        os.unlink(temporary)


def _reflink(source: str, target: str) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    with open(source, "rb") as read, open(target, "xb") as write:
        try:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
        except OSError:
            return False
        return True


@contextlib.contextmanager
def told_to_the_user(folder: Path | str, instead: str = "") -> Iterator[None]:
    """Turn what a full or forbidden disk raises into a `UserError`; what is there stays.

    Parameters
    ----------
    folder : Path or str
        What is written to.
    instead : str, optional
        How to choose another folder; by default that of the store.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(
                _("{folder} cannot be written.", folder=folder),
                error.strerror or str(error),
                instead or _("Choose another folder: %config SwiftMagics.cache_dir = '…'"),
            ) from None
        if is_disk_full(error, Path(folder)):
            raise UserError(
                _("The disk that holds {folder} is full.", folder=folder),
                next_step=_("Type %swift cache to see what can be removed."),
            ) from None
        raise
