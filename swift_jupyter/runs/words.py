"""What people are told of a run that stops, by the sort of its work."""

from __future__ import annotations

from pathlib import Path

from swift_jupyter.i18n import translate as _


def on_stop(command: str) -> str:
    """Say what a stop does to the work of `command`."""
    if command == "download":
        return _("Stopping; what has arrived is kept.")
    if command == "mirror":
        return _("Stopping; what it holds is kept.")
    if command == "deploy":
        return _("Stopping; the memory is free in a moment.")
    return _("Stopping; it saves a checkpoint after this step.")


def on_kill(command: str) -> str:
    """Say what is left of the work of `command` when its worker is killed."""
    if command == "download":
        return _("Killed. What has arrived is kept.")
    if command == "mirror":
        return _("Killed. What it holds is kept.")
    if command == "deploy":
        return _("Killed. The memory is free.")
    return _("Killed. The last checkpoint is kept.")


def after_done(command: str, path: Path) -> str:
    """Say what can be typed when the work of `command` is done; empty when nothing special."""
    if command in ("download", "mirror"):
        return _("To see what is on this machine: %swift cache")
    if command == "deploy":
        return _("To serve it again: %swift deploy")
    return _("To use it: %swift infer --adapters {path}", path=path)
