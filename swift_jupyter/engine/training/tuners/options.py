"""Which parameters are trained, and how they are adapted: ms-swift's names and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.engine.training.tuners.names import REFT_KINDS, TUNER_ALIASES, TUNER_TYPES
from swift_jupyter.options import option

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, kw_only=True)
class LowRankOptions:
    """LoRA and its kin, and where adapters of any kind sit."""

    tuner_type: str = option(
        "lora",
        help="How parameters are adapted: full, freeze, reft, or an adapter.",
        choices=TUNER_TYPES,
        choice_aliases=TUNER_ALIASES,
        aliases=("train_type", "sft_type"),
    )
    tuner_backend: str = option(
        "peft",
        help="What makes the adapters; unsloth needs a GPU and its package.",
        choices=("peft", "unsloth"),
    )
    lora_rank: int = option(8, help="The rank of LoRA and every other low-rank tuner.")
    lora_alpha: int = option(32, help="The scale of the LoRA update, divided by the rank.")
    lora_dropout: float = option(0.05, help="The dropout in front of the LoRA matrices.")
    lora_bias: str = option("none", help="Which biases are trained.", choices=("none", "all"))
    use_rslora: bool = option(False, help="Scale by the square root of the rank (rsLoRA).")
    use_dora: bool = option(False, help="Adapt magnitude and direction apart (DoRA).")
    lorap_lr_ratio: float | None = option(
        None, help="Train the LoRA B matrices at this many times the rate (LoRA+, 16 there)."
    )
    init_weights: str = option(
        "true",
        help="How LoRA begins: true (no change), gaussian, orthogonal, pissa, pissa_niter_<n> "
        "(faster), olora, or false (random).",
        aliases=("init_lora_weights",),
    )
    target_modules: list[str] = option(
        [ALL_LINEAR],
        help="The modules that are adapted: all-linear (every linear layer but the output), "
        "or names such as q_proj v_proj.",
    )
    target_regex: str | None = option(
        None, help="A regular expression for whole module names; it wins over target_modules."
    )
    target_layers: list[str] = option(
        [],
        help="The decoder layers that are adapted or, with freeze, trained: 3, 0-7 (both "
        "included) or a slice such as -4: for the last four; all by default. On a line a value "
        "that begins with a dash follows an equals sign.",
    )
    modules_to_save: list[str] = option(
        [], help="Modules that are trained whole and saved with the adapter."
    )
    tuner_args: dict[str, str] = option(
        {},
        help="Further fields of the tuner's peft configuration, such as {decompose_both: true} "
        "for lokr.",
        aliases=("reft_args",),
    )


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Options of single tuners, with ms-swift's names."""

    adalora_target_r: int = option(8, help="AdaLoRA: the average rank at the end.")
    adalora_init_r: int = option(12, help="AdaLoRA: the rank of every matrix at the start.")
    adalora_tinit: int = option(0, help="AdaLoRA: steps before ranks are taken away.")
    adalora_tfinal: int = option(0, help="AdaLoRA: steps at the end with the final ranks.")
    adalora_deltaT: int = option(1, help="AdaLoRA: steps between two allocations.")
    adalora_beta1: float = option(0.85, help="AdaLoRA: smoothing of the sensitivity.")
    adalora_beta2: float = option(0.85, help="AdaLoRA: smoothing of its uncertainty.")
    adalora_orth_reg_weight: float = option(
        0.5, help="AdaLoRA: the weight of the penalty that keeps its matrices orthogonal."
    )
    vera_rank: int = option(256, help="VeRA: the rank of the shared random matrices.")
    vera_projection_prng_key: int = option(0, help="VeRA: the seed of these matrices.")
    vera_dropout: float = option(0.0, help="VeRA: the dropout in front of them.")
    vera_d_initial: float = option(0.1, help="VeRA: where its scaling vector begins.")
    boft_block_size: int = option(4, help="BOFT: the size of the orthogonal blocks.")
    boft_block_num: int = option(0, help="BOFT: their number, when boft_block_size is 0.")
    boft_n_butterfly_factor: int = option(1, help="BOFT: the number of butterfly factors.")
    boft_dropout: float = option(0.0, help="BOFT: the share of blocks left out.")
    fourier_n_frequency: int = option(2000, help="FourierFT: trained frequencies a matrix.")
    fourier_scaling: float = option(300.0, help="FourierFT: the scale of the update.")
    num_virtual_tokens: int = option(20, help="Prompt, prefix and p-tuning: trained positions.")
    reft_layers: list[str] = option(
        [], help="ReFT: the layers that are changed, as in target_layers; all by default."
    )
    reft_rank: int = option(4, help="ReFT: the rank of an intervention.")
    reft_intervention_type: str = option(
        "loreft",
        help="ReFT: the form of the intervention.",
        choices=tuple(REFT_KINDS),
        choice_aliases={f"{name.capitalize()}Intervention": name for name in REFT_KINDS},
    )
    reft_positions: str = option(
        "all",
        help="ReFT: the positions of the prompt that are changed: all, or the first and last "
        "few, such as f7+l7.",
    )


@dataclass(frozen=True, kw_only=True)
class FreezeOptions:
    """Which of a model's own parameters stay as they are."""

    freeze_parameters: list[str] = option(
        [], help="Full: freeze parameters whose names begin with one of these."
    )
    freeze_parameters_regex: str | None = option(
        None, help="Full: freeze parameters in whose names this regular expression occurs."
    )
    freeze_parameters_ratio: float = option(
        0.0, help="Full: freeze this share of the parameters, from the input on."
    )
    trainable_parameters: list[str] = option(
        [], help="Full: train parameters whose names begin with one of these all the same."
    )
    trainable_parameters_regex: str | None = option(
        None, help="Full: train parameters in whose names this occurs all the same."
    )


@dataclass(frozen=True, kw_only=True)
class TunerOptions(FreezeOptions, AdapterOptions, LowRankOptions):
    """All options of all tuners."""
