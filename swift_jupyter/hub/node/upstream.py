"""The hubs and mirrors behind a node: what they list and who can give a file."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from swift_jupyter.errors import UserError
from swift_jupyter.hub.api.base import Endpoint, hub_api
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing
from swift_jupyter.hub.mirrors.endpoints import endpoints_for, split_login
from swift_jupyter.hub.node.addresses import DEFAULT_REVISIONS
from swift_jupyter.hub.pairing import paired_id
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.hub.transfer.supply import Supply
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

HUBS: tuple[Hub, Hub] = ("modelscope", "huggingface")
_LISTING_SECONDS = 30.0
_REMEMBERED_SECONDS = 600.0
_REMEMBERED = 256
_PREFIXES: dict[str, tuple[Hub, ...]] = {
    "modelscope": ("modelscope",),
    "huggingface": ("huggingface",),
    "both": HUBS,
}


_Key = tuple[str, Hub, RepoKind, str, str | None]


@dataclass(frozen=True)
class RepoNames:
    """One repository under the id that each hub gives it.

    Attributes
    ----------
    kind : {"model", "dataset"}
        What it holds.
    first : {"modelscope", "huggingface"}
        The hub whose id was asked for.
    modelscope_id, huggingface_id : str
        Its ids; empty where a hub does not have it.
    """

    kind: RepoKind
    first: Hub
    modelscope_id: str
    huggingface_id: str

    @classmethod
    def of(cls, hub: Hub, kind: RepoKind, repo_id: str) -> RepoNames:
        """Return the names of what `hub` calls `repo_id`."""
        other = (paired_id(repo_id, hub) if kind == "model" else None) or repo_id
        ids = (repo_id, other) if hub == "modelscope" else (other, repo_id)
        return cls(kind, hub, *ids)

    def at(self, hub: Hub) -> str:
        """Return the id at a hub."""
        return self.modelscope_id if hub == "modelscope" else self.huggingface_id

    @property
    def hubs(self) -> tuple[Hub, Hub]:
        """Both hubs, the one that was asked for first."""
        return HUBS if self.first == "modelscope" else (HUBS[1], HUBS[0])


@dataclass(frozen=True)
class _Listed:
    endpoint: Endpoint
    listing: RepoListing
    time: float


class Upstream:
    """Asks the hubs, in order; threads may share one.

    Parameters
    ----------
    endpoints : sequence of Endpoint
        Who is asked, the first one first.
    client : Client
        The connections.
    """

    def __init__(self, endpoints: Sequence[Endpoint], client: Client) -> None:
        self.endpoints = tuple(endpoints)
        self.client = client
        self._listed: dict[_Key, _Listed] = {}
        self._asking: dict[_Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def list_files(self, names: RepoNames, revision: str | None) -> RepoListing:
        """Return the listing of the first address that has the repository.

        Raises
        ------
        SourceUnavailable
            ``not_found`` when every address that answered says so; otherwise what is
            the matter with the addresses.
        """
        problems: list[SourceUnavailable] = []
        for endpoint in self._ordered(names):
            try:
                return self._ask(endpoint, names, revision).listing
            except SourceUnavailable as problem:
                problems.append(_named(endpoint, problem))
        raise _sum(problems)

    def supply(self, names: RepoNames, listing: RepoListing, files: Sequence[RemoteFile]) -> Supply:
        """Return who can give `files`, as `listing` has them; others join in a thread.

        Raises
        ------
        SourceUnavailable
            When no address offers any of them as they are listed.
        """
        supply = Supply(files)
        problems: list[SourceUnavailable] = []
        waiting = self._ordered(names)
        while waiting:
            endpoint = waiting.pop(0)
            try:
                if self._join(supply, endpoint, names, listing):
                    self._join_rest(supply, waiting, names, listing)
                    return supply
                problems.append(_other_content(endpoint, files))
            except SourceUnavailable as problem:
                problems.append(_named(endpoint, problem))
        raise _sum(problems)

    def _join_rest(
        self,
        supply: Supply,
        waiting: Sequence[Endpoint],
        names: RepoNames,
        listing: RepoListing,
    ) -> None:
        """Let the other addresses join meanwhile, so that the transfer can go on with them."""

        def join_all() -> None:
            try:
                for endpoint in waiting:
                    with contextlib.suppress(SourceUnavailable):
                        self._join(supply, endpoint, names, listing)
            finally:
                supply.close()

        threading.Thread(target=join_all, name="node-sources", daemon=True).start()

    def _join(
        self, supply: Supply, endpoint: Endpoint, names: RepoNames, listing: RepoListing
    ) -> bool:
        """Let an address join; tell whether it offers anything that is wanted."""
        listed = self._ask(endpoint, names, _revision_at(endpoint.hub, listing), remembered=True)
        wanted = {file.path for file in supply.wanted}
        same = [file for file in listed.listing.files if file.path in wanted]
        conflicts = supply.add(hub_api(endpoint, self.client).origin(listed.listing), same)
        return len(same) > len(conflicts)

    def _ordered(self, names: RepoNames) -> list[Endpoint]:
        """Return the addresses, nodes and those of the hub that was asked for first."""
        return sorted(
            (endpoint for endpoint in self.endpoints if names.at(endpoint.hub)),
            key=lambda endpoint: not endpoint.is_node and endpoint.hub != names.first,
        )

    def _ask(
        self, endpoint: Endpoint, names: RepoNames, revision: str | None, remembered: bool = False
    ) -> _Listed:
        revision = None if revision in DEFAULT_REVISIONS else revision
        repo = (endpoint.url, endpoint.hub, names.kind, names.at(endpoint.hub))
        with self._lock:
            asking = self._asking.setdefault((*repo, revision), threading.Lock())
        with asking:
            known = self._listed.get((*repo, revision))
            if (
                remembered
                and known is not None
                and time.monotonic() - known.time < _REMEMBERED_SECONDS
            ):
                return known
            api = hub_api(endpoint, self.client, deadline=_LISTING_SECONDS)
            listing = api.list_files(names.at(endpoint.hub), names.kind, revision)
            listed = _Listed(endpoint, listing, time.monotonic())
        with self._lock:
            for name in {revision, listing.commit}:
                key = (*repo, name)
                self._listed.pop(key, None)
                self._listed[key] = listed
            while len(self._listed) > _REMEMBERED:
                del self._listed[next(iter(self._listed))]
            if len(self._asking) > 4 * _REMEMBERED:
                self._asking.clear()
        return listed


def upstream_endpoints(
    addresses: Sequence[str],
    settings: Settings,
    environ: Mapping[str, str],
    own: Sequence[str] = (),
) -> list[Endpoint]:
    """Return who is behind a node.

    Parameters
    ----------
    addresses : sequence of str
        ``URL``, ``modelscope=URL`` or ``huggingface=URL``; empty takes the order that
        pulls of this user have.
    settings, environ
        Name hubs, mirrors and tokens. A token goes along only to an address that would
        get it from a pull, too.
    own : sequence of str
        ``host:port`` of the node itself, which must not ask itself.

    Raises
    ------
    UserError
        For what is no address.
    """
    known = endpoints_for(settings, environ)
    found = known if not addresses else []
    for address in addresses:
        hubs, url = _parse_address(address, known)
        place, login = split_login(url)
        if place is None:
            raise UserError(
                _("'{address}' is not an address.", address=address),
                next_step=_("For example: --upstream huggingface=https://huggingface.co"),
            )
        for hub in hubs:
            same = [end for end in known if (end.hub, end.url) == (hub, place)]
            name = urlsplit(place).netloc
            found.append(same[0] if same else Endpoint(hub, place, name, login=login))
    return [endpoint for endpoint in found if urlsplit(endpoint.url).netloc not in own]


def _parse_address(text: str, known: Sequence[Endpoint]) -> tuple[tuple[Hub, ...], str]:
    prefix, sign, url = text.partition("=")
    if sign and prefix in _PREFIXES:
        return _PREFIXES[prefix], url if "://" in url else f"https://{url}"
    url = text if "://" in text else f"https://{text}"
    place, _login = split_login(url)
    hubs = tuple(hub for hub in HUBS if any((e.hub, e.url) == (hub, place) for e in known))
    host = urlsplit(place or "").hostname or ""
    if not hubs:
        hubs = tuple(
            hub for hub, word in zip(HUBS, ("modelscope", "hf"), strict=True) if word in host
        )
    return hubs or HUBS, url


def _revision_at(hub: Hub, listing: RepoListing) -> str | None:
    """Return how a hub is asked for the revision of a listing.

    Hugging Face's commits can be asked for; what ModelScope's listings carry is a
    hash of ours, so its branch is asked, and differing files are sorted out by hash.
    """
    if hub == "huggingface" and listing.hub == "huggingface":
        return listing.commit
    return None if listing.revision == listing.commit else listing.revision


def _named(endpoint: Endpoint, problem: SourceUnavailable) -> SourceUnavailable:
    return SourceUnavailable(f"{endpoint.name}: {problem.reason}", problem.trouble)


def _other_content(endpoint: Endpoint, files: Sequence[RemoteFile]) -> SourceUnavailable:
    reason = _("{host} has other content for {file}", host=endpoint.name, file=files[0].path)
    return SourceUnavailable(reason, "not_found")


def _sum(problems: Sequence[SourceUnavailable]) -> SourceUnavailable:
    """Return one failure for all; that something is not there only when all say so."""
    if not problems:
        return SourceUnavailable(_("there is nobody to ask"), "unreachable")
    order = ("denied", "unreachable", "failed", "incomplete", "corrupt", "offline", "not_found")
    worst = min(problems, key=lambda problem: order.index(problem.trouble))
    reasons = dict.fromkeys(problem.reason for problem in problems)
    return SourceUnavailable("; ".join(reasons), worst.trouble)
