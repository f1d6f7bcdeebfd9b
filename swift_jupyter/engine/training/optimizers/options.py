"""The options of the optimizer, with ms-swift's names where it has them."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.options import option

OWN_OPTIMIZERS = ("apollo", "apollo_mini")
PROJECTIONS = ("std", "reverse_std", "right", "left", "full")


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """Which optimizer updates the weights, and with how little memory."""

    optim: str = option(
        "adamw_torch_fused",
        help="The optimizer: apollo and apollo_mini need little more memory than plain gradient "
        "descent, adamw_8bit needs the package bitsandbytes.",
        choices=(
            "adamw_torch_fused",
            "adamw_torch",
            "adamw_8bit",
            "paged_adamw_8bit",
            "adafactor",
            *OWN_OPTIMIZERS,
        ),
        choice_aliases={
            "adamw": "adamw_torch",
            "adamw_bnb_8bit": "adamw_8bit",
            "apollo_adamw": "apollo",
        },
    )
    use_galore: bool = option(
        False, help="Keep the optimizer's state in a low-rank space (GaLore); needs tuner full."
    )
    galore_target_modules: list[str] = option(
        [],
        help="The modules whose gradients GaLore and APOLLO project, such as q_proj; by default "
        "every linear layer but the output.",
    )
    galore_rank: int = option(128, help="The rank of GaLore's projections.")
    galore_update_proj_gap: int = option(
        50, help="Find the projections anew every so many steps; GaLore's paper has 200."
    )
    galore_scale: float = option(1.0, help="What GaLore's updates are multiplied by.")
    galore_proj_type: str = option(
        "std",
        help="Which side of a gradient is projected: std is the shorter one, reverse_std the "
        "longer, full both.",
        choices=PROJECTIONS,
    )
    galore_optim_per_parameter: bool | None = option(
        None,
        help="Update each weight as soon as its gradient is known and free the gradient; by "
        "default so with galore_quantization when a step is one forward pass.",
    )
    galore_with_embedding: bool = option(
        False, help="Project the embedding and the output layer as well."
    )
    galore_quantization: bool = option(
        False,
        help="Q-GaLore: weights in 8 bits with stochastic rounding, Adam's state in 8 bits, and "
        "projections that are found anew less often once they hardly turn.",
    )
    galore_proj_quant: bool | None = option(
        None,
        help="Keep projections in galore_proj_bits; by default, as in Q-GaLore's paper, with "
        "galore_quantization, while ms-swift's default is never.",
    )
    galore_proj_bits: int = option(4, help="The bits of a quantised projection: 4 or 8.")
    galore_proj_group_size: int = option(
        256, help="How many entries of a quantised projection share a scale."
    )
    galore_cos_threshold: float = option(
        0.4, help="From which cosine on a projection counts as hardly turned."
    )
    galore_gamma_proj: float = option(
        2.0, help="By how much galore_update_proj_gap grows for such a layer."
    )
    galore_queue_size: int = option(
        5, help="Over how many updates of a projection the cosine is averaged."
    )
    apollo_rank: int | None = option(
        None, help="The rank of APOLLO's random projections; by default 128, and 1 for apollo_mini."
    )
    apollo_update_proj_gap: int = option(
        200, help="Draw APOLLO's random projections anew every so many steps."
    )
    apollo_scale: float | None = option(
        None,
        help="What APOLLO's updates are multiplied by; by default 1, and the root of 128 for "
        "apollo_mini.",
    )

    @property
    def projects(self) -> bool:
        """Whether the optimizer is one of ours."""
        return self.use_galore or self.optim in OWN_OPTIMIZERS


@dataclass(frozen=True, kw_only=True)
class LisaOptions:
    """Which layers are trained at a time."""

    lisa_activated_layers: int = option(
        0,
        help="Train only so many random layers at a time (LISA), 2 for example; 0 for all. "
        "Needs tuner full.",
    )
    lisa_step_interval: int = option(20, help="Draw LISA's layers anew every so many steps.")
    lisa_train_embeddings: bool = option(
        True,
        help="Train the embedding and the output layer all the time, as LISA's paper does; "
        "without them LISA needs much less memory.",
    )


def optimizer_name(options: OptimizerOptions) -> str:
    """Return the name under which `transformers.TrainingArguments` knows the optimizer.

    Ours are unknown there and built by `build.build_optimizer`.
    """
    return "adamw_torch" if options.projects else options.optim


def optimizer_title(options: OptimizerOptions) -> str:
    """Return the optimizer's name for a person."""
    if options.use_galore:
        return "Q-GaLore" if options.galore_quantization else "GaLore"
    titles = {"apollo": "APOLLO", "apollo_mini": "APOLLO-Mini"}
    return titles.get(options.optim, options.optim)
