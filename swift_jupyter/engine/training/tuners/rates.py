"""Different learning rates for some parameters of one optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def split_by_rate(
    optimizer: torch.optim.Optimizer, model: nn.Module, rates: Mapping[str, float]
) -> None:
    """Move parameters into groups of their own, whose rate is a multiple.

    It must happen before the scheduler is made, which multiplies each group's rate.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Without state as yet.
    model : nn.Module
        Whose parameters it has.
    rates : mapping of str to float
        Factors by the names of parameters; the others keep their rate.
    """
    if not rates:
        return
    factors = {id(p): rates[name] for name, p in model.named_parameters() if name in rates}
    for group in list(optimizer.param_groups):
        moved: dict[float, list[Any]] = defaultdict(list)
        for parameter in group["params"]:
            if id(parameter) in factors:
                moved[factors[id(parameter)]].append(parameter)
        group["params"] = [p for p in group["params"] if id(p) not in factors]
        for factor, parameters in moved.items():
            shared = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group({**shared, "params": parameters, "lr": group["lr"] * factor})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
