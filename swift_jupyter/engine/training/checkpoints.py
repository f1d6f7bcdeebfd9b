"""Checkpoints that are either complete or absent.

A checkpoint is written into a staging folder, flushed to the disk and published by
one rename, so that a crash or power cut leaves the previous one usable. One that goes
loses its name by a rename, too, before its files are removed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from swift_jupyter.files import sync_folder, sync_tree

STAGING = ".unpublished"
_NAME = re.compile(r"checkpoint-(\d+)")


def staging_folder(run_folder: Path) -> Path:
    """Return an empty folder for checkpoints in the making."""
    folder = run_folder / STAGING
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def publish(staged: Path, run_folder: Path) -> Path:
    """Give a finished checkpoint its name in the run's folder.

    Parameters
    ----------
    staged : Path
        The complete checkpoint below the staging folder.
    run_folder : Path
        Where it belongs.
    """
    target = run_folder / staged.name
    sync_tree(staged)
    if target.exists():
        _retire(target, run_folder)
    staged.rename(target)
    sync_folder(run_folder)
    return target


def _retire(checkpoint: Path, run_folder: Path) -> None:
    """Remove a checkpoint, whose name is free as soon as this begins."""
    aside = run_folder / STAGING / f"old-{checkpoint.name}"
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def discard_staging(run_folder: Path) -> None:
    """Remove what a crash or a full disk left unfinished."""
    shutil.rmtree(run_folder / STAGING, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match.group(1)) if match else 0


def numbered(folder: Path) -> list[Path]:
    """Return the folders that have a checkpoint's name, the oldest first."""
    found = [
        entry
        for entry in folder.glob("checkpoint-*")
        if _NAME.fullmatch(entry.name) and entry.is_dir()
    ]
    return sorted(found, key=step_of)


def published(run_folder: Path) -> list[Path]:
    """Return the published checkpoints that training can go on from, the oldest first."""
    return [entry for entry in numbered(run_folder) if (entry / "trainer_state.json").is_file()]


def last_checkpoint(run_folder: Path) -> Path | None:
    """Return the newest published checkpoint that training can go on from."""
    found = published(run_folder)
    return found[-1] if found else None


def remove_old(run_folder: Path, keep: int | None, best: Path | None) -> None:
    """Remove all but the newest `keep` checkpoints; the newest and the best always stay."""
    if not keep or keep < 1:
        return
    found = published(run_folder)
    staying = set(found[-keep:])
    if best in found and best not in staying:
        # The best takes the place of the oldest, unless that is the only one.
        staying = {*found[max(len(found) - keep + 1, 0) :], found[-1], best}
    for checkpoint in found:
        if checkpoint not in staying:
            _retire(checkpoint, run_folder)
