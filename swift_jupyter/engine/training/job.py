"""All options of one fine-tuning, and whether they fit each other."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.engine.models.quantisation import QuantOptions, check_quantisation
from swift_jupyter.engine.training.backends import check_backends
from swift_jupyter.engine.training.optimizers.checks import check_optimizer
from swift_jupyter.engine.training.optimizers.options import LisaOptions, OptimizerOptions
from swift_jupyter.engine.training.options import TrainingOptions
from swift_jupyter.engine.training.tuners.checks import check_quantised_tuner, check_tuner_options
from swift_jupyter.engine.training.tuners.options import TunerOptions


@dataclass(frozen=True, kw_only=True)
class SftJob(
    TrainingOptions,
    OptimizerOptions,
    LisaOptions,
    TunerOptions,
    QuantOptions,
    DataOptions,
    ModelOptions,
):
    """All that a fine-tuning needs to know."""


def check_methods(job: SftJob, device: str | None = None) -> None:
    """See that tuner, optimizer, quantisation and backends fit each other and can work here.

    Parameters
    ----------
    job : SftJob
        The options.
    device : str, optional
        What will be trained on, where that is known.

    Raises
    ------
    UserError
        Says what does not fit or what is missing.
    """
    check_tuner_options(job)
    check_optimizer(job, job, job.tuner_type)
    check_quantisation(job)
    if job.quant_method:
        check_quantised_tuner(job, job.quant_bits or 4, device)
    check_backends(job, device)
