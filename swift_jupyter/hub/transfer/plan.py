"""What a pull needs to fetch, and whether there is room for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from swift_jupyter.files import check_room, existing_parent
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.store.store import Store
from swift_jupyter.hub.transfer.part_file import part_key


def with_hash(store: Store, file: RemoteFile) -> RemoteFile:
    """Return `file` with its SHA-256, if the store knows it by the other hash."""
    if file.sha256 or not file.git_sha1:
        return file
    found = store.find_git(file.git_sha1, file.size)
    return replace(file, sha256=found) if found else file


def check_rooms(
    store: Store,
    missing: Iterable[RemoteFile],
    wanted: Sequence[RemoteFile],
    roots: Iterable[Path],
) -> None:
    """See ahead that what is still missing fits.

    On another file system than the store's the files are copies, which need
    room of their own.

    Parameters
    ----------
    store : Store
        Where the files arrive; what has arrived of them is counted.
    missing : iterable of RemoteFile
        What is to be fetched.
    wanted : sequence of RemoteFile
        All that is to be shown below each of `roots`.
    roots : iterable of Path
        The folders of the snapshots.

    Raises
    ------
    UserError
        When it does not fit.
    """
    parts = store.parts()
    check_room(
        store.root, sum(max(0, (file.size or 0) - _arrived(parts, file)) for file in missing)
    )
    own = _device(store.root)
    copies: dict[int, tuple[Path, int]] = {}
    for root in roots:
        device = _device(root)
        if device != own:
            needed = copies.get(device, (root, 0))[1] + _absent_bytes(root, wanted)
            copies[device] = root, needed
    for root, needed in copies.values():
        check_room(root, needed)


def _arrived(parts: Path, file: RemoteFile) -> int:
    try:
        state = (parts / f"{part_key(file)}.part").stat()
    except OSError:
        return 0
    # A part is sparse: what counts is what the disk holds of it.
    return min(getattr(state, "st_blocks", 0) * 512, state.st_size)


def _absent_bytes(root: Path, wanted: Iterable[RemoteFile]) -> int:
    total = 0
    for file in wanted:
        try:
            size = (root / file.path).stat().st_size
        except OSError:
            size = -1
        if size != file.size:
            total += file.size or 0
    return total


def _device(folder: Path) -> int:
    return existing_parent(folder).stat().st_dev
