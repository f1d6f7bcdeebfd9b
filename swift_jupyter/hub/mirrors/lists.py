"""The mirror lists: the one that is built in, the user's own, and lists from elsewhere."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.files import write_json_atomically
from swift_jupyter.hub.mirrors.mirror import Mirror
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import user_file

_DATA = Path(__file__).parent / "data"
_MOST_BYTES = 1 << 20
_MOST_ERRORS = 3


def user_list_file() -> Path:
    """Return the path of the user's list, which may not exist."""
    return user_file().with_name("mirrors.json")


@functools.cache
def built_in_mirrors() -> tuple[Mirror, ...]:
    """Return the entries that come with the package."""
    content = json.loads((_DATA / "mirrors.json").read_text(encoding="utf-8"))
    return tuple(Mirror.from_json(entry, "built in") for entry in content["mirrors"])


def known_mirrors(path: Path | None = None) -> list[Mirror]:
    """Return the user's entries and then the built-in ones that are in use.

    A user's entry with the name of a built-in one stands for it.
    """
    mine, disabled = _read_user_list(path or user_list_file())
    hidden = {name.lower() for name in disabled} | {mirror.name.lower() for mirror in mine}
    return [*mine, *(m for m in built_in_mirrors() if m.name.lower() not in hidden)]


def find_mirror(name: str, mirrors: Sequence[Mirror]) -> Mirror:
    """Return the entry called `name`.

    Raises
    ------
    UserError
        When there is none, with the nearest names.
    """
    found = next((mirror for mirror in mirrors if mirror.name.lower() == name.lower()), None)
    if found is None:
        raise UserError(
            _("There is no mirror '{name}'.", name=name),
            did_you_mean(name, [mirror.name for mirror in mirrors]),
            _("Type %swift mirrors to see all."),
        )
    return found


