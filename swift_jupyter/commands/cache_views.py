"""How the parts of the cache look as results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swift_jupyter.commands.results import Facts, Table
from swift_jupyter.files import size_text
from swift_jupyter.hub.cache.checking import Check, Verdict, checks_of
from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.prune import PrunePlan
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

_FILES_SHOWN = 30
_COLUMNS = ("name", "kind", "hub", "size", "state", "last_used", "pinned")


def entries_table(
    entries: Iterable[CachedRepo], note: str, data: Mapping[str, Any] | None = None
) -> Table:
    """Return repositories as rows."""
    rows = [_row(entry) for entry in entries]
    columns = _COLUMNS if any(row["pinned"] for row in rows) else _COLUMNS[:-1]
    return Table(columns, rows, note=note, data=data or {})


def entry_facts(settings: Settings, entry: CachedRepo) -> Facts:
    """Return one repository with its revisions and files."""
    checks = checks_of(settings, [entry])
    facts = {
        _("kind"): entry.kind,
        _("hub"): ", ".join(entry.hubs),
        _("other names"): ", ".join(entry.names[1:]) or None,
        _("size"): entry.size_str,
        _("state"): state_text(entry),
        _("last used"): _date(entry.last_used),
        _("pinned"): entry.pinned,
        _("revisions"): ", ".join(entry.revisions),
        _("folder"): "\n".join(str(path) for path in entry.paths),
    }
    snapshots = [_snapshot(check) for check in checks]
    shown = {label: value for label, value in facts.items() if value not in (None, "")}
    body = "\n\n".join(_files_text(snapshot) for snapshot in snapshots)
    data = {**entry.to_dict(), "state": state_text(entry), "snapshots": snapshots}
    note = ""
    if not entry.complete:
        note = _("Complete it: {command}", command=download_command(entry))
    return Facts(entry.repo_id, shown, data, note, body)


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Return what was read again, one snapshot a row, and how to mend what is wrong."""
    rows = []
    for verdict in verdicts:
        check = verdict.check
        rows.append(
            {
                "name": check.entry.repo_id,
                "snapshot": check.folder.name if check.folder not in check.entry.paths else "",
                "files": len(check.files),
                "state": _verdict_text(verdict),
                "wrong": [
                    {"path": wrong.path, "expected": wrong.expected, "found": wrong.found}
                    for wrong in verdict.wrong
                ],
                "unknown": check.unknown,
                "path": str(check.folder),
            }
        )
    wrong = [verdict for verdict in verdicts if verdict.wrong]
    told = [
        _(
            "{file} of {name}: expected {expected}, found {found}",
            file=mismatch.path,
            name=verdict.check.entry.repo_id,
            expected=mismatch.expected,
            found=mismatch.found,
        )
        for verdict in wrong
        for mismatch in verdict.wrong
    ]
    lines = list(dict.fromkeys(told))  # Both hubs' caches may show the same file.
    mending = dict.fromkeys(download_command(verdict.check.entry) for verdict in wrong)
    lines += [_("Mend it: {command}", command=command) for command in mending]
    if not wrong:
        checked = sum(len(verdict.check.files) for verdict in verdicts)
        lines.append(_("All {count} files with known hashes are right.", count=checked))
    unknown = sum(verdict.check.unknown for verdict in verdicts)
    if unknown:
        lines.append(_("Of {count} files no hash is known.", count=unknown))
    data = {"right": not wrong}
    return Table(("name", "snapshot", "files", "state"), rows, note="\n".join(lines), data=data)


def prune_table(plan: PrunePlan, note: str) -> Table:
    """Return what a clean-up removes."""
    rows = [
        {"what": _("incomplete"), "name": entry.repo_id, **_amount(entry.size_bytes), "count": 1}
        for entry in plan.incomplete.entries
    ]
    rows += [
        {"what": _("broken-off file"), "name": str(left.path), **_amount(left.size), "count": 1}
        for left in plan.leftovers
    ]
    words = {
        "object": _("files that nothing refers to"),
        "part": _("unfinished transfers"),
        "quarantined": _("files that were wrong"),
    }
    for sort, text in words.items():
        files = [file for file in plan.garbage.files if file.sort == sort]
        if files:
            amount = _amount(sum(file.size for file in files))
            name = _("{count} in the store", count=len(files))
            rows.append({"what": text, "name": name, **amount, "count": len(files)})
    data = {"freed_bytes": plan.expected_freed_bytes, "removed": False}
    return Table(("what", "name", "size"), rows, note=note, data=data)


def state_text(entry: CachedRepo) -> str:
    """Return whether a repository is complete, for people, such as ``incomplete · 31 %``."""
    if entry.complete:
        return _("complete")
    if entry.progress is None:
        return _("incomplete")
    # What is not all there never shows as all.
    percent = min(int(100 * entry.progress), 99)
    return _("incomplete · {percent} %", percent=percent)


def download_command(entry: CachedRepo) -> str:
    """Return what to type to fetch what a repository lacks."""
    flag = " --dataset" if entry.kind == "dataset" else ""
    return f"%swift download {entry.repo_id}{flag}"


def _row(entry: CachedRepo) -> dict[str, Any]:
    return {
        "name": entry.repo_id,
        "kind": entry.kind,
        "hub": ", ".join(entry.hubs),
        "size": entry.size_str,
        "size_bytes": entry.size_bytes,
        "state": state_text(entry),
        "complete": entry.complete,
        "progress": entry.progress,
        "last_used": _date(entry.last_used),
        "pinned": entry.pinned,
        "revisions": list(entry.revisions),
        "path": str(entry.path),
        "paths": [str(path) for path in entry.paths],
    }


def _snapshot(check: Check) -> dict[str, Any]:
    record = check.record
    return {
        "path": str(check.folder),
        "source": record.source if record is not None else None,
        "commit": record.commit if record is not None else None,
        "files": [file.to_dict() for file in check.files],
        "files_without_hash": check.unknown,
    }


def _files_text(snapshot: Mapping[str, Any]) -> str:
    lines = [snapshot["path"]]
    for file in snapshot["files"][:_FILES_SHOWN]:
        size = size_text(file["size"]) if file["size"] is not None else ""
        known = (
            f"sha256 {file['sha256'][:12]}…"
            if file["sha256"]
            else f"git sha1 {file['git_sha1'][:12]}…"
        )
        lines.append(f"  {size:>9}  {known:<22}  {file['path']}")
    if len(snapshot["files"]) > _FILES_SHOWN:
        lines.append("  " + _("… and {count} more", count=len(snapshot["files"]) - _FILES_SHOWN))
    if snapshot["files_without_hash"]:
        lines.append(
            "  " + _("{count} files without a known hash", count=snapshot["files_without_hash"])
        )
    return "\n".join(lines)


def _verdict_text(verdict: Verdict) -> str:
    if verdict.wrong:
        return _("wrong: {names}", names=", ".join(wrong.path for wrong in verdict.wrong))
    if not verdict.check.files:
        return _("no hash known")
    return _("right")


def _amount(size: int) -> dict[str, Any]:
    return {"size": size_text(size), "size_bytes": size}


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))
