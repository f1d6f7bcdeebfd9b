"""All addresses in force as one list of mirrors: lists, settings and environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from swift_jupyter.hub.api.base import Endpoint
from swift_jupyter.hub.mirrors.endpoints import (
    endpoint_of,
    named_endpoint,
    node_endpoints,
    split_login,
)
from swift_jupyter.hub.mirrors.lists import known_mirrors
from swift_jupyter.hub.mirrors.mirror import HUBS, Mirror
from swift_jupyter.settings import Settings, split_nodes


def all_mirrors(settings: Settings, environ: Mapping[str, str]) -> list[Mirror]:
    """Return every address that a pull may ask, nodes first.

    Built-in addresses of a hub whose address the environment names are left out, as a
    pull leaves them out.
    """
    found: dict[str, Mirror] = {}
    for address in split_nodes(settings.nodes):
        url, _login = split_login(address if "://" in address else f"http://{address}")
        if url is not None:
            name = urlsplit(url).netloc
            found[name] = Mirror(name, url, HUBS, "node", origin="setting")
    named = {hub: split_login(named_endpoint(hub, environ) or "")[0] for hub in HUBS}
    for hub, url in named.items():
        if url is not None:
            name = urlsplit(url).netloc
            hubs = (*found[name].hubs, hub) if name in found else (hub,)
            both = tuple(known for known in HUBS if known in hubs)
            found[name] = Mirror(name, url, both, "mirror", origin="environment")
    for mirror in known_mirrors():
        hubs = tuple(
            hub for hub in mirror.hubs if mirror.origin != "built in" or named[hub] is None
        )
        if hubs:
            found.setdefault(mirror.name, mirror)
    return sorted(found.values(), key=lambda mirror: mirror.role != "node")


def endpoints_of(
    mirrors: Sequence[Mirror], settings: Settings, environ: Mapping[str, str]
) -> list[Endpoint]:
    """Return the addresses of `mirrors`, one for each protocol they speak."""
    nodes = {(node.hub, node.url): node for node in node_endpoints(settings, environ, HUBS)}
    found = []
    for mirror in mirrors:
        for hub in mirror.hubs:
            known = nodes.get((hub, mirror.url))
            found.append(known or endpoint_of(mirror, hub, settings, environ))
    return found
