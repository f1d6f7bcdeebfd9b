"""What both hubs' protocols have in common: an address, a listing, and the place of the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from swift_jupyter.hub.listing import Hub, RepoListing
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.tokens import Secret

if TYPE_CHECKING:
    from swift_jupyter.hub.http.client import Client
    from swift_jupyter.hub.sources.base import SourceUnavailable


@dataclass(frozen=True)
class Endpoint:
    """An address that speaks the protocol of one hub.

    Parameters
    ----------
    hub : {"modelscope", "huggingface"}
        The protocol.
    url : str
        Scheme, host and port, maybe a path; no trailing slash, no password.
    name : str
        Its name for people: mostly the host.
    token : Secret, optional
        What it is shown; None for addresses that must not see the token.
    is_node : bool
        Whether it is a mirror node of our own.
    login : Secret, optional
        ``user:password`` for addresses that ask for it, as in ``https://user:password@host``.
    """

    hub: Hub
    url: str
    name: str
    token: Secret | None = None
    is_node: bool = False
    login: Secret | None = None


@dataclass(frozen=True)
class Origin:
    """One address that can give the bytes of one revision of a repository.

    Parameters
    ----------
    name : str
        The address for people.
    endpoint : str
        Its key for health.
    hub : {"modelscope", "huggingface"}
        The protocol.
    prefix, suffix : str
        What stands before and behind the quoted path in the address of a file.
    headers : mapping
        What every request sends; holds the token, so it is never shown.
    safe : str
        Characters of a path that are not quoted.
    is_node : bool
        Whether it is a mirror node of our own.
    """

    name: str
    endpoint: str
    hub: Hub
    prefix: str
    suffix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    safe: str = "/"
    is_node: bool = False

    def request(self, path: str) -> tuple[str, dict[str, str]]:
        """Return the address and the headers of a request for the bytes of `path`."""
        url = self.prefix + quote(path, safe=self.safe) + self.suffix
        return url, {**self.headers, "Accept-Encoding": "identity"}


class HubApi(Protocol):
    """The listing side of a hub."""

    def list_files(self, repo_id: str, kind: RepoKind, revision: str | None) -> RepoListing:
        """Return the files of one revision; the default branch for None.

        Raises
        ------
        SourceUnavailable
            With the reason and the sort of trouble.
        """

    def origin(self, listing: RepoListing) -> Origin:
        """Return the place of the bytes of what `list_files` returned."""

    def refusal(self, listing: RepoListing) -> SourceUnavailable:
        """Return in words why the bytes of `listing` are denied, although it is listed."""


def hub_api(endpoint: Endpoint, client: Client, *, deadline: float = 30.0) -> HubApi:
    """Return the client of the protocol that `endpoint` speaks.

    Parameters
    ----------
    endpoint : Endpoint
        Who is asked.
    client : Client
        The connections.
    deadline : float
        Seconds that one listing may take.
    """
    from swift_jupyter.hub.api.huggingface import HuggingFaceApi
    from swift_jupyter.hub.api.modelscope import ModelScopeApi

    api = ModelScopeApi if endpoint.hub == "modelscope" else HuggingFaceApi
    return api(endpoint, client, deadline)
