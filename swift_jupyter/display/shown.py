"""Results that were drawn while their command ran are not displayed a second time."""

from __future__ import annotations

from typing import Any

from swift_jupyter.commands.results import Result


def forget_after_cell(result: object, shell: Any) -> None:
    """Let a result that this cell has shown live be displayed from the next cell on."""
    if not isinstance(result, Result) or not result.shown:
        return

    def forget(*_arguments: object) -> None:
        result.shown = False
        shell.events.unregister("post_run_cell", forget)

    shell.events.register("post_run_cell", forget)
