"""Adapters by name: where they are and which base they belong to."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.engine.training import checkpoints
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

ADAPTER_CONFIG = "adapter_config.json"
REFT_CONFIG = "reft_config.json"
MODEL_CONFIG = "config.json"
# A folder is what the first of these files in it says.
_KINDS = {ADAPTER_CONFIG: "peft", REFT_CONFIG: "reft", MODEL_CONFIG: "model"}
_WEIGHTS = {
    "peft": "adapter_model.safetensors",
    "reft": "reft_model.safetensors",
    "model": "model.safetensors",
}


@dataclass(frozen=True)
class AdapterReference:
    """What a training left on this machine.

    Attributes
    ----------
    name : str
        What the user calls it.
    path : Path
        The folder of the checkpoint.
    """

    name: str
    path: Path

    @property
    def kind(self) -> str:
        """``peft`` or ``reft``, which go onto a base, or ``model``, which needs none."""
        return _kind_of(self.path)

    @property
    def config(self) -> Path:
        """The file that says what it is."""
        return next(
            (self.path / file for file in _KINDS if (self.path / file).is_file()),
            self.path / ADAPTER_CONFIG,
        )

    @property
    def weights(self) -> Path:
        """The file of its weights, or the first of them."""
        usual = self.path / _WEIGHTS.get(self.kind, _WEIGHTS["peft"])
        if self.kind == "model" and not usual.is_file():
            return next(iter(sorted(self.path.glob("model*.safetensors"))), usual)
        return usual

    def base(self) -> str:
        """Return the base model: as the user named it, else the folder it was loaded from."""
        for candidate in (self.path, self.path.parent):
            args = _read(candidate / "args.json")
            model = args.get("requested_model") or args.get("model")
            if model:
                return str(model)
        return str(_read(self.path / ADAPTER_CONFIG).get("base_model_name_or_path") or "")

    def base_architecture(self) -> dict[str, Any]:
        """Return kind, depth and width of the model that it was trained on, where known."""
        noted = _read(self.path / "args.json").get("base_architecture")
        if isinstance(noted, dict):
            return noted
        folder = _read(self.path / ADAPTER_CONFIG).get("base_model_name_or_path")
        config = _read(Path(str(folder)) / MODEL_CONFIG) if folder else {}
        text = config.get("text_config")
        config = text if isinstance(text, dict) else config
        # Not the kind: parts of models go by names of their own.
        names = ("num_hidden_layers", "hidden_size")
        return {name: config[name] for name in names if name in config}


def _kind_of(path: Path) -> str:
    return next((kind for file, kind in _KINDS.items() if (path / file).is_file()), "")


def locate_adapter(value: Any) -> AdapterReference:
    """Find the adapter, or the whole model that a training left, that the user means.

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
    path = newest_checkpoint(Path(folder).expanduser().absolute())
    if not _kind_of(path):
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
            _("{file} is missing.", file=adapter.weights.name),
            _("Choose another checkpoint."),
        )
    return adapter


def newest_checkpoint(path: Path) -> Path:
    """Return the newest checkpoint of a run's folder, or of the newest run below it."""
    if _kind_of(path):
        return path
    for folder in [path, *sorted(path.glob("v*-*"), key=_version, reverse=True)]:
        found = checkpoints.numbered(folder)
        if found:
            return found[-1]
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
    PeftModel or InterventionModel
        The model with the adapter, in evaluation mode.

    Raises
    ------
    UserError
        When the adapter does not fit; `model` can be used as before.
    """
    from safetensors import SafetensorError

    errors = (RuntimeError, ValueError, KeyError, TypeError, OSError, ImportError, SafetensorError)
    try:
        _check_architecture(model, adapter)
        if adapter.kind == "reft":
            from swift_jupyter.engine.training.tuners.reft import load_reft

            return load_reft(model, adapter.path)
        return _load_peft(model, adapter, peft_name)
    except errors as error:
        raise UserError(
            _("The adapter {name} does not fit {model}.", name=adapter.name, model=model_name),
            (str(error).strip() or type(error).__name__).splitlines()[0],
            _("It was trained on {base}.", base=adapter.base() or _("another model")),
        ) from error


def _load_peft(model: Any, adapter: AdapterReference, peft_name: str) -> Any:
    from swift_jupyter.engine.models.loading import without_bars

    with without_bars():
        from peft import PeftConfig, PeftModel, PeftModelForCausalLM

    wrapped = model if isinstance(model, PeftModel) else None
    try:
        with _without_deprecations():
            if wrapped is None:
                config = PeftConfig.from_pretrained(str(adapter.path))
                config.inference_mode = True
                wrapped = PeftModelForCausalLM(model, config, adapter_name=peft_name)
            loaded = wrapped.load_adapter(adapter.path, adapter_name=peft_name)
        _check_complete(loaded)
    except Exception:
        if wrapped is not None and wrapped is not model:
            unwrap(wrapped)
        elif wrapped is not None and peft_name in wrapped.peft_config:
            wrapped.delete_adapter(peft_name)
        raise
    return wrapped.eval()


def unwrap(model: Any) -> Any:
    """Take all adapters off a model and return the base; a bare model is its own base."""
    from peft import PeftModel
    from transformers import PreTrainedModel

    if isinstance(model, PreTrainedModel):
        return model
    if isinstance(model, PeftModel) and not hasattr(model.base_model, "unload"):
        inner: Any = model.base_model
        if hasattr(inner, "disable_adapter_layers"):
            # Adaption prompts replace the attentions of the base.
            inner.disable_adapter_layers()
            return inner.model
        return inner  # Virtual tokens are not inside the base.
    return model.unload()


def _check_architecture(model: Any, adapter: AdapterReference) -> None:
    """Refuse an adapter of a model of another kind or shape, even if every weight finds a place."""
    from swift_jupyter.engine.models.architecture import base_architecture

    here, there = base_architecture(model.config), adapter.base_architecture()
    for name, words in (
        ("model_type", _("kind")),
        ("num_hidden_layers", _("number of layers")),
        ("hidden_size", _("width")),
    ):
        if there.get(name) is not None and here[name] != there[name]:
            raise ValueError(
                _(
                    "the {what} is {here}, and {there} where it was trained",
                    what=words,
                    here=here[name],
                    there=there[name],
                )
            )


def _check_complete(loaded: Any) -> None:
    """Refuse an adapter of which only a part found its place: it would answer nonsense."""
    # What prompt tuning puts before the tokens goes to a place of its own.
    unexpected = [name for name in loaded.unexpected_keys if name != "prompt_embeddings"]
    if unexpected:
        raise ValueError(
            _(
                "{count} of its weights have no place, such as {name}",
                count=len(unexpected),
                name=unexpected[0],
            )
        )
    # These are stored once for all layers, or only what they put out is.
    shared = ("vblora_vector_bank", "prompt_encoder")
    missing = [name for name in loaded.missing_keys if not any(word in name for word in shared)]
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
