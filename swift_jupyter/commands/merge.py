"""``merge``: adapter and base as one standalone model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.infer import locate
from swift_jupyter.commands.pulling import pull_with_progress
from swift_jupyter.commands.results import Facts
from swift_jupyter.engine.export.merge import Merged, check_mergeable, merge
from swift_jupyter.engine.inference.adapters import common_base
from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """The options of ``merge``."""

    adapter: Any = option(
        help="The adapter: a run as $run, its id, or the folder of a run or checkpoint.",
        positional=True,
        completer="adapter",
        objects=True,
        aliases=("adapters", "ckpt_dir"),
    )
    model: str = option(
        "", help="The base; by default the one the adapter was trained on.", completer="model"
    )
    output_dir: str = option(
        "", help="The folder to make; by default <checkpoint>-merged.", completer="path"
    )
    torch_dtype: str | None = option(
        None,
        help="The data type of the stored weights; by default the base's own.",
        choices=("float32", "bfloat16", "float16"),
    )
    overwrite: bool = option(False, help="Replace an older merge.", aliases=("exist_ok",))
    trust_remote_code: bool = option(False, help="Run Python code that comes with the model.")


def run(options: MergeOptions, context: Context) -> Facts:
    """Merge, measure, and say where the model is.

    Raises
    ------
    UserError
        When the adapter or the base cannot be found, or the folder is taken.
    """
    adapter = locate(options.adapter, context)
    check_mergeable(adapter)
    base = options.model or common_base([adapter])
    snapshot = pull_with_progress(resolve(base), context.frontend, context.settings)
    output = Path(options.output_dir or f"{adapter.path}-merged").expanduser().absolute()
    with context.frontend.progress(output.name) as view:
        merged = merge(
            adapter,
            snapshot.path,
            output,
            dtype=options.torch_dtype,
            overwrite=options.overwrite,
            trust_remote_code=options.trust_remote_code,
            report=view.update,
        )
    return _facts(merged)


def _facts(merged: Merged) -> Facts:
    difference = _(
        "{difference} of {scale}; the likeliest token is the same at {share} of positions",
        difference=f"{merged.largest_difference:.2g}",
        scale=f"{merged.logit_scale:.3g}",
        share=f"{merged.same_choices:.0%}",
    )
    facts = {
        _("folder"): str(merged.path),
        _("stored as"): merged.dtype,
        _("largest logit difference"): difference,
    }
    title = _("Merged") if not merged.reused else _("Merged before, from the very same adapter")
    note = _("Chat with it: %%swift infer --model {path}", path=merged.path)
    return Facts(title, facts, dict(vars(merged)), note)
