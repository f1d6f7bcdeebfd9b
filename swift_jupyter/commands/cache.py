"""``cache``: what is on this machine: listing, checking, keeping and removing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from swift_jupyter.commands.cache_views import (
    entries_table,
    entry_facts,
    prune_table,
    verdicts_table,
)
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Result, Table
from swift_jupyter.errors import Interrupted, UserError, did_you_mean
from swift_jupyter.files import size_text
from swift_jupyter.hub.cache.checking import Check, Verdict, checks_of, run_checks
from swift_jupyter.hub.cache.entries import CachedRepo, disk_bytes
from swift_jupyter.hub.cache.prune import plan_prune
from swift_jupyter.hub.cache.removal import plan_removal
from swift_jupyter.hub.cache.scan import CacheListing, scan_cache
from swift_jupyter.hub.store.store import open_store
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.settings import Settings


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """The options of ``cache``."""

    action: str = option(
        "ls",
        help="List, show one with its files, compare with the hashes, remove, clean up, or pin.",
        choices=("ls", "show", "verify", "rm", "prune", "pin", "unpin"),
        positional=True,
    )
    names: list[str] = option(
        [], help="Names, or patterns such as Qwen/*.", completer="cached", positional=True
    )
    kind: str | None = option(
        None, help="Only models, or only data sets.", choices=("model", "dataset")
    )
    incomplete: bool = option(False, help="Only what is incomplete.")
    sort: str = option(
        "size",
        help="The order of the list: the largest, the last used, or the first by name.",
        choices=("size", "used", "name"),
    )
    days: float = option(
        1.0, help="What was written in the last days is left alone by prune: a pull may be at work."
    )
    yes: bool = option(False, help="Remove; without it rm and prune only show what would be freed.")
    force: bool = option(False, help="Remove also what is pinned.")


def run(options: CacheOptions, context: Context) -> Result:
    """Do what is asked with the cache.

    Raises
    ------
    UserError
        When a name is not in the cache, or something cannot be removed.
    Interrupted
        When verifying was stopped; what was checked is kept.
    """
    actions: dict[str, Callable[[CacheOptions, Context, CacheListing], Result]] = {
        "ls": _list,
        "show": _show,
        "verify": _verify,
        "rm": _remove,
        "prune": _prune,
        "pin": _pin,
        "unpin": _pin,
    }
    return actions[options.action](options, context, scan_cache(context.settings))


def _list(options: CacheOptions, context: Context, listing: CacheListing) -> Table:
    for warning in listing.warnings:
        context.frontend.notice(warning)
    shown = _chosen(options, listing.entries) if options.names else list(listing.entries)
    shown = [entry for entry in shown if _fits(entry, options)]
    note = _("{size} in all.", size=size_text(disk_bytes(shown)))
    if not listing.entries:
        note = _("Nothing is cached yet. Try: %swift download smollm2-demo")
    elif not shown:
        note = _("Nothing fits.")
    data = {"size_bytes": disk_bytes(shown), "warnings": list(listing.warnings)}
    return entries_table(_sorted(shown, options.sort), note, data)


def _show(options: CacheOptions, context: Context, listing: CacheListing) -> Result:
    chosen = _named(options, listing.entries)
    if len(chosen) > 1:
        return entries_table(chosen, _("Give the whole name of one of them to see its files."))
    return entry_facts(context.settings, chosen[0])


def _verify(options: CacheOptions, context: Context, listing: CacheListing) -> Table:
    entries = _chosen(options, listing.entries) if options.names else list(listing.entries)
    entries = [entry for entry in entries if _fits(entry, options)]
    checks = checks_of(context.settings, entries)
    verdicts: list[Verdict] = []
    try:
        _run_checks(checks, context, verdicts)
    except KeyboardInterrupt:
        raise Interrupted(
            _("Stopped after {done} of {total}.", done=len(verdicts), total=len(checks)),
            next_step=_("Type the same command again to check all."),
            result=verdicts_table(verdicts),
        ) from None
    return verdicts_table(verdicts)


def _run_checks(checks: Sequence[Check], context: Context, verdicts: list[Verdict]) -> None:
    total = sum(check.total_bytes for check in checks)
    done = 0
    with context.frontend.progress(_("verify")) as view:

        def count(path: str, read: int) -> None:
            nonlocal done
            done += read
            view.update(_("reading {file}", file=path), done, max(total, done))

        for verdict in run_checks(context.settings, checks, count):
            verdicts.append(verdict)


def _remove(options: CacheOptions, context: Context, listing: CacheListing) -> Table:
    chosen = [entry for entry in _named(options, listing.entries) if _fits(entry, options)]
    pinned = [entry for entry in chosen if entry.pinned]
    if pinned and not options.force:
        raise UserError(
            _("{name} is pinned.", name=pinned[0].repo_id),
            next_step=_("Type %swift cache unpin {name}, or add --force.", name=pinned[0].repo_id),
        )
    removal = plan_removal(chosen, context.settings)
    size = size_text(removal.expected_freed_bytes)
    data = {"freed_bytes": removal.expected_freed_bytes, "removed": False}
    if not options.yes:
        note = _("This would free {size}. Nothing was removed yet: add --yes.", size=size)
        return entries_table(chosen, note, data)
    freed = removal.execute()
    _set_pins(context.settings, pinned, False)
    note = _("Removed; {size} are free again.", size=size_text(freed))
    return entries_table(chosen, note, {"freed_bytes": freed, "removed": True})


def _prune(options: CacheOptions, context: Context, _listing: CacheListing) -> Table:
    if options.days < 0:
        raise UserError(_("--days cannot be negative."))
    if options.names:
        raise UserError(
            _("cache prune takes no names."), next_step=_("Type %swift cache rm NAME instead.")
        )
    plan = plan_prune(context.settings, days=options.days)
    size = size_text(plan.expected_freed_bytes)
    if plan.is_empty:
        note = _("There is nothing to clean up.")
    elif not options.yes:
        note = _("This would free {size}. Nothing was removed yet: add --yes.", size=size)
    else:
        note = ""
    table = prune_table(plan, note)
    if options.yes and not plan.is_empty:
        freed = plan.execute()
        table.note = _("Removed; {size} are free again.", size=size_text(freed))
        table.data = {"freed_bytes": freed, "removed": True}
    return table


def _pin(options: CacheOptions, context: Context, listing: CacheListing) -> Table:
    chosen = _named(options, listing.entries)
    pinned = options.action == "pin"
    _set_pins(context.settings, chosen, pinned)
    names = {entry.repo_id for entry in chosen}
    now = [entry for entry in scan_cache(context.settings).entries if entry.repo_id in names]
    return entries_table(now, _("Pinned: no clean-up removes them.") if pinned else _("Unpinned."))


def _set_pins(settings: Settings, entries: Iterable[CachedRepo], pinned: bool) -> None:
    pins = open_store(settings).pins
    for entry in entries:
        for name in entry.names:
            (pins.pin if pinned else pins.unpin)(entry.kind, name)


def _named(options: CacheOptions, entries: Sequence[CachedRepo]) -> list[CachedRepo]:
    """Return what the names mean, of which there must be one."""
    if not options.names:
        raise UserError(
            _("cache {action} needs a name.", action=options.action),
            next_step=_("Type %swift cache to see the names."),
        )
    return _chosen(options, entries)


def _chosen(options: CacheOptions, entries: Sequence[CachedRepo]) -> list[CachedRepo]:
    """Return the entries that the names and patterns mean, each once."""
    chosen: dict[CachedRepo, None] = {}
    for name in options.names:
        found = [entry for entry in entries if _means(name, entry)]
        if not found:
            raise UserError(
                _("'{name}' is not in the cache.", name=name),
                did_you_mean(name, [known for entry in entries for known in entry.names]),
                _("Type %swift cache to see the names."),
            )
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def _means(name: str, entry: CachedRepo) -> bool:
    if any(character in name for character in "*?["):
        return any(fnmatchcase(known.lower(), name.lower()) for known in entry.names)
    return entry.is_called(name)


def _fits(entry: CachedRepo, options: CacheOptions) -> bool:
    right_kind = options.kind is None or entry.kind == options.kind
    return right_kind and not (options.incomplete and entry.complete)


def _sorted(entries: list[CachedRepo], order: str) -> list[CachedRepo]:
    keys: dict[str, Callable[[CachedRepo], object]] = {
        "size": lambda entry: -entry.size_bytes,
        "used": lambda entry: -entry.last_used,
        "name": lambda entry: entry.repo_id.lower(),
    }
    return sorted(entries, key=keys[order])  # type: ignore[arg-type]
