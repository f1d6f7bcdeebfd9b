"""The names of the tuners; a module of its own, since the options are read at every start."""

from __future__ import annotations

# Names of ms-swift and of papers for what is already in the list.
TUNER_ALIASES = {
    "bone": "miss",
    "loraplus": "lora+",
    "lora_plus": "lora+",
    "loreft": "reft",
    "adaption_prompt": "llama_adapter",
    "qlora": "lora",
}

TUNER_TYPES = (
    "lora", "full", "freeze", "reft",
    "rslora", "dora", "lora+", "pissa", "olora", "adalora", "vera", "loha", "lokr", "ia3",
    "oft", "boft", "fourierft", "miss",
    "adamss", "beft", "c3a", "cartridge", "cpt", "deft", "delora", "frod", "glora", "gralora",
    "hira", "hra", "lily", "llama_adapter", "ln_tuning", "osf", "p_tuning", "peanut",
    "prefix_tuning", "prompt_tuning", "psoft", "pvera", "randlora", "road", "shadow", "shira",
    "supertuning", "tinylora", "trainable_tokens", "unilora", "vblora", "waveft",
)  # fmt: skip

# Their checkpoints are models, not adapters.
WHOLE_MODEL_TUNERS = ("full", "freeze")

REFT_KINDS = ("loreft", "noreft", "consreft", "lobireft", "direft", "nodireft")
