"""``mirror``: a node that serves both hubs' clients, and what it holds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.mirror_run import MirrorRun
from swift_jupyter.commands.results import Facts, Result, Table
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.files import size_text
from swift_jupyter.hub.listing import Hub
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.runs.launch import launch

if TYPE_CHECKING:
    from swift_jupyter.hub.node.sync import SyncItem, SyncResult

_ACTIONS = ("serve", "sync", "gc", "status", "ls")


@dataclass(frozen=True, kw_only=True)
class MirrorOptions:
    """The options of ``mirror``."""

    action: str = option(
        "status",
        help="Serve clients, bring repositories up to date, free old revisions, or look.",
        choices=_ACTIONS,
        positional=True,
    )
    names: list[str] = option(
        [],
        help="With sync: ids of models, or with --dataset of data sets, maybe with @revision. "
        "With ls: only these. With status: the addresses of nodes.",
        completer="model",
        positional=True,
    )
    root: str = option(
        "",
        help="The folder of the store; by default the one that pulls on this machine use.",
        completer="path",
    )
    host: str = option(
        "127.0.0.1", help="With serve: the address to listen on; 0.0.0.0 lets others in."
    )
    port: int = option(8970, help="With serve: the port; 0 takes a free one.")
    token: str = option(
        "",
        help="With serve: what clients have to show; better given by the environment variable "
        "SWIFT_JUPYTER_MIRROR_TOKEN, which no list of processes shows.",
    )
    open: bool = option(False, help="With serve: let other machines in without a token.")
    tls_cert: str = option("", help="With serve: a certificate (PEM) for https.", completer="path")
    tls_key: str = option("", help="With serve: the key of the certificate.", completer="path")
    on_demand: bool = option(
        False, help="With serve: fetch what clients ask for and the store does not hold."
    )
    upstream: list[str] = option(
        [],
        help="Where missing files come from, as URL, modelscope=URL or huggingface=URL; "
        "by default the order of your pulls.",
    )
    background: bool = option(
        False, help="With serve or sync --every in a terminal: return at once, as notebooks do."
    )
    list_file: str = option(
        "",
        help="With sync: a file with one name a line, data sets as dataset:owner/name.",
        completer="path",
        aliases=("list",),
    )
    dataset: bool = option(False, help="With sync: the names are those of data sets.")
    every: str = option("", help="With sync: go on and sync again after 30m, 1h or 1d.")
    older_than: str = option("1h", help="With gc: leave alone what is younger than this.")
    yes: bool = option(False, help="With gc: remove; without it gc only shows what it would free.")


def run(options: MirrorOptions, context: Context) -> Result:
    """Do what `options.action` says.

    Raises
    ------
    UserError
        When the options do not fit, or it cannot be done.
    Interrupted
        When a sync was stopped; what has arrived is kept.
    """
    actions = {"serve": _serve, "sync": _sync, "gc": _gc, "status": _status, "ls": _ls}
    return actions[options.action](options, context)


def _root(options: MirrorOptions, context: Context) -> Path:
    if options.root:
        return Path(options.root).expanduser().absolute()
    return context.settings.cache_path.absolute() / "store"


def _serve(options: MirrorOptions, context: Context) -> Result:
    from swift_jupyter.hub.node.access import (
        check_exposure,
        given_token,
        keep_token,
        token_file,
    )

    if options.names:
        raise OptionError(
            _("mirror serve takes no names: it serves all that the store holds."),
            next_step=_("To fill it: %swift mirror sync {names}", names=" ".join(options.names)),
        )
    if not 0 <= options.port < 65536:
        raise OptionError(_("There is no port {port}.", port=options.port))
    root = _root(options, context)
    token = given_token(options.token, os.environ)
    check_exposure(options.host, token, options.open)
    if context.in_terminal and not options.background:
        return _serve_here(options, context, root, token)
    if token is not None:
        keep_token(token, token_file(root, options.port))
    values = {
        "action": "serve",
        "root": str(root),
        "host": options.host,
        "port": options.port,
        "asks_token": token is not None,
        "open": options.open,
        "tls_cert": _absolute(options.tls_cert),
        "tls_key": _absolute(options.tls_key),
        "on_demand": options.on_demand,
        "upstream": options.upstream,
    }
    result = _launched(values, f"{options.host}:{options.port}", context)
    result.wait_until_serving()
    return result


def _serve_here(options: MirrorOptions, context: Context, root: Path, token: Any) -> Result:
    """Serve in this process until it is interrupted."""
    from swift_jupyter.hub.node.serve import NodeOptions, serve
    from swift_jupyter.hub.node.status_page import exports

    node = NodeOptions(
        root=root,
        host=options.host,
        port=options.port,
        token=token,
        is_open=options.open,
        tls_cert=Path(options.tls_cert).expanduser() if options.tls_cert else None,
        tls_key=Path(options.tls_key).expanduser() if options.tls_key else None,
        on_demand=options.on_demand,
        upstream=tuple(options.upstream),
    )

    def ready(address: str) -> None:
        context.frontend.notice(_("Serving {root} at {address}", root=root, address=address))
        for title, lines in exports(address, token is not None):
            context.frontend.notice("\n    ".join([f"{title}:", *lines]))
        context.frontend.notice(_("Status page: {url}/", url=address))
        context.frontend.notice(_("Stop it with Ctrl+C."))

    done = serve(node, context.settings, os.environ, ready)
    served = size_text(done["bytes_served"])
    saved = size_text(done["bytes_saved"])
    note = _("{served} served in all, {saved} saved.", served=served, saved=saved)
    return Facts(_("The node has stopped."), {}, done, note)


def _sync(options: MirrorOptions, context: Context) -> Result:
    from swift_jupyter.hub.node.sync import SHORTEST_SECONDS, parse_interval

    items = list(_items(options, context))
    if not items:
        raise OptionError(
            _("mirror sync needs a name or a list."),
            next_step=_("For example: %swift mirror sync Qwen/Qwen2.5-0.5B-Instruct"),
        )
    root = _root(options, context)
    if not options.every:
        return _sync_table(_sync_once(items, root, options, context))
    every = parse_interval(options.every, "--every", SHORTEST_SECONDS)
    values = {
        "action": "sync",
        "root": str(root),
        "items": [item.to_json() for item in items],
        "upstream": options.upstream,
        "every": every,
    }
    title = items[0].shown + (f" +{len(items) - 1}" if len(items) > 1 else "")
    result = _launched(values, title, context)
    if context.in_terminal and not options.background:
        from swift_jupyter.commands.following import follow

        return follow(result.run, context, background=False)
    return result


def _items(options: MirrorOptions, context: Context) -> Iterator[SyncItem]:
    from swift_jupyter.hub.node.sync import SyncItem, read_list

    kind = "dataset" if options.dataset else "model"
    named = [(kind, name) for name in options.names]
    if options.list_file:
        lines = read_list(Path(options.list_file).expanduser())
        named += [(of or kind, name) for of, name in lines]
    yield from dict.fromkeys(SyncItem.of(_reference(of, name)) for of, name in named)


def _reference(kind: str, name: str) -> RepoReference:
    from swift_jupyter.engine.models.catalogue import resolve

    repo_id, _sign, revision = name.partition("@")
    if kind == "model":
        return resolve(repo_id, revision or None)
    if repo_id.count("/") != 1:
        raise UserError(
            _("'{name}' is not the id of a data set.", name=repo_id),
            next_step=_("Give owner/name, for example: swift/self-cognition"),
        )
    return RepoReference.of_hub(repo_id, "dataset", revision or None)


def _sync_once(
    items: list[SyncItem], root: Path, options: MirrorOptions, context: Context
) -> list[SyncResult]:
    from swift_jupyter.hub.http.client import Client
    from swift_jupyter.hub.node.sync import Syncer, SyncWatch
    from swift_jupyter.hub.node.upstream import Upstream, upstream_endpoints
    from swift_jupyter.hub.store.store import Store

    class Watch(SyncWatch):
        def tell(self, name: str, done: int, total: int | None) -> None:
            view.update(_("syncing {name}", name=name), done, total)

        def notice(self, text: str) -> None:
            context.frontend.notice(text)

    endpoints = upstream_endpoints(options.upstream, context.settings, os.environ)
    client = Client(os.environ)
    try:
        with context.frontend.progress(_("mirror sync")) as view:
            upstream = Upstream(endpoints, client)
            first = cast(Hub, context.settings.hub)
            return Syncer(Store(root), upstream, first, Watch()).sync_all(items)
    finally:
        client.close()


def _sync_table(results: list[SyncResult]) -> Table:
    from swift_jupyter.hub.node.sync import summary

    rows = [
        {
            **result.to_dict(),
            "commit": result.commit[:12],
            "fetched": size_text(result.fetched_bytes),
        }
        for result in results
    ]
    failed = [result for result in results if result.state == "failed"]
    if failed and len(failed) == len(results):
        raise UserError(
            _("{name} could not be synced.", name=failed[0].name),
            failed[0].reason,
            _("What was held before is still served."),
        )
    columns = ("name", "state", "commit", "files", "fetched", "reason")
    return Table(columns, rows, note=summary(results))


def _launched(values: dict[str, Any], title: str, context: Context) -> MirrorRun:
    folder = context.settings.output_path / "mirror"
    return MirrorRun(launch("mirror", values, folder, context.settings, title=title))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _gc(options: MirrorOptions, context: Context) -> Result:
    from swift_jupyter.hub.node.collect import collect, plan_collection
    from swift_jupyter.hub.node.sync import parse_interval
    from swift_jupyter.hub.store.store import Store

    store = Store(_root(options, context))
    plan = plan_collection(store, parse_interval(options.older_than, "--older_than"))
    rows = [
        {"name": key.repo_id, "kind": key.kind, "hub": key.hub, "commit": key.commit[:12]}
        for key in plan.manifests
    ]
    size = size_text(plan.expected_freed_bytes)
    data = {"files": len(plan.files), "freed_bytes": plan.expected_freed_bytes}
    if not options.yes:
        note = _(
            "{count} old revisions and {files} files; removing them would free {size}. "
            "Nothing was removed yet: add --yes.",
            count=len(rows),
            files=len(plan.files),
            size=size,
        )
        return Table(("name", "kind", "hub", "commit"), rows, note=note, data=data)
    freed = collect(plan)
    note = _("Removed; {size} are free again.", size=size_text(freed))
    data["freed_bytes"] = freed
    return Table(("name", "kind", "hub", "commit"), rows, note=note, data=data)


def _ls(options: MirrorOptions, context: Context) -> Result:
    from swift_jupyter.hub.node.holdings import Holdings
    from swift_jupyter.hub.store.store import Store

    root = _root(options, context)
    wanted = {name.lower() for name in options.names}
    rows = [
        {
            **holding.to_dict(),
            "name": holding.repo_id,
            "state": _("complete")
            if holding.complete
            else _("{held} of {files} files", held=holding.files_held, files=holding.files),
            "size": size_text(holding.bytes_held),
            "kept": holding.commits,
            "synced": time.strftime("%Y-%m-%d %H:%M", time.localtime(holding.last_sync)),
        }
        for holding in Holdings(Store(root)).all()
        if not wanted or wanted & {holding.repo_id.lower(), holding.paired_id.lower()}
    ]
    note = "" if rows else _("{root} holds nothing. Fill it: %swift mirror sync NAME", root=root)
    columns = ("name", "kind", "hub", "state", "size", "kept", "synced")
    return Table(columns, rows, note=note)


def _status(options: MirrorOptions, context: Context) -> Result:
    from swift_jupyter.hub.node.running import running_nodes

    nodes: list[dict[str, Any]] = [{"url": name.rstrip("/")} for name in options.names]
    root = _root(options, context)
    if not nodes:
        nodes = running_nodes(root)
    rows = [_node_row(node, root, options) for node in nodes]
    note = "" if rows else _("No node serves {root}. Start one: %swift mirror serve", root=root)
    columns = ("url", "state", "held", "requests", "served", "saved", "clients", "active")
    return Table(columns, rows, note=note)


def _node_row(node: dict[str, Any], root: Path, options: MirrorOptions) -> dict[str, Any]:
    from swift_jupyter.hub.http.client import Client, HttpError
    from swift_jupyter.hub.node.access import given_token, read_token, token_file

    token = given_token(options.token, os.environ)
    if token is None and "port" in node:
        token = read_token(token_file(root, node["port"]))
    headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
    url = node["url"] if "://" in node["url"] else f"http://{node['url']}"
    client = Client(os.environ)
    try:
        value, _headers = client.read_json(f"{url}/_sj/v1/status", headers, deadline=10.0)
        return {
            "url": url,
            "state": _("serving"),
            "held": size_text(value["bytes_held"]),
            "requests": value["requests"],
            "served": size_text(value["bytes_served"]),
            "saved": size_text(value["bytes_saved"]),
            "clients": len(value["clients"]),
            "active": len(value["active"]),
            "status": value,
        }
    except HttpError as error:
        return {"url": url, "state": str(error)}
    except (KeyError, TypeError):
        return {"url": url, "state": _("it is no mirror node")}
    finally:
        client.close()
