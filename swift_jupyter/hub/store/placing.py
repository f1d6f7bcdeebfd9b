"""Putting files of the store below a folder: checked paths, links, nothing of the user's lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.hub.listing import RemoteFile, check_path
from swift_jupyter.hub.store.hashing import Fingerprint, hash_file
from swift_jupyter.hub.store.links import duplicate, replace_by_share, share, temporary_beside
from swift_jupyter.hub.store.store import Store
from swift_jupyter.i18n import translate as _

Notice = Callable[[str], None]
# Tells whether a file, by its path in the repository and its state, is one that we put there.
Ours = Callable[[str, os.stat_result], bool]


def say_nothing(_text: str) -> None:
    """Take a notice and do nothing."""


def nothing_is_ours(_path: str, _state: os.stat_result) -> bool:
    """Tell that no file is known to be ours."""
    return False


class Placement:
    """Places files of a store below one folder.

    Parameters
    ----------
    store : Store
        Has the content.
    root : Path
        The folder, made when it is needed. No file is written outside it, whatever
        links lie in it.
    notice : callable
        Told, in words, what of the user's had to give way.
    ours : callable
        Tells which existing files may be replaced without a word.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        notice: Notice = say_nothing,
        ours: Ours = nothing_is_ours,
    ) -> None:
        self.store = store
        self.root = os.fspath(root)
        self.notice = notice
        self.ours = ours
        self._real_root = ""
        self._folders: dict[str, str] = {}

    def source(self, file: RemoteFile) -> str:
        """Return the stored file with the content of `file`.

        Raises
        ------
        UserError
            When the store does not have it (any more).
        """
        found = self.store.resolve(file)
        if found is None:
            raise UserError(
                _("{file} vanished from the store.", file=file.path),
                next_step=_("Type the same command again: it fetches only what is missing."),
            )
        return os.fspath(found)

    def target(self, path: str) -> str:
        """Return where the file `path` goes, and make its folder.

        Raises
        ------
        UnsafePath
            When `path` leaves the root by itself.
        UserError
            When it would leave the root through a link.
        """
        folder, _slash, name = check_path(path).rpartition("/")
        return f"{self._folder(folder)}/{name}"

    def place(self, file: RemoteFile, path: str, sha256: str, copy: bool = False) -> None:
        """Put the content of `file` at `path`; what is right there already stays."""
        target = self.target(path)
        source = self.source(file)
        try:
            (duplicate if copy else share)(source, target)
        except FileExistsError:
            if self.is_right(target, source, sha256):
                return
            self._replace(source, target, path)
        if copy or os.stat(target).st_ino != os.stat(source).st_ino:
            self.store.note(sha256, Fingerprint.of(os.stat(target)), place=target)

    def is_right(self, target: str, source: str, sha256: str) -> bool:
        """Tell whether an existing file has this content; it is read only when it must be."""
        try:
            there, wanted = os.stat(target), os.stat(source)
        except OSError:
            return False
        if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
        if there.st_size != wanted.st_size:
            return False
        if self.store.is_verified(sha256, there):
            return True
        try:
            hashes, fingerprint = hash_file(target, git=False)
        except OSError:
            return False
        if hashes.sha256 != sha256:
            return False
        self.store.note(sha256, fingerprint, place=os.path.realpath(target))
        return True

    def is_in_the_way(self, path: str, state: os.stat_result) -> bool:
        """Tell whether replacing an existing file would lose something of the user's."""
        return state.st_nlink == 1 and not self.ours(path, state)

    def link(self, path: str, destination: str) -> bool:
        """Make `path` a symbolic link; False where the file system has none."""
        target = self.target(path)
        try:
            os.symlink(destination, target)
        except FileExistsError:
            if os.path.islink(target) and os.readlink(target) == destination:
                return True
            if not os.path.islink(target):
                return False  # A client that could not link has put the file itself here.
            temporary = temporary_beside(target)
            os.symlink(destination, temporary)
            os.replace(temporary, target)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and _is_disk_trouble(error):
                raise
            return False
        return True

    def _replace(self, source: str, target: str, path: str) -> None:
        state = os.lstat(target)
        if os.path.isdir(target) and not os.path.islink(target):
            raise UserError(
                _("{path} is a folder, where a file belongs.", path=target),
                next_step=_("Move it away, then type the same command again."),
            )
        if not os.path.islink(target) and self.is_in_the_way(path, state):
            aside = self.store.set_aside(Path(target))
            if aside is None:
                self.notice(_("{path} was wrong or changed; it was replaced.", path=target))
            else:
                text = _(
                    "{path} was wrong or changed; the old file is {aside} now.",
                    path=target,
                    aside=aside,
                )
                self.notice(text)
        replace_by_share(source, target)

    def _folder(self, folder: str) -> str:
        known = self._folders.get(folder)
        if known is not None:
            return known
        if not folder:
            os.makedirs(self.root, exist_ok=True)
            self._real_root = os.path.realpath(self.root)
            path = self.root
        else:
            above, _slash, name = folder.rpartition("/")
            path = f"{self._folder(above)}/{name}"
            try:
                os.mkdir(path)
            except FileExistsError:
                self._check_inside(path)
        self._folders[folder] = path
        return path

    def _check_inside(self, path: str) -> None:
        real = os.path.realpath(path)
        if not os.path.isdir(real):
            raise UserError(
                _("{path} is a file, where a folder belongs.", path=path),
                next_step=_("Move it away, then type the same command again."),
            )
        if os.path.islink(path) and not real.startswith(self._real_root.rstrip("/") + "/"):
            raise UserError(
                _("{path} is a link that leads out of its folder.", path=path),
                _("Nothing is written through it."),
                _("Remove the link, then type the same command again."),
            )


def _is_disk_trouble(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
