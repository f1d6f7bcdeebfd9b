"""Checkpoints that are either complete or absent.

A checkpoint is written into a staging folder, flushed to the disk and published by
one rename, so that a crash or power cut leaves the previous one usable.
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
        # A resumed run may reach a step again; the older twin steps aside first.
        shutil.rmtree(target)
    staged.rename(target)
    sync_folder(run_folder)
    return target


def discard_staging(run_folder: Path) -> None:
    """Remove what a crash or a full disk left unfinished."""
    shutil.rmtree(run_folder / STAGING, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name."""
    match = _NAME.fullmatch(checkpoint.name)
    return int(match.group(1)) if match else 0


def last_checkpoint(run_folder: Path) -> Path | None:
    """Return the newest published checkpoint that training can go on from."""
    complete = [
        entry
        for entry in run_folder.glob("checkpoint-*")
        if _NAME.fullmatch(entry.name) and (entry / "trainer_state.json").is_file()
    ]
    return max(complete, key=step_of, default=None)


def remove_old(run_folder: Path, keep: int | None, best: Path | None) -> None:
    """Remove all but the newest `keep` checkpoints; the best one always stays."""
    if not keep or keep < 1:
        return
    found = sorted(run_folder.glob("checkpoint-*"), key=step_of)
    for checkpoint in found[:-keep]:
        if _NAME.fullmatch(checkpoint.name) and checkpoint != best:
            shutil.rmtree(checkpoint, ignore_errors=True)
