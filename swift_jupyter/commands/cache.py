"""``cache``: what is on this machine, and removing it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Result, Table
from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.hub.cache import CachedRepo, scan_cache
from swift_jupyter.hub.removal import plan_removal
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.settings import Settings


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """The options of ``cache``."""

    action: str = option("ls", help="List, or remove.", choices=("ls", "rm"), positional=True)
    names: list[str] = option(
        [], help="What to remove or show, by its name.", completer="cached", positional=True
    )
    yes: bool = option(False, help="Remove; without it rm only shows what would be freed.")


def run(options: CacheOptions, context: Context) -> Result:
    """List the cache, or remove from it.

    Raises
    ------
    UserError
        When a name is not in the cache.
    """
    listing = scan_cache(context.settings)
    if options.action == "ls":
        for warning in listing.warnings:
            context.frontend.notice(warning)
        shown = listing.entries
        if options.names:
            shown = tuple(repo for name in options.names for repo in _named(name, shown))
        total = sum(repo.size_bytes for repo in shown)
        note = _("{size} in all.", size=size_text(total))
        if not listing.entries:
            note = _("Nothing is cached yet. Try: %swift download smollm2-demo")
        return _table(shown, note)
    return _remove(options, listing.entries, context.settings)


def _remove(options: CacheOptions, entries: tuple[CachedRepo, ...], settings: Settings) -> Table:
    if not options.names:
        raise UserError(
            _("cache rm needs a name."),
            next_step=_("Type %swift cache to see the names."),
        )
    names = dict.fromkeys(name.lower() for name in options.names)
    chosen = [repo for name in names for repo in _named(name, entries)]
    removal = plan_removal(chosen, settings)
    size = size_text(removal.expected_freed_bytes)
    if not options.yes:
        note = _("This would free {size}. Nothing was removed yet: add --yes.", size=size)
        return _table(tuple(chosen), note)
    freed = removal.execute()
    return _table(tuple(chosen), _("Removed; {size} are free again.", size=size_text(freed)))


def _named(name: str, entries: tuple[CachedRepo, ...]) -> list[CachedRepo]:
    found = [repo for repo in entries if repo.repo_id.lower() == name.lower()]
    if not found:
        raise UserError(
            _("'{name}' is not in the cache.", name=name),
            did_you_mean(name, [repo.repo_id for repo in entries]),
            _("Type %swift cache to see the names."),
        )
    return found


def _table(entries: tuple[CachedRepo, ...], note: str) -> Table:
    rows = [
        {
            "name": repo.repo_id,
            "kind": repo.kind,
            "hub": repo.hub,
            "size": size_text(repo.size_bytes),
            "size_bytes": repo.size_bytes,
            "complete": repo.complete,
            "last_used": time.strftime("%Y-%m-%d", time.localtime(repo.last_used)),
            "path": str(repo.path),
        }
        for repo in sorted(entries, key=lambda repo: -repo.size_bytes)
    ]
    return Table(("name", "kind", "hub", "size", "complete", "last_used"), rows, note=note)
