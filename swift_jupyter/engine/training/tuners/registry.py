"""From options to a tuner."""

from __future__ import annotations

from swift_jupyter.engine.training.tuners.adapters import AdapterTuner
from swift_jupyter.engine.training.tuners.full import FullTuner
from swift_jupyter.engine.training.tuners.options import TunerOptions
from swift_jupyter.engine.training.tuners.protocol import Tuner
from swift_jupyter.engine.training.tuners.reft import ReftTuner


def build_tuner(
    options: TunerOptions,
    total_steps: int = 0,
    seed: int = 0,
    checkpointing: bool | None = None,
) -> Tuner:
    """Return the tuner that the options name.

    Parameters
    ----------
    options : TunerOptions
        ``tuner_type`` and what belongs to it.
    total_steps : int
        How many steps the run has, where that is known.
    seed : int
        The seed of first weights, for backends that do not take torch's.
    checkpointing : bool or None
        Whether activations are computed twice, for backends with a way of their own.
    """
    if options.tuner_backend == "unsloth":
        from swift_jupyter.engine.training.tuners.unsloth import UnslothTuner

        return UnslothTuner(options, seed, checkpointing)
    if options.tuner_type in ("full", "freeze"):
        return FullTuner(options)
    if options.tuner_type == "reft":
        return ReftTuner(options)
    return AdapterTuner(options, total_steps)
