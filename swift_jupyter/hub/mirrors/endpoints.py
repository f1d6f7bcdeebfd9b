"""In which order addresses are asked, and which of them may see a token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit, urlunsplit

from swift_jupyter.hub.api.base import Endpoint
from swift_jupyter.hub.endpoints import clean_endpoint, read_environment
from swift_jupyter.hub.listing import Hub
from swift_jupyter.hub.mirrors.health import KnownHealth, StoredHealth
from swift_jupyter.hub.mirrors.lists import known_mirrors
from swift_jupyter.hub.mirrors.mirror import HUBS, Mirror
from swift_jupyter.hub.tokens import Secret, clean_token, hub_token
from swift_jupyter.settings import Settings, split_nodes


def endpoints_for(
    settings: Settings,
    environ: Mapping[str, str],
    source: str = "auto",
    *,
    health: KnownHealth | None = None,
) -> list[Endpoint]:
    """Return the addresses that a pull asks, the first to be asked first.

    Own nodes come first, then the addresses of the preferred hub, then those of the
    other. Within a group those that did well lately come first. An address whose
    circuit is open comes last of all, so that it is asked only when nothing else helps.

    Parameters
    ----------
    settings : Settings
        Names the preferred hub and the nodes.
    environ : mapping
        The environment variables. Where they name an address of a hub, the built-in
        addresses of that hub are left out: it must not hear what a private mirror holds.
    source : {"auto", "modelscope", "huggingface"}
        Both hubs, or addresses of one only.
    health : Health, optional
        What is known of the addresses; by default what was stored.
    """
    order = _hub_order(settings, source)
    health = health or StoredHealth.of(settings)
    groups = [node_endpoints(settings, environ, order)]
    groups += [list(_addresses(hub, settings, environ)) for hub in order]
    seen: set[tuple[str, str]] = set()
    good: list[Endpoint] = []
    broken: list[Endpoint] = []
    for group in groups:
        for endpoint in _by_health(group, health):
            if (endpoint.hub, endpoint.url) in seen:
                continue
            seen.add((endpoint.hub, endpoint.url))
            (good if health.allows(endpoint.url) else broken).append(endpoint)
    return good + broken


def _hub_order(settings: Settings, source: str) -> tuple[Hub, ...]:
    if source in HUBS:
        return tuple(hub for hub in HUBS if hub == source)
    return HUBS if settings.hub != "huggingface" else HUBS[::-1]


def _by_health(group: Sequence[Endpoint], health: KnownHealth) -> list[Endpoint]:
    places = {url: n for n, url in enumerate(health.order([endpoint.url for endpoint in group]))}
    return sorted(group, key=lambda endpoint: places.get(endpoint.url, len(places)))


def node_endpoints(
    settings: Settings, environ: Mapping[str, str], order: Sequence[Hub]
) -> list[Endpoint]:
    found = []
    for address in split_nodes(settings.nodes):
        url, login = split_login(address if "://" in address else f"http://{address}")
        if url is not None:
            token = clean_token(settings.node_token)
            name = urlsplit(url).netloc
            found += [Endpoint(hub, url, name, token, is_node=True, login=login) for hub in order]
    for mirror in known_mirrors():
        if mirror.role == "node":
            found += [
                endpoint_of(mirror, hub, settings, environ) for hub in order if hub in mirror.hubs
            ]
    return found


def _addresses(hub: Hub, settings: Settings, environ: Mapping[str, str]) -> Iterator[Endpoint]:
    named = named_endpoint(hub, environ)
    if named is not None:
        url, login = split_login(named)
        if url is not None:
            token = hub_token(hub, settings, environ)
            yield Endpoint(hub, url, urlsplit(url).netloc, token, login=login)
    for mirror in known_mirrors():
        if hub not in mirror.hubs or mirror.role == "node":
            continue
        if named is None or mirror.origin != "built in":
            yield endpoint_of(mirror, hub, settings, environ)


def named_endpoint(hub: Hub, environ: Mapping[str, str]) -> str | None:
    """Return the address that the environment names for a hub."""
    environment = read_environment(environ)
    if hub == "modelscope":
        return environment.modelscope_endpoint
    return environment.huggingface_endpoint


def endpoint_of(
    mirror: Mirror, hub: Hub, settings: Settings, environ: Mapping[str, str]
) -> Endpoint:
    """Return the address of an entry, with the token that it may see."""
    named = split_login(named_endpoint(hub, environ) or "")
    if mirror.origin == "environment" and mirror.url == named[0]:
        token = hub_token(hub, settings, environ)
        return Endpoint(hub, mirror.url, mirror.name, token, login=named[1])
    token = None
    if mirror.token_env:
        token = clean_token(environ.get(mirror.token_env))
    elif mirror.is_official:
        token = hub_token(hub, settings, environ)
    return Endpoint(hub, mirror.url, mirror.name, token, is_node=mirror.role == "node")


def split_login(address: str) -> tuple[str | None, Secret | None]:
    """Part ``user:password@`` from an address; the address is None when it is none."""
    try:
        parts = urlsplit(address)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None, None
    if not has_host or parts.scheme not in ("http", "https"):
        return None, None
    before, _sign, host = parts.netloc.rpartition("@")
    url = clean_endpoint(urlunsplit((parts.scheme, host, parts.path, "", "")))
    return url, Secret(unquote(before)) if before else None
