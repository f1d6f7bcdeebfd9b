"""Several adapters for one model in memory, of whatever kinds."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

from swift_jupyter.engine.inference.adapters import AdapterReference, load_adapter, unwrap
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

# Ways to begin LoRA that change the base itself; our own checkpoints have none of them.
_MUTATING = ("pissa", "olora", "corda", "loftq")


class AdapterStack:
    """A base model with any number of named adapters.

    LoRA adapters are on the model together. Two adapters of other kinds cannot be, so
    these take turns: the one that is to answer is put on, and the last one taken off.

    Parameters
    ----------
    base : PreTrainedModel
        The model.
    name : str
        How the user calls it.
    """

    def __init__(self, base: Any, name: str) -> None:
        self._base = base
        self._name = name
        self._references: dict[str, AdapterReference] = {}
        self._mounted: set[str] = set()
        self._untouched: dict[str, Any] = {}
        self.model = base

    @property
    def names(self) -> list[str]:
        """The adapters, in the order in which they came."""
        return list(self._references)

    def add(self, adapter: AdapterReference) -> None:
        """Add an adapter, and see that it fits.

        Raises
        ------
        UserError
            When it does not; the others stay.
        """
        self.remove(adapter.name)
        self._mount(adapter)
        self._references[adapter.name] = adapter

    def remove(self, name: str) -> None:
        """Forget an adapter, if it is there."""
        self._references.pop(name, None)
        if name not in self._mounted:
            return
        if len(self._mounted) == 1:
            self._unmount()
            return
        self.model.delete_adapter(_peft_name(name))
        self._mounted.remove(name)

    @contextlib.contextmanager
    def only(self, name: str) -> Iterator[None]:
        """Let one adapter be active, or none when the name is empty.

        Raises
        ------
        UserError
            When there is no such adapter.
        """
        if name and name not in self._references:
            raise UserError(
                _("There is no adapter '{name}' in memory.", name=name),
                _("There are: {names}", names=", ".join(self._references) or _("none")),
            )
        if not name:
            if self._mounted and not self._is_lora(next(iter(self._mounted))):
                self._unmount()
            switched_off: Any = (
                self.model.disable_adapter() if self._mounted else contextlib.nullcontext()
            )
            with switched_off:
                yield
            return
        if name not in self._mounted:
            self._mount(self._references[name])
        if self._references[name].kind == "peft":
            self.model.set_adapter(_peft_name(name))
        yield

    def _is_lora(self, name: str) -> bool:
        adapter = self._references.get(name)
        return adapter is not None and _is_plain_lora(adapter)

    def _mount(self, adapter: AdapterReference) -> None:
        together = _is_plain_lora(adapter) and all(self._is_lora(name) for name in self._mounted)
        if not together:
            self._unmount()
        if _changes_base(adapter):
            state = self._base.state_dict()
            self._untouched = {key: value.detach().clone() for key, value in state.items()}
        try:
            self.model = load_adapter(self.model, adapter, _peft_name(adapter.name), self._name)
        except UserError:
            self._restore()
            raise
        self._mounted.add(adapter.name)

    def _unmount(self) -> None:
        if self._mounted:
            self.model = self._base = unwrap(self.model)
            self._mounted = set()
        self._restore()

    def _restore(self) -> None:
        if self._untouched:
            self._base.load_state_dict(self._untouched)
            self._untouched = {}


def _config(adapter: AdapterReference) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(adapter.config.read_text(encoding="utf-8"))
    return config


def _is_plain_lora(adapter: AdapterReference) -> bool:
    return (
        adapter.kind == "peft"
        and _config(adapter).get("peft_type") == "LORA"
        and not _changes_base(adapter)
    )


def _changes_base(adapter: AdapterReference) -> bool:
    if adapter.kind != "peft":
        return False
    init = _config(adapter).get("init_lora_weights")
    return isinstance(init, str) and init.startswith(_MUTATING)


def _peft_name(name: str) -> str:
    """Return a name that peft can use as the name of a module: no dots."""
    return "a_" + re.sub(r"\W", "_", name)
