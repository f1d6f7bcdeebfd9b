"""What GaLore, Q-GaLore and APOLLO have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from swift_jupyter.engine.training.optimizers.int8_linear import WEIGHT, store_of
from swift_jupyter.engine.training.optimizers.moments import Moments
from swift_jupyter.engine.training.optimizers.quantization import round_stochastically

PROJECTED = "rank"  # Groups that have this key are projected.


class ProjectedOptimizer(Optimizer):
    """AdamW whose state lives in a low-rank space for the groups that have a ``rank``.

    Parameters
    ----------
    groups : iterable of dict
        Groups of parameters, as for `torch.optim.Optimizer`.
    lr : float
        The learning rate.
    betas : tuple of float
        The decay of the two moments.
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        Decoupled from the gradient, after the update.
    seed : int
        Decides random projections and roundings, together with the parameter's place
        and its step, so that nothing of them needs to be stored.
    moment_bits : int
        32, or 8 for quantised moments.
    per_parameter : bool
        Update a parameter as soon as backward has its gradient, and free that.
    max_grad_norm : float
        With `per_parameter`, the norm to which each gradient is clipped on its own;
        0 for none. Without, the Trainer clips all gradients together.

    Attributes
    ----------
    accumulating : bool
        Whether more passes of the same step follow; gradients are kept until then.
    touched : bool
        Whether a weight was updated since someone last set this to False.

    Notes
    -----
    Everything is computed in float32; bfloat16 weights are rounded at random, since
    most updates are smaller than half their last digit.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 42,
        moment_bits: int = 32,
        per_parameter: bool = False,
        max_grad_norm: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, defaults)
        self.per_parameter = per_parameter
        self.accumulating = False
        self.touched = False
        self._seed = seed
        self._moments = Moments(moment_bits)
        self._max_grad_norm = max_grad_norm
        self._squared_norm = 0.0
        self._hooks: list[Any] = []
        self._places: dict[Tensor, int] = {}
        for number, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                self._places[parameter] = len(self._places)
                if per_parameter:
                    hook = self._update_in_backward(number)
                    self._hooks.append(parameter.register_post_accumulate_grad_hook(hook))
                store = store_of(parameter)
                if store is not None:
                    self.state[parameter][WEIGHT] = store.tensors()

    def _update_in_backward(self, group_number: int) -> Callable[[Tensor], None]:
        def update(parameter: Tensor) -> None:
            if self.accumulating or parameter.grad is None:
                return
            norm = float(torch.linalg.vector_norm(parameter.grad, dtype=torch.float32))
            self._squared_norm += norm * norm
            if not math.isfinite(norm):
                parameter.grad = None  # The Trainer sees the norm and tells.
                return
            if 0 < self._max_grad_norm < norm:
                parameter.grad.mul_(self._max_grad_norm / norm)
            # By number, since loading a state makes new groups.
            self._update_parameter(parameter, self.param_groups[group_number])
            parameter.grad = None

        return update

    def take_gradient_norm(self) -> float:
        """Return the norm of all gradients that were used since the last call."""
        norm = math.sqrt(self._squared_norm) if math.isfinite(self._squared_norm) else math.nan
        self._squared_norm = 0.0
        return norm

    def close(self) -> None:
        """Detach from the parameters, for another optimizer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update_parameter(parameter, group)
        return loss

    @torch.no_grad()
    def _update_parameter(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        self.touched = True
        state = self.state[parameter]
        state.setdefault("step", 0)
        gradient = parameter.grad.float()
        if PROJECTED in group:
            update = self._projected_update(gradient, parameter, state, group)
        else:
            update = self._adam(gradient, state, group)
        self._apply_update(parameter, update, state, group)

    def _projected_update(
        self, gradient: Tensor, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> Tensor:
        """Return what is subtracted from a projected weight; counts the step."""
        raise NotImplementedError

    def _adam(self, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Return Adam's step for a gradient, the learning rate included; counts the step."""
        state["step"] += 1
        step, (beta1, beta2) = state["step"], group["betas"]
        rate = group["lr"] * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step)
        return self._moments.direction(state, gradient, group["betas"], group["eps"]).mul_(rate)

    def _apply_update(
        self, parameter: Tensor, update: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        shrink = 1.0 - group["lr"] * group["weight_decay"]
        store = store_of(parameter)
        if store is not None:
            weight = store.read().sub_(update).mul_(shrink)
            store.write(weight, self.generator(parameter, state["step"]))
        elif parameter.dtype == torch.float32:
            parameter.sub_(update).mul_(shrink)
        else:
            weight = parameter.float().sub_(update).mul_(shrink)
            if parameter.dtype == torch.bfloat16:
                generator = self.generator(parameter, state["step"])
                weight = round_stochastically(weight, generator)
            parameter.copy_(weight)

    def generator(self, parameter: Tensor, number: int) -> torch.Generator:
        """Return the random numbers of a parameter at a step, or of a period of steps."""
        generator = torch.Generator(device=parameter.device)
        place = self._places[parameter]
        seed = (self._seed * 1_000_003 + place) * 2**24 + number
        return generator.manual_seed(seed % 2**63)

    def state_bytes(self) -> int:
        """Return how many bytes the state takes, weights that are kept here apart."""
        kept = [
            {key: value for key, value in state.items() if key != WEIGHT}
            for state in self.state.values()
        ]
        return sum(tensor.nbytes for tensor in _tensors(kept))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state exactly.

        The data types stay, while `torch.optim.Optimizer` would make every tensor that
        of the parameter.
        """
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        parameters = [p for group in self.param_groups for p in group["params"]]
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            state = _copied(state_dict["state"].get(number, {}), parameter.device)
            store = store_of(parameter)
            if store is not None:
                if WEIGHT in state:
                    store.load(state[WEIGHT])
                state[WEIGHT] = store.tensors()
            if state:
                self.state[parameter] = state


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _copied(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    if isinstance(value, dict):
        return {key: _copied(item, device) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item, device) for item in value]
    return value
