"""Adapters by name: where they are and which base they belong to."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
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
            model = args.get("requested_model") or args.get("model")
            if model:
                return str(model)
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
    """Return the newest checkpoint of a run's folder, or of the newest run below it."""
    if (path / "adapter_config.json").is_file():
        return path
    for folder in [path, *sorted(path.glob("v*-*"), key=_version, reverse=True)]:
        found = [entry for entry in folder.glob("checkpoint-*") if entry.name[11:].isdigit()]
        if found:
            return max(found, key=lambda entry: int(entry.name[11:]))
    return path


def _version(folder: Path) -> int:
    number = folder.name[1:].partition("-")[0]
    return int(number) if number.isdigit() else -1


def load_adapter(model: Any, adapter: AdapterReference, peft_name: str, model_name: str) -> Any:
    """Put an adapter beside those that a model has; the base stays as it is.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        The base, or what an earlier call returned.
    adapter : AdapterReference
        The adapter.
    peft_name : str
        How peft calls it.
    model_name : str
        How the user calls the model.

    Returns
    -------
    PeftModel
        The model with the adapter, in evaluation mode.

    Raises
    ------
    UserError
        When the adapter does not fit; `model` can be used as before.
    """
    from peft import PeftConfig, PeftModel, PeftModelForCausalLM
    from safetensors import SafetensorError

    wrapped = model if isinstance(model, PeftModel) else None
    try:
        with _without_deprecations():
            if wrapped is None:
                config = PeftConfig.from_pretrained(str(adapter.path))
                config.inference_mode = True
                wrapped = PeftModelForCausalLM(model, config, adapter_name=peft_name)
            loaded = wrapped.load_adapter(adapter.path, adapter_name=peft_name)
        _check_complete(loaded)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        if wrapped is not None and wrapped is not model:
            wrapped.unload()
        elif wrapped is not None and peft_name in wrapped.peft_config:
            wrapped.delete_adapter(peft_name)
        raise UserError(
            _("The adapter {name} does not fit {model}.", name=adapter.name, model=model_name),
            str(error).strip().splitlines()[0],
            _("It was trained on {base}.", base=adapter.base() or _("another model")),
        ) from error
    return wrapped.eval()


def _check_complete(loaded: Any) -> None:
    """Refuse an adapter of which only a part found its place: it would answer nonsense."""
    if loaded.unexpected_keys:
        raise ValueError(
            _(
                "{count} of its weights have no place, such as {name}",
                count=len(loaded.unexpected_keys),
                name=loaded.unexpected_keys[0],
            )
        )
    missing = [name for name in loaded.missing_keys if "lora_" in name]
    if missing:
        raise ValueError(
            _("{count} weights are missing, such as {name}", count=len(missing), name=missing[0])
        )


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """Keep out of the cell what peft and transformers have to tell each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # Missing weights are an error of ours, see `_check_complete`.
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        yield


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
