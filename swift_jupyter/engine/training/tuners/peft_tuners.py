"""The adapters of peft, as a table: which configuration, which options feed it, what it can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

# What an adapter of this kind sits on.
Place = Literal["linear", "norms", "peft", "nowhere"]


def _frozen(values: Mapping[str, Any] | None = None) -> Any:
    return field(default_factory=lambda: MappingProxyType(dict(values or {})))


@dataclass(frozen=True)
class PeftTuner:
    """One kind of adapter.

    Attributes
    ----------
    config : str
        The name of peft's configuration class.
    options : mapping of str to str
        Fields of the configuration, and the options that fill them.
    fixed : mapping of str to object
        Fields that are always set so; ``tuner_args`` wins.
    required : tuple of str
        Fields without a sensible default; they come from ``tuner_args``.
    place : str
        ``linear`` layers, ``norms``, what ``peft`` knows for the architecture, or
        ``nowhere``: the kind has no target modules.
    rate : float
        How many times higher than LoRA's its usual learning rate is.
    extra_tokens : str
        The field with the number of positions that it puts before the prompt, whose
        logits come out, too; empty for none.
    package : str
        A package that peft needs for it.
    dividing : str
        The field with a size that must divide the widths of all target modules.
    exact_state : bool
        Whether a checkpoint must hold the raw parameters as well, since the adapter's
        own file does not say all that training needs.
    on_few_bits : bool
        Whether it can sit on weights of 4 or 8 bits.
    """

    config: str
    options: Mapping[str, str] = _frozen()
    fixed: Mapping[str, Any] = _frozen()
    required: tuple[str, ...] = ()
    place: Place = "linear"
    rate: float = 1.0
    extra_tokens: str = ""
    package: str = ""
    dividing: str = ""
    exact_state: bool = False
    on_few_bits: bool = False


_RANK = {"r": "lora_rank"}
_LORA = {
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "bias": "lora_bias",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
_RANK_ALPHA = {"r": "lora_rank", "alpha": "lora_alpha"}
_TOKENS = {"num_virtual_tokens": "num_virtual_tokens"}

LORA = PeftTuner("LoraConfig", _LORA, on_few_bits=True)
# LoRA with one option set: DoRA, rsLoRA, LoRA+, PiSSA, OLoRA.
LORA_FLAVOURS: Mapping[str, Mapping[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "lora+": {"lorap_lr_ratio": 16.0},
    "pissa": {"init_weights": "pissa"},
    "olora": {"init_weights": "olora"},
}

# The rates follow the papers, which use ten and more times LoRA's where only vectors
# are trained.
PEFT_TUNERS: Mapping[str, PeftTuner] = {
    **dict.fromkeys(LORA_FLAVOURS, LORA),
    "adalora": PeftTuner(
        "AdaLoraConfig",
        {
            "lora_alpha": "lora_alpha",
            "lora_dropout": "lora_dropout",
            "bias": "lora_bias",
            "target_r": "adalora_target_r",
            "init_r": "adalora_init_r",
            "tinit": "adalora_tinit",
            "tfinal": "adalora_tfinal",
            "deltaT": "adalora_deltaT",
            "beta1": "adalora_beta1",
            "beta2": "adalora_beta2",
            "orth_reg_weight": "adalora_orth_reg_weight",
        },
        # The saved matrices are cut to their ranks, and the optimizer's moments are not.
        exact_state=True,
        on_few_bits=True,
    ),
    "adamss": PeftTuner("AdamssConfig", package="sklearn", rate=10),
    "beft": PeftTuner("BeftConfig", rate=10),
    "boft": PeftTuner(
        "BOFTConfig",
        {
            "boft_block_size": "boft_block_size",
            "boft_block_num": "boft_block_num",
            "boft_n_butterfly_factor": "boft_n_butterfly_factor",
            "boft_dropout": "boft_dropout",
        },
    ),
    "c3a": PeftTuner("C3AConfig", rate=10, dividing="block_size"),
    "cartridge": PeftTuner("CartridgeConfig", _TOKENS, place="nowhere", rate=10, on_few_bits=True),
    "cpt": PeftTuner(
        "CPTConfig",
        exact_state=True,
        required=("cpt_token_ids",),
        place="nowhere",
        rate=10,
        extra_tokens="num_virtual_tokens",
        on_few_bits=True,
    ),
    "deft": PeftTuner("DeftConfig", {**_RANK, "deft_dropout": "lora_dropout"}),
    "delora": PeftTuner("DeloraConfig", _RANK, rate=10),
    "fourierft": PeftTuner(
        "FourierFTConfig",
        {"n_frequency": "fourier_n_frequency", "scaling": "fourier_scaling"},
        rate=10,
    ),
    "frod": PeftTuner("FrodConfig", fixed={"progressbar": False}, rate=10),
    "glora": PeftTuner("GloraConfig", _RANK),
    "gralora": PeftTuner("GraloraConfig", {**_RANK_ALPHA, "gralora_dropout": "lora_dropout"}),
    "hira": PeftTuner("HiraConfig", {**_RANK, "hira_dropout": "lora_dropout"}, on_few_bits=True),
    "hra": PeftTuner("HRAConfig", _RANK),
    "ia3": PeftTuner("IA3Config", place="peft", rate=10, on_few_bits=True),
    "lily": PeftTuner("LilyConfig", _RANK),
    "llama_adapter": PeftTuner(
        "AdaptionPromptConfig",
        {"adapter_len": "num_virtual_tokens"},
        place="nowhere",
        rate=10,
    ),
    "ln_tuning": PeftTuner("LNTuningConfig", place="norms", rate=10, on_few_bits=True),
    "loha": PeftTuner("LoHaConfig", _RANK_ALPHA),
    "lokr": PeftTuner("LoKrConfig", _RANK_ALPHA),
    "miss": PeftTuner("MissConfig", {**_RANK, "miss_dropout": "lora_dropout"}),
    "oft": PeftTuner("OFTConfig"),
    "osf": PeftTuner("OSFConfig"),
    "p_tuning": PeftTuner(
        "PromptEncoderConfig",
        _TOKENS,
        place="nowhere",
        rate=10,
        extra_tokens="num_virtual_tokens",
        # Only what its network puts out is saved.
        exact_state=True,
        on_few_bits=True,
    ),
    "peanut": PeftTuner("PeanutConfig", _RANK),
    "prefix_tuning": PeftTuner(
        "PrefixTuningConfig",
        _TOKENS,
        place="nowhere",
        rate=10,
        exact_state=True,
        on_few_bits=True,
    ),
    "prompt_tuning": PeftTuner(
        "PromptTuningConfig",
        _TOKENS,
        place="nowhere",
        rate=30,
        extra_tokens="num_virtual_tokens",
        on_few_bits=True,
    ),
    "psoft": PeftTuner("PsoftConfig", {**_RANK, "psoft_alpha": "lora_rank"}),
    "pvera": PeftTuner("PveraConfig", {"r": "vera_rank"}, rate=10, on_few_bits=True),
    "randlora": PeftTuner("RandLoraConfig", on_few_bits=True),
    "road": PeftTuner("RoadConfig", rate=10, on_few_bits=True),
    # The loss of its detached shadow needs another output layer's pass for each step.
    "shadow": PeftTuner(
        "ShadowConfig", _RANK, fixed={"auxiliary_loss_weight": 0.0}, place="nowhere"
    ),
    "shira": PeftTuner("ShiraConfig", _RANK),
    "supertuning": PeftTuner("SupertuningConfig"),
    "tinylora": PeftTuner("TinyLoraConfig", rate=10),
    "trainable_tokens": PeftTuner(
        "TrainableTokensConfig", required=("token_indices",), place="nowhere"
    ),
    "unilora": PeftTuner("UniLoraConfig", rate=10),
    "vblora": PeftTuner("VBLoRAConfig", rate=10, dividing="vector_length"),
    "vera": PeftTuner(
        "VeraConfig",
        {
            "r": "vera_rank",
            "projection_prng_key": "vera_projection_prng_key",
            "vera_dropout": "vera_dropout",
            "d_initial": "vera_d_initial",
        },
        rate=10,
    ),
    "waveft": PeftTuner("WaveFTConfig", rate=10),
}


# What peft calls them in `adapter_config.json`.
_NOT_MERGING = frozenset(
    {
        "ADAPTION_PROMPT",
        "CARTRIDGE",
        "CPT",
        "LILY",
        "MULTITASK_PROMPT_TUNING",
        "P_TUNING",
        "PREFIX_TUNING",
        "PROMPT_TUNING",
        "SHADOW",
        "XLORA",
    }
)


def merges(peft_type: str) -> bool:
    """Tell whether adapters of a peft type can become part of the base's weights."""
    return peft_type not in _NOT_MERGING
