"""``download``: bring models or data sets to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.pulling import pull_with_progress
from swift_jupyter.commands.results import Facts, Result, Table
from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.errors import UserError
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot, size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """The options of ``download``."""

    names: list[str] = option(
        help="Ids of models, short names, or with --dataset ids of data sets.",
        completer="model",
        positional=True,
        aliases=("model",),
    )
    dataset: bool = option(False, help="The names are those of data sets.")
    revision: str | None = option(None, help="The branch, tag or commit.")
    source: str = option(
        "auto",
        help="Where to look; by default the cache, packages on this machine, then both hubs.",
        choices=("auto", "modelscope", "huggingface", "cache", "local"),
    )
    use_hf: bool = option(False, help="Ask Hugging Face before ModelScope.")
    include: list[str] = option([], help="Only files that fit one of these patterns.")
    exclude: list[str] = option([], help="No files that fit one of these patterns.")
    local_dir: str = option(
        "", help="A folder for the files instead of the cache.", completer="path"
    )


def run(options: DownloadOptions, context: Context) -> Result:
    """Pull every name and say where it is.

    Raises
    ------
    UserError
        When a name is unknown or no source has it.
    """
    snapshots = [_pull(name, options, context) for name in options.names]
    return _facts(snapshots[0]) if len(snapshots) == 1 else _table(snapshots)


def _pull(name: str, options: DownloadOptions, context: Context) -> Snapshot:
    settings = context.settings_for(options.use_hf)
    local_dir = Path(options.local_dir).expanduser() if options.local_dir else None
    if local_dir is not None and len(options.names) > 1:
        local_dir = local_dir / Path(name).name
    return pull_with_progress(
        _reference(name, options),
        context.frontend,
        settings,
        source=options.source,
        include=options.include,
        exclude=options.exclude,
        local_dir=local_dir,
    )


def _reference(name: str, options: DownloadOptions) -> RepoReference:
    if not options.dataset:
        return resolve(name, options.revision)
    if name.count("/") != 1:
        raise UserError(
            _("'{name}' is not the id of a data set.", name=name),
            next_step=_("Give owner/name, for example: swift/self-cognition"),
        )
    return RepoReference.of_hub(name, "dataset", options.revision)


def _facts(snapshot: Snapshot) -> Facts:
    facts = {
        _("source"): snapshot.source,
        _("size"): size_text(snapshot.size_bytes),
        _("folder"): str(snapshot.path),
    }
    note = ""
    if snapshot.kind == "model":
        note = _("Chat with it: %%swift infer --model {id}", id=snapshot.repo_id)
    return Facts(snapshot.repo_id, facts, {**snapshot.to_dict(), "path": snapshot.path}, note)


def _table(snapshots: list[Snapshot]) -> Table:
    rows = [
        {
            "name": snapshot.repo_id,
            "source": snapshot.source,
            "size": size_text(snapshot.size_bytes),
            "folder": str(snapshot.path),
        }
        for snapshot in snapshots
    ]
    return Table(("name", "source", "size", "folder"), rows)
