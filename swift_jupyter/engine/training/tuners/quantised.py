"""QLoRA: training adapters on a base whose weights are kept in few bits.

Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023.
"""

from __future__ import annotations

from torch import nn

# The attribute by which a layer of bitsandbytes decides whether it repacks itself.
_REPACKS = "support_avx512bf16_for_cpu"


def keep_differentiable(model: nn.Module) -> None:
    """See that 4-bit layers keep passing gradients on a CPU, also after an evaluation.

    Parameters
    ----------
    model : nn.Module
        The base, before it is wrapped.

    Notes
    -----
    On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks a 4-bit layer for good when it
    first runs in evaluation mode, and its product with repacked weights has no backward:
    gradients of everything below would be zero from then on, with a warning at most.
    """
    for module in model.modules():
        if getattr(module, _REPACKS, False):
            setattr(module, _REPACKS, False)
