"""Hugging Face's protocol: listings and the address of a file's bytes.

Only plain HTTP: the chunk protocol (xet) by-passes mirrors and proxies.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit

from swift_jupyter.hub.api.asking import Asker
from swift_jupyter.hub.api.base import Endpoint, Origin
from swift_jupyter.hub.api.entries import Folder, checked_files, huggingface_entry
from swift_jupyter.hub.api.errors import denied, gated, no_answer, no_repository, no_revision
from swift_jupyter.hub.cache.layouts import huggingface_revision
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.http.errors import HttpError
from swift_jupyter.hub.listing import GIT_SHA1, RemoteFile, RepoListing
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

_NEXT_LINK = re.compile(r'<([^<>]*)>\s*;[^,<]*\brel="?next"?')
_MOST_PAGES = 20_000


class HuggingFaceApi:
    """The client of one address that speaks Hugging Face's protocol.

    Parameters
    ----------
    endpoint : Endpoint
        Who is asked.
    client : Client
        The connections.
    deadline : float
        Seconds that one listing may take.
    """

    def __init__(self, endpoint: Endpoint, client: Client, deadline: float) -> None:
        self._endpoint = endpoint
        self._client = client
        self._asker = Asker(endpoint, client, deadline)

    def list_files(self, repo_id: str, kind: RepoKind, revision: str | None) -> RepoListing:
        """List a repository; see `HubApi.list_files`."""
        name = huggingface_revision(revision)
        address = f"{self._endpoint.url}/api/{kind}s/{quote(repo_id)}"
        try:
            commit = self._commit(address, name)
            files = checked_files(self._tree(address, commit))
        except HttpError as error:
            raise self._explain(error, address, repo_id, kind, name) from None
        return RepoListing("huggingface", repo_id, kind, name, commit, files)

    def origin(self, listing: RepoListing) -> Origin:
        """Return where the bytes of `listing` are."""
        folder = "datasets/" if listing.kind == "dataset" else ""
        repo = f"{self._endpoint.url}/{folder}{quote(listing.repo_id)}"
        return Origin(
            self._endpoint.name,
            self._endpoint.url,
            "huggingface",
            f"{repo}/resolve/{listing.commit}/",
            headers=self._asker.headers,
            is_node=self._endpoint.is_node,
        )

    def refusal(self, listing: RepoListing) -> SourceUnavailable:
        """Say why the bytes are denied; see `HubApi.refusal`.

        The listing of a gated repository is for everybody, its bytes are not.
        """
        url, headers = self.origin(listing).request(listing.files[0].path)
        try:
            response = self._client.open(url, headers, method="HEAD")
            response.discard()
        except HttpError as error:
            return no_answer(self._endpoint, error)
        if response.headers.get("x-error-code") == "GatedRepo":
            return gated(self._endpoint, listing.repo_id, listing.kind)
        return denied(self._endpoint, listing.repo_id)

    def _commit(self, address: str, revision: str) -> str:
        value, _headers = self._asker.ask(f"{address}/revision/{quote(revision, safe='')}")
        commit = value.get("sha") if isinstance(value, dict) else None
        if not isinstance(commit, str) or not GIT_SHA1.fullmatch(commit):
            raise HttpError("protocol", _("it names no commit"))
        return commit

    def _tree(self, address: str, commit: str) -> list[Any]:
        tree = f"{address}/tree/{commit}"
        query: str | None = "recursive=true&expand=false"
        entries: list[Any] = []
        asked: set[str] = set()
        while query:
            if query in asked or len(asked) > _MOST_PAGES:
                raise HttpError("protocol", _("its list of files has no end"))
            asked.add(query)
            page, headers = self._asker.ask(f"{tree}?{query}", huggingface_entry)
            if not isinstance(page, list) or not all(
                isinstance(entry, RemoteFile | Folder) for entry in page
            ):
                raise HttpError("protocol", _("its list of files is not one"))
            entries += page
            match = _NEXT_LINK.search(headers.get("link", ""))
            # Mirrors pass on links to the hub itself. Only the cursor is taken, so
            # that neither the request nor the token goes to another host.
            query = urlsplit(match[1]).query if match else None
        return entries

    def _explain(
        self, error: HttpError, address: str, repo_id: str, kind: RepoKind, revision: str
    ) -> SourceUnavailable:
        code = error.headers.get("x-error-code", "")
        if code == "GatedRepo":
            return gated(self._endpoint, repo_id, kind)
        if code == "RevisionNotFound":
            return no_revision(repo_id, revision, self._revisions(address))
        if code == "RepoNotFound" or error.status == 404:
            return no_repository(repo_id, kind)
        if error.status in (401, 403):
            return denied(self._endpoint, repo_id)
        return no_answer(self._endpoint, error)

    def _revisions(self, address: str) -> list[str]:
        try:
            value, _headers = self._asker.ask(f"{address}/refs")
            entries = [*(value.get("branches") or ()), *(value.get("tags") or ())]
            return [str(entry["name"]) for entry in entries]
        except (HttpError, KeyError, TypeError, AttributeError):
            return []
