"""Interventions on hidden states: the modules of ReFT, and a model that has them.

Wu et al., "ReFT: Representation Finetuning for Language Models", 2024. A hidden state h
(width d) becomes h + P^T (s - P h), where P (r, d) spans a small subspace and s is what
should be there. The kinds differ in P, in s, and in whether P h is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from swift_jupyter.engine.training.tuners.positions import Positions


@dataclass(frozen=True)
class Form:
    """The form of an intervention.

    Attributes
    ----------
    orthonormal : bool
        Whether the rows of P stay orthonormal.
    learned : bool
        Whether s is a linear function of h; it is a constant otherwise.
    difference : bool
        Whether P h is taken away.
    """

    orthonormal: bool
    learned: bool
    difference: bool


# By the names of the authors' library, in which DiReFT keeps P orthonormal.
FORMS = {
    "loreft": Form(True, True, True),
    "noreft": Form(False, True, True),
    "consreft": Form(True, False, True),
    "lobireft": Form(True, False, False),
    "direft": Form(True, True, False),
    "nodireft": Form(False, True, False),
}


class Intervention(nn.Module):
    """One change of hidden states.

    Parameters
    ----------
    width : int
        The width of the hidden states.
    rank : int
        The dimension of the subspace.
    form : Form
        Which variant.
    """

    def __init__(self, width: int, rank: int, form: Form) -> None:
        super().__init__()
        self._form = form
        self.projection = nn.Linear(width, rank, bias=False)
        if form.orthonormal:
            nn.init.orthogonal_(self.projection.weight)
        self.source = nn.Linear(width, rank) if form.learned else None
        self.constant = None if form.learned else nn.Parameter(torch.rand(rank))

    def basis(self) -> Tensor:
        """Return P, (rank, width), differentiable.

        Notes
        -----
        Orthonormal rows come from a QR decomposition of what is trained, so that no
        step and no weight decay can take them away. `torch`'s own parametrization keeps
        signs in the trained matrix, as whole numbers that weight decay turns to zero.
        """
        weight: Tensor = self.projection.weight
        if not self._form.orthonormal:
            return weight
        columns, triangle = torch.linalg.qr(weight.T)
        rows: Tensor = (columns * triangle.diagonal().sign()).T
        return rows

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the changed states; (..., width) in any data type."""
        states = hidden.to(self.projection.weight.dtype)
        basis = self.basis()
        if self.source is not None:
            wanted: Tensor = self.source(states)
        else:
            assert self.constant is not None
            wanted = self.constant
        if self._form.difference:
            wanted = wanted - states @ basis.T
        return (states + wanted @ basis).to(hidden.dtype)


class InterventionModel(nn.Module):
    """A frozen causal language model whose decoder layers' outputs are changed.

    Parameters
    ----------
    base : PreTrainedModel
        The model; its layers get hooks, which `unload` removes.
    layers : nn.ModuleList
        Its decoder layers.
    chosen : sequence of int
        Which of them.
    width : int
        The width of the hidden states.
    rank : int
        The rank of an intervention.
    form : Form
        Which variant.
    positions : Positions
        Which tokens of the prompt are changed.

    Notes
    -----
    Only the prompt is changed. In training it is said by ``prompt_mask``; in
    generation it is what is read before anything is cached, so that each new token
    reads the changed prompt from the cache and is itself left alone.
    """

    def __init__(
        self,
        base: Any,
        layers: nn.ModuleList,
        chosen: Sequence[int],
        width: int,
        rank: int,
        form: Form,
        positions: Positions,
    ) -> None:
        super().__init__()
        self.base_model = base
        self.positions = positions
        self.reft_config: dict[str, Any] = {}
        self.interventions = nn.ModuleDict(
            {str(number): Intervention(width, rank, form) for number in chosen}
        )
        self.interventions.to(base.device)
        self._prompt: Tensor | None = None
        self._mask: Tensor | None = None
        self._hooks = [base.register_forward_pre_hook(self._before, with_kwargs=True)]
        for number in chosen:
            hook = self._change(self.interventions[str(number)])
            self._hooks.append(layers[number].register_forward_hook(hook))

    @property
    def config(self) -> Any:
        """The base's configuration."""
        return self.base_model.config

    @property
    def generation_config(self) -> Any:
        """The base's generation settings."""
        return self.base_model.generation_config

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        return torch.device(self.base_model.device)

    @property
    def dtype(self) -> torch.dtype:
        """The data type of the base."""
        found: torch.dtype = self.base_model.dtype
        return found

    def get_base_model(self) -> nn.Module:
        """Return the model without interventions."""
        base: nn.Module = self.base_model
        return base

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Compute activations of the base twice; hooks run both times."""
        self.base_model.gradient_checkpointing_enable(**kwargs)

    def forward(self, *args: Any, prompt_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the base; `prompt_mask` (batch, length) is true at the prompt's tokens."""
        self._prompt = prompt_mask
        try:
            return self.base_model(*args, **kwargs)
        finally:
            # Not the mask: layers that are computed again in the backward pass read it.
            self._prompt = None

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generate with the base, whose hooks change the prompt."""
        return self.base_model.generate(*args, **kwargs)

    def unload(self) -> Any:
        """Take the hooks away and return the base."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        return self.base_model

    def _before(self, _base: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Find the prompt of this pass."""
        tokens = kwargs.get("input_ids", args[0] if args else None)
        tokens = kwargs.get("inputs_embeds") if tokens is None else tokens
        cache = kwargs.get("past_key_values")
        if tokens is None or (cache is not None and cache.get_seq_length()):
            self._mask = None
            return
        prompt = self._prompt
        if prompt is None:
            attended = kwargs.get("attention_mask")
            shape = tokens.shape[:2]
            prompt = (
                attended.bool()
                if attended is not None and attended.shape == shape
                else torch.ones(shape, dtype=torch.bool, device=tokens.device)
            )
        self._mask = self.positions.mask(prompt).unsqueeze(-1)

    def _change(self, intervention: nn.Module) -> Any:
        def hook(_layer: nn.Module, _args: Any, output: Any) -> Any:
            if self._mask is None:
                return None
            hidden = output[0] if isinstance(output, tuple) else output
            mask = self._mask.to(hidden.device)
            changed = torch.where(mask, intervention(hidden), hidden)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook
