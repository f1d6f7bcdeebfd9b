"""``runs``: list runs, and attach to, stop, resume or read the log of one."""

from __future__ import annotations

import time
from dataclasses import dataclass

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.following import follow, result_of
from swift_jupyter.commands.results import Facts, Result, Table
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.launch import resume
from swift_jupyter.runs.run import Run, RunStatus
from swift_jupyter.runs.words import on_kill, on_stop

_ACTIONS = ("list", "attach", "stop", "resume", "logs", "show")
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """The options of ``runs``."""

    action: str = option("list", help="What to do.", choices=_ACTIONS, positional=True)
    run: str = option(
        "",
        help="The id of a run, the beginning of it, or its folder; by default the newest.",
        completer="run",
        positional=True,
    )
    now: bool = option(False, help="With stop: kill it at once instead of saving first.")
    lines: int = option(40, help="With logs: how many lines.")
    background: bool = option(False, help="With resume: return at once.")
    all: bool = option(False, help="With list: every run instead of the newest.")


def run(options: RunsOptions, context: Context) -> Result:
    """Do what `options.action` says.

    Raises
    ------
    UserError
        When there is no such run, or it cannot do that now.
    """
    check_positive(options, "lines")
    index = RunIndex(context.settings)
    if options.action == "list":
        return _table(index.all(), options.all)
    chosen = _choose(index, options)
    if options.action == "attach":
        return follow(chosen, context, background=False)
    if options.action == "resume":
        return follow(resume(chosen, context.settings), context, options.background)
    if options.action == "stop":
        return _stop(chosen, options.now)
    if options.action == "logs":
        return _log(chosen, options.lines)
    return result_of(chosen)


def _choose(index: RunIndex, options: RunsOptions) -> Run:
    if options.run:
        return index.find(options.run)
    runs = index.active() if options.action in ("attach", "stop") else index.all()
    if not runs:
        raise UserError(
            _("There is no run to {action}.", action=options.action),
            next_step=_("Type %swift runs to list the runs."),
        )
    return runs[0]


def _table(runs: list[Run], everything: bool) -> Table:
    shown = runs if everything else runs[:_SHOWN]
    rows = [_row(found.status()) for found in shown]
    note = ""
    if not rows:
        note = _("There are no runs yet. Start one: %%swift sft --help")
    elif len(runs) > len(shown):
        note = _("{count} older ones: %swift runs --all", count=len(runs) - len(shown))
    columns = ("id", "state", "progress", "loss", "model", "started", "folder")
    return Table(columns, rows, title=_("Runs"), note=note)


def _row(status: RunStatus) -> dict[str, object]:
    return {
        "id": status.id,
        "command": status.command,
        "state": status.state,
        "progress": status.progress_text,
        "loss": status.loss,
        "model": status.title,
        "started": time.strftime("%m-%d %H:%M", time.localtime(status.created)),
        "folder": status.output_dir,
        "reason": status.reason,
    }


def _stop(chosen: Run, now: bool) -> Facts:
    state = chosen.state
    if not state.active:
        raise OptionError(
            _("{id} is not at work: it is {state}.", id=chosen.id, state=state.value),
            next_step=_("To go on with it: %swift runs resume {id}", id=chosen.id),
        )
    command = chosen.record().command
    if now:
        chosen.kill()
        going_on = _("To go on: %swift runs resume {id}", id=chosen.id)
        note = f"{on_kill(command)} {going_on}"
    else:
        chosen.request_stop()
        note = on_stop(command)
    return Facts(chosen.id, {_("state"): chosen.state.value}, chosen.status().to_dict(), note)


def _log(chosen: Run, lines: int) -> Facts:
    text = "\n".join(chosen.log_tail(lines))
    data = {"id": chosen.id, "path": str(chosen.folder.log_file), "log": text}
    note = "" if text else _("The log is empty.")
    return Facts(f"{chosen.id}: {chosen.folder.log_file}", {}, data, note, body=text)
