"""ModelScope's protocol: listings and the address of a file's bytes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

from swift_jupyter.hub.api.asking import Asker
from swift_jupyter.hub.api.base import Endpoint, Origin
from swift_jupyter.hub.api.entries import Folder, checked_files, in_folder, modelscope_entry
from swift_jupyter.hub.api.errors import denied, no_answer, no_repository, no_revision
from swift_jupyter.hub.cache.layouts import DEFAULT_BRANCHES, modelscope_revision
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.http.errors import HttpError
from swift_jupyter.hub.listing import RemoteFile, RepoListing, content_commit
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

# The server cuts a model's listing at this many entries and does not say so.
CUT_AT = 3000
PAGE_SIZE = 200
_PAGES_AT_ONCE = 8
_MOST_REQUESTS = 20_000


class ModelScopeApi:
    """The client of one address that speaks ModelScope's protocol.

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
        self._asker = Asker(endpoint, client, deadline)
        self._until = time.monotonic() + deadline
        self._requests = 0

    def list_files(self, repo_id: str, kind: RepoKind, revision: str | None) -> RepoListing:
        """List a repository; see `HubApi.list_files`."""
        branch = modelscope_revision(revision)
        repo = _Repository(repo_id, kind, branch)
        try:
            entries = self._model(repo) if kind == "model" else self._dataset(repo)
        except HttpError as error:
            raise self._explain(error, repo, revision) from None
        files = checked_files(entries)
        return RepoListing("modelscope", repo_id, kind, branch, content_commit(files), files)

    def origin(self, listing: RepoListing) -> Origin:
        """Return where the bytes of `listing` are."""
        address = self._address(_Repository(listing.repo_id, listing.kind, listing.revision))
        revision = quote(listing.revision, safe="")
        return Origin(
            self._endpoint.name,
            self._endpoint.url,
            "modelscope",
            f"{address}/repo?Revision={revision}&FilePath=",
            headers=self._asker.headers,
            is_node=self._endpoint.is_node,
            safe="",
        )

    def refusal(self, listing: RepoListing) -> SourceUnavailable:
        """Say why the bytes are denied; see `HubApi.refusal`."""
        return denied(self._endpoint, listing.repo_id)

    def _model(self, repo: _Repository) -> list[Any]:
        entries = self._files(repo, recursive=True)
        if not _may_be_cut(entries):
            return entries
        return [*entries, *self._walk(repo, "")]

    def _walk(self, repo: _Repository, root: str) -> Iterator[Any]:
        """Yield the entries of one folder after the other; the whole is cut off."""
        waiting = [root]
        seen = {root}
        while waiting:
            folder = waiting.pop()
            if folder:
                below = in_folder(self._files(repo, True, folder), folder)
                if not _may_be_cut(below):
                    yield from below
                    continue
            entries = self._files(repo, False, folder)
            if len(entries) == CUT_AT:
                raise SourceUnavailable(
                    _(
                        "it lists only the first {count} files of {folder}",
                        count=CUT_AT,
                        folder=repr(folder or "/"),
                    )
                )
            for entry in entries:
                yield entry
                if isinstance(entry, Folder) and entry.path not in seen:
                    seen.add(entry.path)
                    waiting.append(entry.path)

    def _files(self, repo: _Repository, recursive: bool, root: str = "") -> list[Any]:
        query = {"Revision": repo.revision, "Recursive": str(recursive)}
        if root:
            query["Root"] = root
        return self._entries(f"{self._address(repo)}/repo/files?{urlencode(query)}")

    def _dataset(self, repo: _Repository) -> list[Any]:
        """Read page after page, several at once when there are many."""
        found: list[Any] = []
        seen: set[str] = set()
        number, at_once = 1, 1
        while True:
            wanted = range(number, number + at_once)
            if at_once == 1:
                pages: Iterable[list[Any]] = [self._page(repo, number)]
            else:
                with ThreadPoolExecutor(at_once) as threads:
                    pages = list(threads.map(lambda page: self._page(repo, page), wanted))
            for page in pages:
                before = len(seen)
                found += page
                seen.update(entry.path for entry in page)
                # A page that is not full is the last one. A longer one, or one that
                # brings nothing new, comes from a server that knows no pages.
                if len(page) != PAGE_SIZE or len(seen) == before:
                    return found
            number += at_once
            at_once = min(2 * at_once, _PAGES_AT_ONCE)

    def _page(self, repo: _Repository, number: int) -> list[Any]:
        query = {
            "Revision": repo.revision,
            "Recursive": "True",
            "PageNumber": number,
            "PageSize": PAGE_SIZE,
        }
        return self._entries(f"{self._address(repo)}/repo/tree?{urlencode(query)}")

    def _entries(self, url: str) -> list[Any]:
        self._requests += 1
        if self._requests > _MOST_REQUESTS or time.monotonic() > self._until:
            raise HttpError("timeout", _("the listing takes too long"))
        value, _headers = self._asker.ask(url, modelscope_entry)
        if isinstance(value, dict):
            data = value.get("Data", value.get("data"))
            code = value.get("Code", value.get("code", 200))
            if data is None and code not in (200, "200"):
                # Some addresses say it in the body alone.
                raise HttpError("status", f"Code {code}", status=_status(code))
            value = data
        if isinstance(value, dict):
            value = value.get("Files", value.get("files"))
        if value is None:
            value = []
        if not isinstance(value, list) or not all(
            isinstance(entry, RemoteFile | Folder) for entry in value
        ):
            raise HttpError("protocol", _("its list of files is not one"))
        return value

    def _explain(
        self, error: HttpError, repo: _Repository, revision: str | None
    ) -> SourceUnavailable:
        if error.status in (401, 403):
            return denied(self._endpoint, repo.repo_id)
        if error.status == 404:
            if revision not in DEFAULT_BRANCHES:
                known = self._revisions(repo)
                if known and repo.revision not in known:
                    return no_revision(repo.repo_id, repo.revision, known)
            return no_repository(repo.repo_id, repo.kind)
        return no_answer(self._endpoint, error)

    def _revisions(self, repo: _Repository) -> list[str]:
        """Return the names of branches and tags; empty when the repository is not there."""
        try:
            value, _headers = self._asker.ask(f"{self._address(repo)}/revisions")
            names = value["Data"]["RevisionMap"]
            entries = [*(names.get("Branches") or ()), *(names.get("Tags") or ())]
            return [str(entry["Revision"]) for entry in entries]
        except (HttpError, KeyError, TypeError, AttributeError):
            return []

    def _address(self, repo: _Repository) -> str:
        return f"{self._endpoint.url}/api/v1/{repo.kind}s/{quote(repo.repo_id)}"


class _Repository:
    """What a listing is about."""

    __slots__ = ("kind", "repo_id", "revision")

    def __init__(self, repo_id: str, kind: RepoKind, revision: str) -> None:
        self.repo_id = repo_id
        self.kind = kind
        self.revision = revision


def _may_be_cut(entries: list[Any]) -> bool:
    """Tell whether a listing may have an end that was cut off: then its length is round."""
    return len(entries) >= CUT_AT and len(entries) % 1000 == 0


def _status(code: object) -> int:
    """Return the HTTP status that a code of ModelScope's stands for."""
    text = str(code)
    # 10010205001 and its like: the repository is not there.
    return int(text) if text in ("401", "403", "404", "429", "500", "503") else 404
