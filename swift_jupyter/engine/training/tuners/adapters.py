"""Training an adapter of peft."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import TrainerCallback

from swift_jupyter.engine.training.tuners import exact_state
from swift_jupyter.engine.training.tuners.adalora import (
    RankAllocation,
    load_allocator,
    orthogonality,
    save_allocator,
)
from swift_jupyter.engine.training.tuners.mutating import MutatingInit
from swift_jupyter.engine.training.tuners.options import TunerOptions
from swift_jupyter.engine.training.tuners.peft_tuners import LORA, LORA_FLAVOURS, PEFT_TUNERS
from swift_jupyter.engine.training.tuners.protocol import PlainTuner
from swift_jupyter.engine.training.tuners.targets import (
    choose_targets,
    common_divisor,
    feedforward_among,
    modules_called,
)
from swift_jupyter.engine.training.tuners.tuner_args import read_tuner_args
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel

# peft's default size of blocks, which fits only models of round widths.
_LARGEST_BLOCK = 256
_INITS = {"true": True, "false": False}
# What peft raises for options that do not fit the model or each other.
_MISFITS = (ValueError, TypeError, KeyError, AssertionError, NotImplementedError, ImportError)


class AdapterTuner(PlainTuner):
    """LoRA and every other adapter of `PEFT_TUNERS`.

    Parameters
    ----------
    options : TunerOptions
        ``tuner_type`` names the kind.
    total_steps : int
        How many steps the run has; AdaLoRA plans its ranks by them.
    """

    def __init__(self, options: TunerOptions, total_steps: int = 0) -> None:
        self._options = with_flavour(options)
        self._name = options.tuner_type
        self._kind = PEFT_TUNERS[options.tuner_type]
        self._total_steps = total_steps
        self._mutating: MutatingInit | None = None
        self.rate = self._kind.rate
        self.packable = self._kind.place != "nowhere" or self._name == "trainable_tokens"
        # Its trained keys and values are a cache, which recomputing layers cannot take.
        self.checkpointing = self._name not in ("prefix_tuning", "cartridge", "llama_adapter")

    def check(self) -> None:
        """See that the package and the fields that this kind needs are there."""
        package = self._kind.package
        if package and importlib.util.find_spec(package) is None:
            name = {"sklearn": "scikit-learn"}.get(package, package)
            raise UserError(
                _("{tuner} needs the package {package}.", tuner=self._name, package=name),
                _("It is not installed."),
                _("Type: %pip install {package}", package=name),
            )
        read_tuner_args(self._config_class(), self._options.tuner_args, self._name)
        missing = [name for name in self._kind.required if name not in self._options.tuner_args]
        if missing:
            raise UserError(
                _("{tuner} needs {field}.", tuner=self._name, field=missing[0]),
                next_step=_(
                    "For example: --tuner_args '{{\"{field}\": [1, 2, 3]}}'", field=missing[0]
                ),
            )

    def _config_class(self) -> type[PeftConfig]:
        import peft

        found: type[PeftConfig] = getattr(peft, self._kind.config)
        return found

    def prepare(self, model: PreTrainedModel) -> PeftModel:
        """Wrap the model with the adapter."""
        from peft import get_peft_model

        targets = choose_targets(model, self._options, self._kind.place)
        try:
            wrapped: PeftModel = get_peft_model(model, self._config(model, targets))
        except _MISFITS as error:
            raise UserError(
                _("{tuner} cannot be applied with these options.", tuner=self._name),
                (str(error) or type(error).__name__).splitlines()[0],
                _("Check --target_modules, --modules_to_save, --lora_rank and --tuner_args."),
            ) from error
        if isinstance(self._init(), str) and MutatingInit.concerns(str(self._init())):
            self._mutating = MutatingInit(wrapped)
        return wrapped

    def _config(self, model: PreTrainedModel, targets: Any) -> PeftConfig:
        options, config = self._options, self._config_class()
        known = {f.name for f in dataclasses.fields(config)}
        values: dict[str, Any] = {
            field: getattr(options, name) for field, name in self._kind.options.items()
        }
        values.update(self._kind.fixed)
        if "target_modules" in known and targets is not None:
            values["target_modules"] = targets
        self._keep_ties(model, known, values)
        if options.modules_to_save:
            modules_called(model, options.modules_to_save, "modules_to_save")
            values["modules_to_save"] = list(options.modules_to_save)
        if self._kind is LORA:
            values["init_lora_weights"] = self._init()
        elif self._name == "adalora":
            values["total_step"] = self._total_steps
        elif self._name == "ia3":
            values["feedforward_modules"] = feedforward_among(targets, model)
        if self._kind.dividing:
            values[self._kind.dividing] = common_divisor(model, _LARGEST_BLOCK)
        elif self._name == "llama_adapter":
            values["adapter_layers"] = model.config.get_text_config().num_hidden_layers
        values.update(read_tuner_args(config, options.tuner_args, self._name))
        if self._name == "cpt":
            values.setdefault("cpt_mask", [1] * len(values["cpt_token_ids"]))
            values.setdefault("cpt_tokens_type_mask", [1] * len(values["cpt_token_ids"]))
        return config(task_type="CAUSAL_LM", **values)

    def _init(self) -> bool | str:
        wanted = self._options.init_weights
        return _INITS.get(wanted.lower(), wanted)

    def _keep_ties(self, model: PreTrainedModel, known: set[str], values: dict[str, Any]) -> None:
        """Let an embedding that is trained stay the output layer as well.

        Otherwise training would part them, and a merged model, which stores one tensor
        for both, would be neither.
        """
        if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
            return
        pair = (model.get_input_embeddings(), model.get_output_embeddings())
        names = [name for name, module in model.named_modules() if module in pair]
        wanted = [
            name
            for name in (*self._options.modules_to_save, *self._options.target_modules)
            if any(full == name or full.endswith(f".{name}") for full in names)
        ]
        if not wanted:
            return
        if "ensure_weight_tying" not in known:
            raise UserError(
                _("{tuner} cannot train {module} of this model.", tuner=self._name,
                  module=wanted[0]),
                _("Its embedding and its output layer are one, and only LoRA keeps them so."),
                _("Use --tuner_type lora, or leave it out."),
            )  # fmt: skip
        values["ensure_weight_tying"] = True

    def callbacks(self) -> Sequence[TrainerCallback]:
        """AdaLoRA's ranks are allocated after each step."""
        return (RankAllocation(),) if self._name == "adalora" else ()

    def penalty(self, model: nn.Module) -> Tensor | None:
        """AdaLoRA's matrices are held near orthogonal ones."""
        return orthogonality(model) if self._name == "adalora" else None

    def extra_positions(self, model: nn.Module) -> int:
        """The virtual tokens of prompt tuning have logits as well."""
        if not self._kind.extra_tokens:
            return 0
        wrapped: Any = model
        return int(getattr(wrapped.active_peft_config, self._kind.extra_tokens))

    def rates(self, model: nn.Module) -> dict[str, float]:
        """LoRA+ trains the B matrices faster (Hayou et al., "LoRA+", 2024)."""
        ratio = self._options.lorap_lr_ratio if self._kind is LORA else None
        if not ratio or ratio == 1:
            return {}
        return {
            name: ratio
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and ("lora_B" in name or "lora_embedding_B" in name)
        }

    def save(self, model: nn.Module, folder: Path, state: dict[str, Tensor] | None) -> None:
        """Write the adapter; one that changed the base is written as a change to the base."""
        super().save(model, folder, state)
        if self._mutating is not None:
            self._mutating.rewrite(folder)
        if self._kind.exact_state or self._mutating is not None:
            exact_state.save(model, folder)
        if self._name == "adalora":
            save_allocator(model, folder)

    def load(self, model: nn.Module, folder: Path) -> bool:
        """Read the raw parameters where the adapter's own file does not hold them."""
        loaded = exact_state.load(model, folder)
        if loaded and self._name == "adalora":
            load_allocator(model, folder)
        return loaded


def with_flavour(options: TunerOptions) -> TunerOptions:
    """Return the options with what ``dora``, ``pissa`` and the like stand for."""
    changes = dict(LORA_FLAVOURS.get(options.tuner_type, {}))
    if changes.get("lorap_lr_ratio") and options.lorap_lr_ratio:
        del changes["lorap_lr_ratio"]
    if changes.get("init_weights") and options.init_weights.startswith(changes["init_weights"]):
        del changes["init_weights"]  # Such as pissa_niter_16.
    return dataclasses.replace(options, **changes)
