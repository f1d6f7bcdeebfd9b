"""Adapters by name: where they are and which base they belong to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _


@dataclass(frozen=True)
class AdapterReference:
    """An adapter on this machine.

    Attributes
    ----------
    name : str
        What the user calls it.
    path : Path
        The folder with ``adapter_config.json``.
    """

    name: str
    path: Path

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.path / "adapter_model.safetensors"

    def base(self) -> str:
        """Return the base model: as the user named it, else the folder it was loaded from."""
        for candidate in (self.path, self.path.parent):
            args = _read(candidate / "args.json")
            if args.get("model"):
                return str(args["model"])
        return str(_read(self.path / "adapter_config.json").get("base_model_name_or_path") or "")


def locate_adapter(value: Any) -> AdapterReference:
    """Find the adapter that the user means.

    Parameters
    ----------
    value : object
        A folder of a checkpoint or run, the same as ``name=folder``, or an object
        with a ``checkpoint`` (such as the result of a training).

    Raises
    ------
    UserError
        When no adapter is there.
    """
    if hasattr(value, "checkpoint"):
        return _of_object(value)
    text = str(value)
    name, sign, folder = text.partition("=")
    if not sign or Path(text).expanduser().exists():
        name, folder = "", text
    path = _newest_checkpoint(Path(folder).expanduser().absolute())
    if not (path / "adapter_config.json").is_file():
        raise UserError(
            _("There is no adapter in {path}.", path=folder),
            _("It has neither adapter_config.json nor checkpoint folders."),
            _("Give the folder of a run or checkpoint; %swift runs lists them."),
        )
    return _checked(AdapterReference(name or _default_name(path), path))


def _of_object(value: Any) -> AdapterReference:
    if value.checkpoint is None:
        raise UserError(
            _("The run {id} has no checkpoint yet.", id=getattr(value, "id", "")),
            next_step=_("Wait until it has saved one: %swift runs"),
        )
    name = str(getattr(value, "id", "")) or _default_name(Path(value.checkpoint))
    return _checked(AdapterReference(name, Path(value.checkpoint)))


def _checked(adapter: AdapterReference) -> AdapterReference:
    if not adapter.weights.is_file():
        raise UserError(
            _("The adapter in {path} has no weights.", path=adapter.path),
            _("adapter_model.safetensors is missing."),
            _("Choose another checkpoint."),
        )
    return adapter


def _newest_checkpoint(path: Path) -> Path:
    if (path / "adapter_config.json").is_file():
        return path
    found = [entry for entry in path.glob("checkpoint-*") if entry.name[11:].isdigit()]
    return max(found, key=lambda entry: int(entry.name[11:]), default=path)


def _default_name(path: Path) -> str:
    return path.parent.name if path.name.startswith("checkpoint-") else path.name


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def common_base(adapters: Sequence[AdapterReference]) -> str:
    """Return the base model that all adapters share.

    Raises
    ------
    UserError
        When they belong to different models or do not say.
    """
    bases = {adapter.base() for adapter in adapters}
    if len(bases) == 1 and "" not in bases:
        return bases.pop()
    raise UserError(
        _("The adapters do not name one base model."),
        _("They name: {names}", names=", ".join(sorted(bases)) or _("none")),
        _("Say which: --model NAME"),
    )
