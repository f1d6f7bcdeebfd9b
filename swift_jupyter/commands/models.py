"""``models``: search the known models by name."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Table
from swift_jupyter.engine.models.catalogue import CatalogueEntry, search
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option


@dataclass(frozen=True, kw_only=True)
class ModelsOptions:
    """The options of ``models``."""

    query: str = option(
        "", help="Words of the name, such as qwen2.5 0.5b.", positional=True, takes_rest=True
    )
    limit: int = option(20, help="How many rows to show.")
    cached: bool = option(False, help="Only models that are on this machine.")


def run(options: ModelsOptions, context: Context) -> Table:
    """List the models that fit, and mark those on this machine.

    Raises
    ------
    OptionError
        When `options.limit` is not positive.
    """
    check_positive(options, "limit")
    cached = {
        name.lower(): repo
        for repo in scan_cache(context.settings).entries
        if repo.kind == "model"
        for name in repo.names
    }
    if options.cached:
        words = options.query.lower().split()
        fitting = [cached[name] for name in sorted(cached) if all(word in name for word in words)]
        rows = [_cached_row(repo) for repo in dict.fromkeys(fitting)]
    else:
        rows = [_row(entry, cached) for entry in search(options.query, options.limit)]
    note = "" if rows else _("Nothing fits. Try fewer words, or the whole id with %swift download.")
    return Table(("name", "huggingface", "kind", "cached"), rows[: options.limit], note=note)


def _row(entry: CatalogueEntry, cached: dict[str, CachedRepo]) -> dict[str, object]:
    ids = (entry.package_id, entry.modelscope_id, entry.huggingface_id)
    found = [cached[name.lower()] for name in ids if name and name.lower() in cached]
    return {
        "name": entry.id,
        "huggingface": entry.huggingface_id if entry.huggingface_id != entry.id else "",
        "kind": entry.modality,
        "model_type": entry.model_type,
        "cached": _cached_text(found[0]) if found else "",
    }


def _cached_row(repo: CachedRepo) -> dict[str, object]:
    return {"name": repo.repo_id, "kind": repo.hub, "cached": _cached_text(repo)}


def _cached_text(repo: CachedRepo) -> str:
    size = size_text(repo.size_bytes)
    return size if repo.complete else _("{size}, incomplete", size=size)
