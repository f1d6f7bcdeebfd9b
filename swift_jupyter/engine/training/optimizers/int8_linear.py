"""Linear layers whose weights are kept in 8 bits while they are trained whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from swift_jupyter.engine.training.optimizers.quantization import Blocks, dequantize, quantize

WEIGHT = "weight_int8"
_BITS, _BLOCK = 8, 256


class Int8Store:
    """A weight in 8 bits, the only copy there is.

    Parameters
    ----------
    weight : Tensor
        The weight, which is rounded to the nearest.
    """

    def __init__(self, weight: Tensor) -> None:
        self.shape = weight.shape
        self._blocks = quantize(weight, _BITS, _BLOCK)

    def read(self) -> Tensor:
        """Return the weight, float32."""
        return dequantize(self._blocks, _BITS, self.shape)

    def write(self, weight: Tensor, generator: torch.Generator | None = None) -> None:
        """Replace the weight, rounded at random with a generator, else to the nearest."""
        self._copy(quantize(weight, _BITS, _BLOCK, generator))

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs: the codes and their scales, not copied."""
        return {
            "codes": self._blocks.codes,
            "low": self._blocks.low,
            "scale": self._blocks.scale,
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` returned, exactly."""
        self._copy(Blocks(**tensors))

    def move(self, device: torch.device) -> None:
        """Go to another device."""
        self._blocks = Blocks(**{key: value.to(device) for key, value in self.tensors().items()})

    def _copy(self, blocks: Blocks) -> None:
        # In place: the optimizer's state holds the same tensors.
        self._blocks.codes.copy_(blocks.codes)
        self._blocks.low.copy_(blocks.low)
        self._blocks.scale.copy_(blocks.scale)


class Int8Parameter(nn.Parameter):
    """Stands for a weight that an `Int8Store` holds.

    It has the weight's shape and receives its gradient, but all its entries are one
    zero: autograd and optimizers treat it like any other parameter.
    """

    store: Int8Store

    @classmethod
    def of(cls, weight: Tensor) -> Int8Parameter:
        """Return the stand-in for a weight, which is quantised."""
        placeholder = weight.detach().new_zeros(1).expand(weight.shape)
        parameter = cls(placeholder, requires_grad=True)
        parameter.store = Int8Store(weight)
        return parameter


def store_of(parameter: Tensor) -> Int8Store | None:
    """Return where a parameter's numbers are, when they are in 8 bits."""
    return parameter.store if isinstance(parameter, Int8Parameter) else None


class Int8Linear(nn.Module):
    """A linear layer over an `Int8Parameter`.

    Its ``state_dict`` has the dequantised weight under the usual name, so that what is
    saved is a normal model.

    Parameters
    ----------
    layer : nn.Module
        A `torch.nn.Linear`, or a `transformers` ``Conv1D``.
    transposed : bool
        Whether the weight is (in, out), as in ``Conv1D``.
    """

    def __init__(self, layer: nn.Module, transposed: bool) -> None:
        super().__init__()
        self.transposed = transposed
        self.weight = Int8Parameter.of(layer.get_parameter("weight"))
        bias: Any = getattr(layer, "bias", None)
        self.bias = bias if isinstance(bias, nn.Parameter) else None
        shape = self.weight.shape
        self.in_features, self.out_features = shape if transposed else (shape[1], shape[0])

    def extra_repr(self) -> str:
        """Return the sizes, for the module's repr."""
        return f"in_features={self.in_features}, out_features={self.out_features}"

    def forward(self, values: Tensor) -> Tensor:
        """Return the layer's output, in the data type of the input."""
        output: Tensor = _Int8MatMul.apply(values, self.weight, self.transposed)
        return output if self.bias is None else output + self.bias

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        moved = super()._apply(fn, recurse)
        weight: Any = self.weight
        # Moving makes the placeholder as large as the weight; that is undone.
        weight.data = weight.data.flatten()[:1].clone().expand(weight.store.shape)
        weight.store.move(weight.device)
        return moved

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = self.weight.store.read().to(self.weight.dtype)
        # Off the accelerator, which need not have room for all weights at full size.
        destination[prefix + "weight"] = weight.cpu()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        key = prefix + "weight"
        given = state_dict.get(key)
        if given is None or given.shape != self.weight.shape:
            super()._load_from_state_dict(state_dict, prefix, *args)
            return
        self.weight.store.write(given.to(self.weight.device))
        rest = {name: value for name, value in state_dict.items() if name != key}
        super()._load_from_state_dict(rest, prefix, *args)
        _metadata, _strict, missing, *_others = args
        missing.remove(key)


class _Int8MatMul(torch.autograd.Function):
    """``values @ weight`` where the weight is dequantised for each of the two passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, parameter: Int8Parameter, transposed: bool) -> Tensor:
        ctx.save_for_backward(values)
        ctx.parameter, ctx.transposed = parameter, transposed
        weight = parameter.store.read().to(values.dtype)
        return values @ weight if transposed else values @ weight.mT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (values,) = ctx.saved_tensors
        outer = gradients[0]
        inner = weight_gradient = None
        if ctx.needs_input_grad[0]:
            weight = ctx.parameter.store.read().to(outer.dtype)
            inner = (outer @ (weight.mT if ctx.transposed else weight)).to(values.dtype)
        if ctx.needs_input_grad[1]:
            # With autocast the output may have another data type than the input.
            columns, rows = values.flatten(0, -2).to(outer.dtype), outer.flatten(0, -2)
            weight_gradient = columns.mT @ rows if ctx.transposed else rows.mT @ columns
            weight_gradient = weight_gradient.to(ctx.parameter.dtype)
        return inner, weight_gradient, None
