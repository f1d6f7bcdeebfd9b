"""The work of a mirror run: a node that serves, or a sync that goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from swift_jupyter.errors import UserError
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.listing import Hub
from swift_jupyter.hub.node.sync import (
    Syncer,
    SyncItem,
    SyncWatch,
    summary,
    wait_until_next,
)
from swift_jupyter.hub.node.upstream import Upstream, upstream_endpoints
from swift_jupyter.hub.store.store import Store
from swift_jupyter.hub.transfer.channel import TransferCancelled
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


class MirrorReporter(Protocol):
    """What the job tells, and learns that it should stop."""

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is being done and how far it is."""

    def notice(self, text: str) -> None:
        """Say something that the user should know later, too."""

    def should_stop(self) -> bool:
        """Tell whether the job should stop."""


def work(
    options: Mapping[str, Any], folder: Path, settings: Settings, reporter: MirrorReporter
) -> dict[str, Any]:
    """Do what the options of a mirror run say: serve, or sync again and again.

    Parameters
    ----------
    options : mapping
        With ``action``; see `swift_jupyter.commands.mirror`. It holds no token: that
        is in a file of the node that only the user can read.
    folder : Path
        The run's folder.
    settings : Settings
        Names upstream addresses.
    reporter : MirrorReporter
        Is told.
    """
    if options["action"] == "serve":
        return _serve(options, settings, reporter)
    return _sync(options, settings, reporter)


def _serve(
    options: Mapping[str, Any], settings: Settings, reporter: MirrorReporter
) -> dict[str, Any]:
    # Only here: a sync needs no server.
    from swift_jupyter.hub.node.access import read_token, token_file
    from swift_jupyter.hub.node.serve import NodeOptions, serve

    root = Path(options["root"])
    token = None
    if options["asks_token"]:
        token = read_token(token_file(root, options["port"]))
        if token is None:
            raise UserError(
                _("The token of this node is gone."),
                next_step=_("Start it anew: %swift mirror serve --token TEXT"),
            )
    node = NodeOptions(
        root=root,
        host=options["host"],
        port=options["port"],
        token=token,
        is_open=options["open"],
        tls_cert=Path(options["tls_cert"]) if options["tls_cert"] else None,
        tls_key=Path(options["tls_key"]) if options["tls_key"] else None,
        on_demand=options["on_demand"],
        upstream=tuple(options["upstream"]),
    )

    def ready(address: str) -> None:
        reporter.phase(_("serving at {address}", address=address))

    result = serve(node, settings, os.environ, ready, reporter.should_stop)
    return {**result, "stopped": True}


def _sync(
    options: Mapping[str, Any], settings: Settings, reporter: MirrorReporter
) -> dict[str, Any]:
    items = [SyncItem.from_json(value) for value in options["items"]]
    rounds = 0
    totals = {"fetched_bytes": 0, "fetched_files": 0}
    while True:
        rounds += 1
        client = Client(os.environ)
        try:
            endpoints = upstream_endpoints(options["upstream"], settings, os.environ)
            syncer = Syncer(
                Store(Path(options["root"])),
                Upstream(endpoints, client),
                cast(Hub, settings.hub),
                _ReportingWatch(reporter),
            )
            results = syncer.sync_all(items)
        except TransferCancelled:
            return {**totals, "rounds": rounds, "stopped": True}
        except UserError as error:
            # A full disk may have room again next time.
            reporter.notice(_("{time}: {error}", time=_now(), error=error.what))
            results = []
        finally:
            client.close()
        for result in results:
            totals["fetched_bytes"] += result.fetched_bytes
            totals["fetched_files"] += result.fetched_files
            if result.state != "unchanged":
                text = f"{result.name}: {result.state} {result.reason}".strip()
                reporter.notice(f"{_now()}: {text}")
        if results:
            reporter.phase(_("round {number}: {words}", number=rounds, words=summary(results)))
        if not wait_until_next(options["every"], reporter.should_stop):
            return {**totals, "rounds": rounds, "stopped": True}


class _ReportingWatch(SyncWatch):
    def __init__(self, reporter: MirrorReporter) -> None:
        self._reporter = reporter

    def tell(self, name: str, done: int, total: int | None) -> None:
        self._reporter.phase(_("syncing {name}", name=name), done, total)

    def notice(self, text: str) -> None:
        self._reporter.notice(text)

    def check(self) -> None:
        if self._reporter.should_stop():
            raise TransferCancelled


def _now() -> str:
    return time.strftime("%m-%d %H:%M")