def check_list(content: Any, place: str) -> list[Mirror]:
    """Check a list against the schema and return its entries.

    Parameters
    ----------
    content : object
        What the JSON text said.
    place : str
        Where it comes from, for errors.

    Raises
    ------
    UserError
        When it does not fit; it names the entry and the field.
    """
    import jsonschema

    schema = json.loads((_DATA / "schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(content), key=lambda error: list(map(str, error.path)))
    problems = [_problem(content, error) for error in errors[:_MOST_ERRORS]]
    if not problems:
        problems = _twice(entry["name"] for entry in content["mirrors"])
    if problems:
        raise UserError(
            _("{place} is not a list of mirrors.", place=place),
            "; ".join(problems),
            _("An entry has at least name, url and hubs: see %swift mirrors --help"),
        )
    return [Mirror.from_json(entry, "yours") for entry in content["mirrors"]]


def read_list(place: str, environ: Mapping[str, str] | None = None) -> list[Mirror]:
    """Load a list from a file or an address, and check it.

    Parameters
    ----------
    place : str
        A path, or an http or https address.
    environ : mapping, optional
        Environment variables, for proxies; the process's own when left out.

    Raises
    ------
    UserError
        When it cannot be read or does not fit.
    """
    if place.lower().startswith(("http://", "https://")):
        return check_list(_fetch(place, os.environ if environ is None else environ), place)
    path = Path(place).expanduser()
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(_("it is too large"))
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(
            _("The list {place} cannot be read.", place=place), reason or str(error)
        ) from None
    return check_list(content, place)


def add_mirrors(added: Iterable[Mirror], path: Path | None = None) -> list[Mirror]:
    """Put entries into the user's list, in place of those with the same name; return the list.

    Raises
    ------
    UserError
        When the list cannot be read or written.
    """
    path = path or user_list_file()
    mine, disabled = _read_user_list(path, strict=True)
    entries = {mirror.name.lower(): mirror for mirror in mine}
    entries.update({mirror.name.lower(): mirror for mirror in added})
    enabled = [name for name in disabled if name.lower() not in entries]
    _write_user_list(path, list(entries.values()), enabled)
    return list(entries.values())


def remove_mirror(name: str, path: Path | None = None) -> Mirror:
    """Take an entry out of use and return it: the user's is forgotten, a built-in one hidden.

    Raises
    ------
    UserError
        When there is none of this name, or the list cannot be written.
    """
    path = path or user_list_file()
    found = find_mirror(name, known_mirrors(path))
    mine, disabled = _read_user_list(path, strict=True)
    if found.origin == "built in":
        disabled = [*disabled, found.name]
    _write_user_list(path, [m for m in mine if m.name.lower() != name.lower()], disabled)
    return found


def restore_mirror(name: str, path: Path | None = None) -> Mirror:
    """Bring a hidden built-in entry back and return it.

    Raises
    ------
    UserError
        When no built-in entry has this name, or the list cannot be written.
    """
    path = path or user_list_file()
    found = find_mirror(name, built_in_mirrors())
    mine, disabled = _read_user_list(path, strict=True)
    kept = [hidden for hidden in disabled if hidden.lower() != name.lower()]
    _write_user_list(path, [m for m in mine if m.name.lower() != name.lower()], kept)
    return found


def _fetch(url: str, environ: Mapping[str, str]) -> Any:
    from swift_jupyter.hub.http.client import Client
    from swift_jupyter.hub.http.errors import HttpError, plain_address

    client = Client(environ, connections=1)
    try:
        content, _headers = client.read_json(url, deadline=10.0)
    except HttpError as error:
        raise UserError(
            _("The list {place} cannot be read.", place=plain_address(url)), error.text
        ) from None
    finally:
        client.close()
    return content


def _read_user_list(path: Path, strict: bool = False) -> tuple[list[Mirror], list[str]]:
    """Return the user's entries and the names of hidden ones.

    Entries were checked when they were added, so that reading needs no schema. What is
    broken is passed over, since a download must not fail for it; before writing, `strict`
    keeps it from being lost.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [_entry(value) for value in content.get("mirrors", ())]
        disabled = [str(name) for name in content.get("disabled", ())]
        broken = "" if all(entries) else _("an entry is broken")
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        entries, disabled, broken = [], [], str(error)
    if strict and broken:
        raise UserError(
            _("The list of mirrors {path} cannot be read.", path=path),
            broken,
            _("Mend or delete it."),
        )
    return [mirror for mirror in entries if mirror is not None], disabled


def _entry(value: Any) -> Mirror | None:
    try:
        return Mirror.from_json(value, "yours")
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _write_user_list(path: Path, mirrors: Sequence[Mirror], disabled: Sequence[str]) -> None:
    content: dict[str, Any] = {"version": 1, "mirrors": [mirror.to_json() for mirror in mirrors]}
    if disabled:
        content["disabled"] = sorted(set(disabled))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(path, content)
    except OSError as error:
        raise UserError(
            _("The list of mirrors {path} cannot be written.", path=path),
            error.strerror or str(error),
        ) from None


def _problem(content: Any, error: Any) -> str:
    """Say in words which field of which entry does not fit."""
    path = list(error.absolute_path)
    reason = _reason(error)
    if len(path) < 2 or path[0] != "mirrors":
        field = "/".join(map(str, path))
        return f"{field}: {reason}" if field else reason
    entry = content["mirrors"][path[1]]
    name = entry.get("name") if isinstance(entry, dict) else None
    label = f"'{name}'" if isinstance(name, str) else _("number {number}", number=path[1] + 1)
    field = "/".join(str(part) for part in path[2:])
    return _(
        "entry {entry}{field}: {reason}",
        entry=label,
        field=f", {field}" if field else "",
        reason=reason,
    )


def _reason(error: Any) -> str:
    value = repr(error.instance)
    if len(value) > 60:
        value = value[:57] + "…"
    if error.validator == "enum":
        choices = ", ".join(map(str, error.validator_value))
        return _("{value} is not one of {choices}", value=value, choices=choices)
    if error.validator == "pattern":
        meaning = error.schema.get("description", "")
        return _("{value} has not the right form", value=value) + (
            f" ({meaning})" if meaning else ""
        )
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return _("{names} is missing", names=", ".join(missing))
    return str(error.message)[:200]


def _twice(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    problems = []
    for name in names:
        if name.lower() in seen:
            problems.append(_("the name '{name}' stands there twice", name=name))
        seen.add(name.lower())
    return problems
