"""Adapter and base as one standalone model, with a measurement that they agree."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift_jupyter.engine.inference.adapters import AdapterReference, load_adapter
from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.engine.training.tuners.peft_tuners import merges
from swift_jupyter.errors import UserError
from swift_jupyter.files import (
    check_room,
    is_disk_full,
    sync_folder,
    sync_tree,
    write_json_atomically,
)
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from torch import Tensor

ORIGIN_FILE = "swift_jupyter.json"
PROBES = ("Who are you?", "你是谁？", "Write one sentence about the sea.")


@dataclass(frozen=True)
class Merged:
    """A merged model.

    Attributes
    ----------
    path : Path
        Its folder.
    largest_difference : float
        The largest absolute difference of any logit between base + adapter and the
        merged model as reloaded from the disk, over all positions of the probes.
    logit_scale : float
        The largest absolute logit, to judge the difference by.
    same_choices : float
        The share of positions at which both find the same token likeliest.
    dtype : str
        The data type of the stored weights.
    reused : bool
        Whether it was there already, made of the very same adapter and base.
    """

    path: Path
    largest_difference: float
    logit_scale: float
    same_choices: float
    dtype: str
    reused: bool = False


def merge(
    adapter: AdapterReference,
    base: Path,
    output: Path,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    report: Callable[[str], None] = lambda _text: None,
) -> Merged:
    """Write the merged model into `output`.

    Parameters
    ----------
    adapter : AdapterReference
        The adapter.
    base : Path
        The folder of the base model.
    output : Path
        The folder to make.
    dtype : str, optional
        The data type of the stored weights; the base's own by default.
    overwrite : bool
        Whether an older merge in `output` may be replaced.
    report : callable, optional
        Called with what is being done.

    Raises
    ------
    UserError
        When there is nothing to merge, when `output` holds something else, and when the
        disk is full.
    """
    check_mergeable(adapter)
    origin = _origin(adapter, base, dtype)
    existing = _existing(output, origin, overwrite)
    if existing is not None:
        return existing
    staging = output.parent / f".{output.name}.unpublished"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        _check_room(base, staging, dtype)
        merged = _write(adapter, base, staging, dtype, trust_remote_code, report)
        numbers = {key: value for key, value in vars(merged).items() if key != "path"}
        write_json_atomically(staging / ORIGIN_FILE, {**origin, **numbers})
        sync_tree(staging)
        _publish(staging, output)
    except UserError:
        raise
    except Exception as error:
        # The writers of weights have errors of their own for a full disk.
        if not isinstance(error, OSError) and not is_disk_full(error, output.parent):
            raise
        raise UserError(
            _("The merged model cannot be written to {path}.", path=output),
            getattr(error, "strerror", None) or str(error).strip().splitlines()[0],
            _("Free some space, or choose another --output_dir."),
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Merged(**{**vars(merged), "path": output})


def check_mergeable(adapter: AdapterReference) -> None:
    """See that an adapter's change can become part of the base's weights.

    Raises
    ------
    UserError
        Says why it cannot, and how to use it.
    """
    how = _("Use it as it is: %%swift infer --adapters {path}", path=adapter.path)
    if adapter.kind == "model":
        raise UserError(
            _("There is nothing to merge in {path}.", path=adapter.path),
            _("It is a whole model, since its own weights were trained."),
            _("Use it as it is: %%swift infer --model {path}", path=adapter.path),
        )
    if adapter.kind == "reft":
        raise UserError(
            _("The adapter {name} cannot be merged.", name=adapter.name),
            _("ReFT changes hidden states at some positions, and no weights."),
            how,
        )
    if not merges(_peft_type(adapter)):
        raise _unmergeable(adapter, "")


def _peft_type(adapter: AdapterReference) -> str:
    config = json.loads(adapter.config.read_text(encoding="utf-8"))
    return str(config.get("peft_type", ""))


def _unmergeable(adapter: AdapterReference, why: str) -> UserError:
    return UserError(
        _("The adapter {name} cannot be merged.", name=adapter.name),
        why or _("{kind} is no change of the base's weights.", kind=_peft_type(adapter)),
        _("Use it as it is: %%swift infer --adapters {path}", path=adapter.path),
    )


def _part_adapted_embeddings(base: Any) -> None:
    """Give an adapted output layer weights of its own, where the embedding's are adapted, too.

    Tied layers have one tensor; merging both would add the same change to it twice.
    Afterwards both say the same, and are stored once as before.
    """
    import torch

    layers = [base.get_input_embeddings(), base.get_output_embeddings()]
    inner: list[Any] = [getattr(layer, "base_layer", None) for layer in layers]
    if all(layer is not None for layer in inner) and inner[0].weight is inner[1].weight:
        inner[1].weight = torch.nn.Parameter(inner[1].weight.detach().clone())


def _merged(model: Any, adapter: AdapterReference) -> Any:
    _part_adapted_embeddings(model.get_base_model())
    try:
        return model.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, AttributeError, TypeError) as error:
        why = str(error).strip().splitlines()
        raise _unmergeable(adapter, why[0] if why else "") from error


def _origin(adapter: AdapterReference, base: Path, dtype: str | None) -> dict[str, Any]:
    """Return what identifies a merge: the bytes of the adapter, and the base."""
    digest = hashlib.sha256()
    for path in (adapter.weights, adapter.config):
        digest.update(path.read_bytes())
    weights = sorted(base.glob("*.safetensors"))
    return {
        "made_by": "merge",
        "adapter": str(adapter.path),
        "adapter_sha256": digest.hexdigest(),
        "base": str(base),
        "base_files": [[w.name, w.stat().st_size, w.stat().st_mtime_ns] for w in weights],
        "wanted_dtype": dtype,
    }


def _existing(output: Path, origin: dict[str, Any], overwrite: bool) -> Merged | None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    stored = _read_origin(output)
    identity = ("adapter_sha256", "base", "base_files", "wanted_dtype")
    if stored and all(stored.get(key) == origin[key] for key in identity):
        names = ("largest_difference", "logit_scale", "same_choices", "dtype")
        return Merged(output, **{name: stored[name] for name in names}, reused=True)
    if stored and overwrite:
        return None
    why = (
        _("It was merged from another adapter, or from an older state of this one.")
        if stored
        else _("It was not made by merge.")
    )
    next_step = (
        _("To replace it: --overwrite") if stored else _("Choose another folder: --output_dir")
    )
    raise UserError(_("{path} already exists.", path=output), why, next_step)


def _read_origin(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) and value.get("made_by") == "merge" else {}


def _check_room(base: Path, folder: Path, dtype: str | None) -> None:
    import torch

    needed = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    if dtype:
        wanted = getattr(torch, dtype)
        needed = needed * wanted.itemsize // _stored_dtype(base, wanted).itemsize
    check_room(
        folder.parent,
        needed,
        _("There is no room for the merged model in {path}.", path=folder.parent),
        _("Free some space (%swift cache), or choose another --output_dir."),
    )


def _write(
    adapter: AdapterReference,
    base: Path,
    staging: Path,
    dtype: str | None,
    trust_remote_code: bool,
    report: Callable[[str], None],
) -> Merged:
    import torch

    from swift_jupyter.engine.inference.loaded import release_memory
    from swift_jupyter.engine.models.loading import (
        choose_device,
        load_model,
        load_tokenizer,
        without_bars,
    )

    device = choose_device()
    tokenizer = load_tokenizer(base, trust_remote_code)
    # Merging happens in the precision in which the model is used here; the stored
    # data type is a separate choice.
    options = ModelOptions(trust_remote_code=trust_remote_code)
    report(_("loading the base"))
    model = load_model(base, options, device)
    stored = getattr(torch, dtype) if dtype else _stored_dtype(base, model.dtype)
    report(_("asking the adapter"))
    with_adapter = load_adapter(model, adapter, "default", base.name)
    before = [_logits(with_adapter, tokenizer, probe) for probe in PROBES]
    report(_("merging"))
    merged = _merged(with_adapter, adapter)
    with without_bars():
        merged.to(stored).save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    _copy_extras(base, staging)
    del model, with_adapter, merged
    release_memory()
    report(_("comparing"))
    reloaded = load_model(staging, options, device)
    after = [_logits(reloaded, tokenizer, probe) for probe in PROBES]
    return _compare(staging, before, after, str(stored).removeprefix("torch."))


def _stored_dtype(base: Path, fallback: Any) -> Any:
    """Return the data type of the weights on the disk, from the header of the first file."""
    import torch
    from safetensors import safe_open

    names = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118 (not a mapping)
                return names.get(weights.get_slice(key).get_dtype(), fallback)
    return fallback


def _logits(model: Any, tokenizer: Any, text: str) -> Tensor:
    """Return the logits of a probe, (length, vocabulary), float32 on the CPU."""
    import torch

    if getattr(tokenizer, "chat_template", None):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
    else:
        inputs = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        logits = model(
            input_ids=inputs["input_ids"].to(model.device),
            attention_mask=inputs["attention_mask"].to(model.device),
        ).logits
    rows: Tensor = logits[0].float().cpu()
    return rows


def _compare(path: Path, before: list[Tensor], after: list[Tensor], dtype: str) -> Merged:
    pairs = list(zip(before, after, strict=True))
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs)
    return Merged(
        path=path,
        largest_difference=max(float((a - b).abs().max()) for a, b in pairs),
        logit_scale=max(float(a.abs().max()) for a in before),
        same_choices=same / sum(len(a) for a in before),
        dtype=dtype,
    )


def _copy_extras(base: Path, staging: Path) -> None:
    """Copy small files that belong to the model but that nobody saved again."""
    for name in ("generation_config.json", "chat_template.jinja", "LICENSE", "LICENSE.txt"):
        if (base / name).is_file() and not (staging / name).exists():
            shutil.copy(base / name, staging / name)


def _publish(staging: Path, output: Path) -> None:
    """Put the new model in place; an older one steps aside until that is done."""
    old = output.parent / f".{output.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    staging.rename(output)
    sync_folder(output.parent)
    shutil.rmtree(old, ignore_errors=True)
