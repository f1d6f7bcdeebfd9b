"""From options to an optimizer over a model's parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainingArguments
from transformers.pytorch_utils import Conv1D

from swift_jupyter.engine.training.optimizers.apollo import Apollo
from swift_jupyter.engine.training.optimizers.base import ProjectedOptimizer
from swift_jupyter.engine.training.optimizers.galore import GaLore
from swift_jupyter.engine.training.optimizers.int8_linear import Int8Linear
from swift_jupyter.engine.training.optimizers.options import OptimizerOptions, optimizer_title
from swift_jupyter.engine.training.optimizers.qgalore import QGaLore
from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.i18n import translate as _

_PER_PARAMETER = "galore_optim_per_parameter"
_APOLLO_RANK = 128
_MINI_RANK, _MINI_SCALE = 1, 128**0.5


@dataclass(frozen=True)
class OptimizerPlan:
    """When weights are updated.

    Attributes
    ----------
    per_parameter : bool
        Whether during backward, each weight on its own.
    notices : list of str
        What the user should know about it.
    """

    per_parameter: bool
    notices: list[str]


def plan_optimizer(
    options: OptimizerOptions, arguments: TrainingArguments, dtype: torch.dtype
) -> OptimizerPlan:
    """Decide when weights are updated.

    Parameters
    ----------
    options : OptimizerOptions
        One of our optimizers.
    arguments : TrainingArguments
        Accumulation, clipping and the number of processes.
    dtype : torch.dtype
        The data type of the weights.

    Raises
    ------
    UserError
        When it cannot work in these circumstances.
    """
    name = optimizer_title(options)
    if arguments.deepspeed or arguments.fsdp:
        raise UserError(
            _("{name} does not work with DeepSpeed or FSDP.", name=name),
            _("They split weights into pieces, and a projection needs a whole one."),
        )
    if dtype == torch.float16:
        raise UserError(
            _("{name} does not work with float16.", name=name),
            next_step=_("Use --torch_dtype bfloat16 or float32."),
        )
    alone = arguments.world_size == 1
    wished = options.galore_optim_per_parameter
    if not alone and (wished or options.galore_quantization):
        option = "galore_quantization" if options.galore_quantization else _PER_PARAMETER
        raise UserError(
            _("--{option} works in one process only.", option=option),
            _("With several, whole gradients must be averaged over all of them."),
            _("Leave it out, or train with --nproc_per_node 1."),
        )
    if wished and arguments.fp16:
        raise UserError(
            _("--{option} does not work with float16.", option=_PER_PARAMETER),
            _("Gradients are scaled until backward is over."),
            _("Leave it out, or use --torch_dtype bfloat16."),
        )
    if wished is None:
        one_pass = arguments.gradient_accumulation_steps == 1
        wished = options.galore_quantization and one_pass and not arguments.fp16
    return OptimizerPlan(wished, _notices(arguments, wished, options.galore_quantization))


def _notices(arguments: TrainingArguments, per_parameter: bool, quantized: bool) -> list[str]:
    notices = []
    if arguments.gradient_accumulation_steps > 1 and (per_parameter or quantized):
        notices.append(
            _(
                "A step has {count} forward passes, between which all gradients stay in memory; "
                "--gradient_accumulation_steps 1 frees each at once.",
                count=arguments.gradient_accumulation_steps,
            )
        )
    if arguments.max_grad_norm > 0 and per_parameter:
        notices.append(
            _(
                "Weights are updated during backward, so --max_grad_norm {norm} holds for each "
                "weight's gradient on its own, not for all together.",
                norm=arguments.max_grad_norm,
            )
        )
    return notices


def build_optimizer(
    model: PreTrainedModel,
    options: OptimizerOptions,
    plan: OptimizerPlan,
    arguments: TrainingArguments,
    decayed: Collection[str],
) -> ProjectedOptimizer:
    """Build GaLore, Q-GaLore or APOLLO.

    Parameters
    ----------
    model : PreTrainedModel
        Its trainable parameters are taken. With ``galore_quantization`` the projected
        linear layers keep their weights in 8 bits from now on.
    options : OptimizerOptions
        Which optimizer.
    plan : OptimizerPlan
        As from `plan_optimizer`.
    arguments : TrainingArguments
        The learning rate, Adam's numbers and the seed.
    decayed : collection of str
        The names of the parameters with weight decay.

    Raises
    ------
    UserError
        When no layer has one of the names asked for.
    """
    names = projected_names(model, options.galore_target_modules, options.galore_with_embedding)
    if options.use_galore and options.galore_quantization:
        quantize_layers(model, names)
    kind, own = _kind(options)
    groups: list[dict[str, Any]] = []
    for projected in (False, True):
        for decay in (True, False):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and (name in names) is projected
                and (name in decayed) is decay
            ]
            if parameters:
                rate = arguments.weight_decay if decay else 0.0
                extra = own if projected else {}
                groups.append({"params": parameters, "weight_decay": rate, **extra})
    quantized = options.use_galore and options.galore_quantization
    return kind(
        groups,
        lr=arguments.learning_rate,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
        seed=arguments.seed,
        moment_bits=8 if quantized else 32,
        per_parameter=plan.per_parameter,
        max_grad_norm=arguments.max_grad_norm,
    )


def _kind(options: OptimizerOptions) -> tuple[type[ProjectedOptimizer], dict[str, Any]]:
    """Return the class, and what projected groups have beside parameters."""
    if not options.use_galore:
        mini = options.optim == "apollo_mini"
        rank = _MINI_RANK if mini else _APOLLO_RANK
        scale = _MINI_SCALE if mini else 1.0
        return Apollo, {
            "rank": options.apollo_rank or rank,
            "update_proj_gap": options.apollo_update_proj_gap,
            "scale": scale if options.apollo_scale is None else options.apollo_scale,
            "scale_type": "tensor" if mini else "channel",
        }
    group: dict[str, Any] = {
        "rank": options.galore_rank,
        "update_proj_gap": options.galore_update_proj_gap,
        "scale": options.galore_scale,
        "proj_type": options.galore_proj_type,
    }
    quantized = options.galore_proj_quant
    if quantized is None:
        quantized = options.galore_quantization
    if not (quantized or options.galore_quantization):
        return GaLore, group
    group |= {
        "proj_bits": options.galore_proj_bits if quantized else 0,
        "proj_group_size": options.galore_proj_group_size,
        "cos_threshold": options.galore_cos_threshold,
        "gamma_proj": options.galore_gamma_proj,
        "queue_size": options.galore_queue_size,
    }
    return QGaLore, group


def projected_names(
    model: PreTrainedModel, targets: list[str], with_embedding: bool = False
) -> set[str]:
    """Return the names of the parameters that are projected.

    Parameters
    ----------
    model : PreTrainedModel
        The model; parameters that are frozen do not count.
    targets : list of str
        Names of linear layers, whole or their last parts; all but the output when empty.
    with_embedding : bool
        Whether the embedding and the output layer are added.

    Raises
    ------
    UserError
        When nothing would be projected.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module not in ends
    }
    chosen = [name for name in layers if not targets or _is_named(name, targets)]
    if targets and not chosen:
        known = sorted({name.rpartition(".")[2] for name in layers})
        raise UserError(
            _("No linear layer is named {names}.", names=", ".join(targets)),
            did_you_mean(targets[0], known) or _("There are {names}.", names=", ".join(known)),
        )
    wanted = {layers[name].get_parameter("weight") for name in chosen}
    if not targets:
        wanted |= set(_experts(model))
    if with_embedding:
        wanted |= {end.get_parameter("weight") for end in ends if end is not None}
    # Names as `named_parameters` has them, which tells a shared weight once.
    names = {
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter in wanted
    }
    if not names:
        raise UserError(
            _("This model has no weights that could be projected."),
            next_step=_("Use --tuner_type full, and check --galore_target_modules."),
        )
    return names


def _is_named(name: str, targets: list[str]) -> bool:
    return any(name == target or name.endswith("." + target) for target in targets)


def _experts(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield weights that hold a layer's experts, a matrix for each."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and "experts" in name.split("."):
            yield parameter


def quantize_layers(model: nn.Module, names: Collection[str]) -> None:
    """Let the linear layers among the named parameters keep their weights in 8 bits."""
    for name in names:
        path, _dot, last = name.rpartition(".")
        layer = model.get_submodule(path)
        if last == "weight" and isinstance(layer, (nn.Linear, Conv1D)):
            parent, _dot, attribute = path.rpartition(".")
            quantized = Int8Linear(layer, transposed=isinstance(layer, Conv1D))
            setattr(model.get_submodule(parent), attribute, quantized)
