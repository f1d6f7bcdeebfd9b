"""``mirrors``: the places that copy the hubs; list, add, remove, measure, report."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.frontend import Bar
from swift_jupyter.commands.results import Facts, Result, Table
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.files import size_text, write_text_atomically
from swift_jupyter.hub.mirrors.mirror import HUBS, ROLES, Mirror
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option

_ACTIONS = ("ls", "add", "rm", "restore", "probe", "report")


@dataclass(frozen=True, kw_only=True)
class MirrorsOptions:
    """The options of ``mirrors``."""

    action: str = option("ls", help="What to do.", choices=_ACTIONS, positional=True)
    names: list[str] = option(
        [],
        help="Names of mirrors; with add a name, or the address or file of a list.",
        completer="mirror",
        positional=True,
    )
    url: str = option("", help="With add: the address of the mirror.")
    hubs: list[str] = option(
        [],
        help="With add: the hubs whose protocol it speaks, modelscope, huggingface or both.",
        aliases=("hub",),
    )
    role: str = option("mirror", help="With add: what it is.", choices=ROLES)
    region: str = option("", help="With add: where it is near, such as cn or global.")
    token_env: str = option(
        "", help="With add: the environment variable that holds the token for it."
    )
    report_url: str = option("", help="With add: where to say that it is broken.")
    note: str = option("", help="With add: a remark.")
    timeout: float = option(6.0, help="With probe and report: seconds for all of it.")
    model: str = option("", help="With probe and report: the model whose listing is asked for.")
    output: str = option(
        "", help="With report: a file for it, besides showing it.", completer="path"
    )


def run(options: MirrorsOptions, context: Context) -> Result:
    """Do what `options.action` says.

    Raises
    ------
    UserError
        For an unknown name, or a list that cannot be read or does not fit.
    """
    check_positive(options, "timeout")
    actions = {
        "ls": _list,
        "add": _add,
        "rm": _remove,
        "restore": _restore,
        "probe": _probe,
        "report": _report,
    }
    return actions[options.action](options, context)


def _list(options: MirrorsOptions, context: Context, note: str = "") -> Table:
    from swift_jupyter.hub.mirrors.health import StoredHealth
    from swift_jupyter.hub.mirrors.overview import all_mirrors

    health = StoredHealth.of(context.settings)
    mirrors = _chosen(all_mirrors(context.settings, os.environ), options.names)
    rows = [_row(mirror, health) for mirror in mirrors]
    columns = ("name", "hubs", "role", "region", "speed", "health", "last_success", "from", "url")
    note = note or _("Measure them: %swift mirrors probe")
    return Table(columns, rows, title=_("Mirrors"), note=note)


def _row(mirror: Mirror, health: Any) -> dict[str, object]:
    known, now = health.known(mirror.url), time.time()
    speed = known.speed(now)
    return {
        "name": mirror.name,
        "hubs": ", ".join(mirror.hubs),
        "role": mirror.role,
        "region": mirror.region,
        "speed": f"{size_text(speed)}/s" if speed else "",
        "bytes_per_second": speed,
        "health": _health_words(known, now),
        "circuit": known.circuit(now),
        "last_success": _moment(known.last_success),
        "from": mirror.origin,
        "url": mirror.url,
        "token_env": mirror.token_env,
        "note": mirror.note,
        "reason": known.reason,
    }


def _health_words(known: Any, now: float) -> str:
    circuit = known.circuit(now)
    if circuit == "open":
        return _("left alone for {seconds} s", seconds=round(known.open_until - now))
    if circuit == "half-open":
        return _("on trial")
    if not known.last_success and not known.last_failure:
        return ""
    errors = known.errors(now)
    return _("good") if errors < 0.05 else _("{share} errors", share=f"{errors:.0%}")


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""


def _chosen(mirrors: Sequence[Mirror], names: Sequence[str]) -> list[Mirror]:
    from swift_jupyter.hub.mirrors.lists import find_mirror

    return [find_mirror(name, mirrors) for name in names] if names else list(mirrors)


def _add(options: MirrorsOptions, context: Context) -> Table:
    from swift_jupyter.hub.mirrors.lists import add_mirrors, check_list, read_list

    if len(options.names) != 1:
        raise OptionError(
            _("mirrors add needs one name, or the address or file of a list."),
            next_step=_(
                "For example: %swift mirrors add lab --url http://lab:8000 --hubs modelscope"
            ),
        )
    (name,) = options.names
    if options.url:
        entry = _entry(name, options)
        added = check_list({"version": 1, "mirrors": [entry]}, name)
    elif "/" in name or "\\" in name or Path(name).expanduser().is_file():
        added = _without_token_names(read_list(name), context)
    else:
        raise OptionError(
            _("mirrors add {name} needs an address.", name=name),
            next_step=_("For example: %swift mirrors add {name} --url http://host:8000", name=name),
        )
    add_mirrors(added)
    names = ", ".join(mirror.name for mirror in added)
    return _list(MirrorsOptions(), context, _("Added: {names}.", names=names))


def _without_token_names(mirrors: Sequence[Mirror], context: Context) -> list[Mirror]:
    """Drop what a list from elsewhere says of tokens: it could ask for any secret."""
    for mirror in mirrors:
        if mirror.token_env:
            context.frontend.notice(
                _(
                    "{name} wants the token in {variable}, which a list may not ask for. To allow"
                    " it: %swift mirrors add {name} --url {url} --hubs {hubs} --token_env"
                    " {variable}",
                    name=mirror.name,
                    variable=mirror.token_env,
                    url=mirror.url,
                    hubs=" ".join(mirror.hubs),
                )
            )
    return [dataclasses.replace(mirror, token_env="") for mirror in mirrors]


def _entry(name: str, options: MirrorsOptions) -> dict[str, Any]:
    from swift_jupyter.hub.endpoints import clean_endpoint

    default = list(HUBS) if options.role == "node" else ["huggingface"]
    values = {
        "name": name,
        "url": clean_endpoint(options.url) or options.url,
        "hubs": options.hubs or default,
        "role": options.role,
        "region": options.region,
        "token_env": options.token_env,
        "report_url": options.report_url,
        "note": options.note,
    }
    return {key: value for key, value in values.items() if value}


def _remove(options: MirrorsOptions, context: Context) -> Table:
    from swift_jupyter.hub.mirrors.lists import remove_mirror

    if not options.names:
        raise OptionError(
            _("mirrors rm needs a name."), next_step=_("Type %swift mirrors to see all.")
        )
    removed = [remove_mirror(name) for name in options.names]
    hidden = [mirror.name for mirror in removed if mirror.origin == "built in"]
    note = _("Removed: {names}.", names=", ".join(mirror.name for mirror in removed))
    if hidden:
        note += " " + _("To get it back: %swift mirrors restore {name}", name=hidden[0])
    return _list(MirrorsOptions(), context, note)


def _restore(options: MirrorsOptions, context: Context) -> Table:
    from swift_jupyter.hub.mirrors.lists import restore_mirror

    if not options.names:
        raise OptionError(_("mirrors restore needs the name of a built-in mirror."))
    names = ", ".join(restore_mirror(name).name for name in options.names)
    return _list(MirrorsOptions(), context, _("Restored: {names}.", names=names))


def _probe(options: MirrorsOptions, context: Context) -> Table:
    results = _measure(options, context)
    bars = [
        Bar(result.endpoint.name, result.bytes_per_second or 0.0, _bar_text(result))
        for result in results
    ]
    context.frontend.bars(_("Speed of one connection"), bars)
    rows = [
        {
            "name": result.endpoint.name,
            "hub": result.endpoint.hub,
            "state": result.state,
            "latency": f"{result.latency * 1000:.0f} ms" if result.latency is not None else "",
            "latency_seconds": result.latency,
            "speed": f"{size_text(result.bytes_per_second)}/s" if result.bytes_per_second else "",
            "bytes_per_second": result.bytes_per_second,
            "error": result.error,
            "url": result.endpoint.url,
        }
        for result in results
    ]
    note = ""
    failed = [result for result in results if result.state == "failed"]
    if failed:
        note = _("A report to file: %swift mirrors report {name}", name=failed[0].endpoint.name)
    return Table(("name", "hub", "state", "latency", "speed", "error", "url"), rows, note=note)


def _bar_text(result: Any) -> str:
    if result.bytes_per_second:
        return f"{size_text(result.bytes_per_second)}/s · {result.latency * 1000:.0f} ms"
    return str(result.error or result.state)


def _measure(options: MirrorsOptions, context: Context) -> list[Any]:
    from swift_jupyter.hub.mirrors.health import StoredHealth
    from swift_jupyter.hub.mirrors.overview import all_mirrors, endpoints_of
    from swift_jupyter.hub.mirrors.probe import PROBE_MODEL, probe
    from swift_jupyter.hub.reference import is_repo_id

    model = options.model or PROBE_MODEL
    if not is_repo_id(model):
        raise OptionError(_("'{name}' is not the name of a repository.", name=model))
    mirrors = _chosen(all_mirrors(context.settings, os.environ), options.names)
    endpoints = endpoints_of(mirrors, context.settings, os.environ)
    health = StoredHealth.of(context.settings)
    with context.frontend.progress(_("Measuring {count} addresses", count=len(endpoints))) as view:
        view.update(_("at most {seconds} s", seconds=f"{options.timeout:g}"))
        results = probe(endpoints, os.environ, health, model=model, seconds=options.timeout)
    health.flush()
    return results


def _report(options: MirrorsOptions, context: Context) -> Facts:
    from swift_jupyter.hub.mirrors.health import StoredHealth
    from swift_jupyter.hub.mirrors.overview import all_mirrors
    from swift_jupyter.hub.mirrors.report import write_report

    if len(options.names) != 1:
        raise OptionError(
            _("mirrors report needs one name."), next_step=_("Type %swift mirrors to see all.")
        )
    (mirror,) = _chosen(all_mirrors(context.settings, os.environ), options.names)
    before = StoredHealth.of(context.settings).known(mirror.url)
    results = _measure(options, context)
    text = write_report(mirror, results, before, os.environ)
    works = all(result.state == "good" for result in results)
    facts: dict[str, Any] = {_("state"): _("it works") if works else _("it does not work")}
    place = mirror.report_url or mirror.homepage
    if place:
        facts[_("file it at")] = place
    if options.output:
        facts[_("written to")] = _write(Path(options.output).expanduser(), text)
    data: Mapping[str, Any] = {
        "name": mirror.name,
        "works": works,
        "report": text,
        "report_url": place,
    }
    return Facts(mirror.name, facts, data, body=text)


def _write(path: Path, text: str) -> str:
    try:
        write_text_atomically(path, text)
    except OSError as error:
        raise UserError(
            _("The report cannot be written to {path}.", path=path), error.strerror or str(error)
        ) from None
    return str(path)
