"""Watching any run to its end, and the result that belongs to its command."""

from __future__ import annotations

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.deploy_run import DeployRun
from swift_jupyter.commands.download_run import DownloadRun
from swift_jupyter.commands.mirror_run import MirrorRun
from swift_jupyter.commands.results import Result
from swift_jupyter.commands.run_result import RunResult
from swift_jupyter.commands.training_run import TrainingRun
from swift_jupyter.runs.run import Run
from swift_jupyter.runs.watch import watch


def result_of(run: Run) -> RunResult:
    """Return a run as the result that belongs to its command."""
    kinds: dict[str, type[RunResult]] = {
        "download": DownloadRun,
        "mirror": MirrorRun,
        "deploy": DeployRun,
    }
    return kinds.get(run.record().command, TrainingRun)(run)


def follow(run: Run, context: Context, background: bool) -> Result:
    """Watch a run to its end, or return at once.

    Raises
    ------
    UserError
        When the run failed or its process disappeared.
    Interrupted
        When it was stopped, so that cells behind this one do not use half of it.
    """
    result = result_of(run)
    if background:
        return result
    return result.outcome(watch(run, context.frontend.run_view()))
