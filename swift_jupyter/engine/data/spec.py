"""The dataset spec string: ``[hf::|ms::]<id-or-path>[:subset1/subset2][#N]``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

HUB_PREFIXES = {"hf": "huggingface", "ms": "modelscope"}
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True)
class DatasetSpec:
    """A parsed dataset spec.

    Attributes
    ----------
    name : str
        An id, a registered name or a path.
    hub : str or None
        ``"huggingface"`` or ``"modelscope"`` when the spec names its hub.
    subsets : tuple of str
        The subsets asked for; empty for the default one.
    count : int or None
        How many rows to take (``#N``); None for all.
    """

    name: str
    hub: str | None = None
    subsets: tuple[str, ...] = ()
    count: int | None = None

    @property
    def short_name(self) -> str:
        """The last segment of the name, in lower case."""
        return re.split(r"[\\/]", self.name.rstrip("\\/"))[-1].lower()

    def __str__(self) -> str:
        prefix = {hub: short for short, hub in HUB_PREFIXES.items()}.get(self.hub or "", "")
        return "".join(
            (
                f"{prefix}::" if prefix else "",
                self.name,
                f":{'/'.join(self.subsets)}" if self.subsets else "",
                f"#{self.count}" if self.count is not None else "",
            )
        )


def exists_on_disk(text: str) -> bool:
    """Tell whether `text` names a file or a folder."""
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # Too long, a NUL, an unknown home.
        return False


def parse_spec(text: str, exists: Callable[[str], bool] = exists_on_disk) -> DatasetSpec:
    """Parse a dataset spec.

    Parameters
    ----------
    text : str
        The spec as typed.
    exists : callable, optional
        Tells whether a text names something on the disk. Whatever does is
        taken literally, so paths may contain ``:`` and ``#``.

    Raises
    ------
    UserError
        For an empty spec, an unknown hub prefix or a count that is no
        positive whole number.
    """
    text = text.strip()
    if exists(text):
        return DatasetSpec(text)
    hub, rest = _split_hub(text)
    count = None
    if not exists(rest) and "#" in rest:
        rest, number = rest.rsplit("#", 1)
        count = _positive(number, text)
    subsets: tuple[str, ...] = ()
    if not exists(rest):
        rest, subsets = _split_subsets(rest)
    if not rest.strip():
        raise UserError(
            _("The dataset spec '{spec}' names no dataset.", spec=text),
            next_step=_("Write it as id, id:subset, id#500 or a path to a file."),
        )
    return DatasetSpec(rest, hub, subsets, count)


def _split_hub(text: str) -> tuple[str | None, str]:
    if "::" not in text:
        return None, text
    prefix, rest = text.split("::", 1)
    hub = HUB_PREFIXES.get(prefix.strip().lower())
    if hub is None:
        raise UserError(
            _("'{prefix}' in the dataset spec '{spec}' is not a hub.", prefix=prefix, spec=text),
            next_step=_("Use ms:: for ModelScope or hf:: for Hugging Face."),
        )
    return hub, rest


def _positive(number: str, spec: str) -> int:
    if number.isascii() and number.isdecimal() and int(number) > 0:
        return int(number)
    raise UserError(
        _("The count '#{number}' of the dataset spec '{spec}' is wrong.", number=number, spec=spec),
        _("It must be a whole number of at least 1."),
        _("Write for example {example}.", example=spec.rsplit("#", 1)[0] + "#500"),
    )


def _split_subsets(text: str) -> tuple[str, tuple[str, ...]]:
    drive = text[:2] if _DRIVE.match(text) else ""
    name, _colon, subsets = text[len(drive) :].partition(":")
    return drive + name, tuple(part for part in subsets.split("/") if part)
