"""Everything that is asked over a network: nodes, both hubs and their mirrors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.hub.api.base import Endpoint
from swift_jupyter.hub.endpoints import clean_endpoint, read_environment
from swift_jupyter.hub.listing import HUB_NAMES, Hub
from swift_jupyter.hub.mirrors.endpoints import endpoints_for, split_login
from swift_jupyter.hub.progress import PullProgress, Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import PullRequest, SourceUnavailable
from swift_jupyter.hub.tokens import redact
from swift_jupyter.hub.transfer.process import relay, run_job
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings

# A model's listing is one short answer; a dataset's may take hundreds of pages.
LISTING_SECONDS = {"model": 30.0, "dataset": 300.0}
NETWORK_SOURCES = ("modelscope", "huggingface", "node")
_TRUE = frozenset(("1", "on", "yes", "true"))
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class HubSource:
    """Pull from nodes, hubs and mirrors, whichever can give it.

    Parameters
    ----------
    which : str
        ``auto`` for all; ``modelscope``, ``huggingface`` or ``node`` for those of one
        sort; else the name or the address of one mirror.
    """

    which: str = "auto"

    @property
    def name(self) -> str:
        """The name for people."""
        return next((name for hub, name in HUB_NAMES.items() if hub == self.which), self.which)

    def offers(self, reference: RepoReference) -> bool:
        """Tell whether the reference has an id at a hub that is asked."""
        ids = repo_ids(reference)
        return any(
            repo_id for hub, repo_id in ids.items() if self.which not in ids or hub == self.which
        )

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Pull; see `Source.fetch`.

        Raises
        ------
        SourceUnavailable
            With what each address answered.
        UserError
            When no other source would help, such as a full disk.
        """
        ids = repo_ids(reference)
        wanted = [
            endpoint
            for endpoint in self.endpoints(request.settings, request.environ)
            if ids[endpoint.hub]
        ]
        offline = _offline_variable(request.environ, reference.kind)
        allowed = [e for e in wanted if e.is_node or e.hub != "huggingface" or not offline]
        answers: list[tuple[str, SourceUnavailable]] = []
        if len(allowed) < len(wanted):
            reason = _("{variable} forbids to ask it", variable=offline)
            answers.append((HUB_NAMES["huggingface"], SourceUnavailable(reason, "offline")))
        if not allowed and request.locked is None:
            raise _all_failed(answers or [(self.name, _nobody())])
        return self._run(reference, request, report, allowed, answers)

    def endpoints(self, settings: Settings, environ: Mapping[str, str]) -> list[Endpoint]:
        """Return the addresses to ask, in order.

        Raises
        ------
        UserError
            When `which` names none.
        """
        if self.which in HUB_NAMES:
            found = endpoints_for(settings, environ, self.which)
            # Who names a hub does not want what a node has of it.
            return [endpoint for endpoint in found if not endpoint.is_node]
        found = endpoints_for(settings, environ)
        if self.which == "auto":
            return found
        if self.which == "node":
            return [endpoint for endpoint in found if endpoint.is_node]
        return _endpoints_of_mirror(self.which, found, settings)

    def _run(
        self,
        reference: RepoReference,
        request: PullRequest,
        report: Report,
        endpoints: Sequence[Endpoint],
        answers: Sequence[tuple[str, SourceUnavailable]],
    ) -> Snapshot:
        labels = _labels(endpoints)
        first = labels[0] if labels else self.name
        report(PullProgress(first, reference.name, phase="listing"))
        job = _job(reference, request, endpoints, labels, self.which == "auto")
        secrets = [secret for e in endpoints for secret in (e.token, e.login)]
        forward = relay(report, first, reference.name)
        try:
            event = run_job(job, _environ(request.environ), forward)
        except SourceUnavailable as error:
            told = error.answers or ((first, error),)
            raise _all_failed(
                [
                    *((name, _redacted(answer, secrets)) for name, answer in told),
                    *answers,
                ]
            ) from None
        except UserError as error:
            raise UserError(error.what, redact(error.why, secrets), error.next_step) from None
        return Snapshot(
            event["repo_id"],
            reference.kind,
            event["source"],
            Path(event["path"]),
            event["revision"],
            event["size"],
            event["hub"],
            event["commit"],
            tuple(event["notices"]),
        )


def repo_ids(reference: RepoReference) -> dict[Hub, str | None]:
    """Return the id of a repository at each hub."""
    return {"modelscope": reference.modelscope_id, "huggingface": reference.huggingface_id}


def _endpoints_of_mirror(
    which: str, known: Sequence[Endpoint], settings: Settings
) -> list[Endpoint]:
    named = [endpoint for endpoint in known if endpoint.name.lower() == which.lower()]
    if named:
        return named
    if "://" not in which:
        names = ["auto", *NETWORK_SOURCES, "cache", "local", *(e.name for e in known)]
        raise UserError(
            _("There is no source '{source}'.", source=which),
            did_you_mean(which, names)
            or _("It is one of {choices}.", choices=", ".join(dict.fromkeys(names))),
            _("A mirror is named as in %swift mirrors, or by its address."),
        )
    url, login = split_login(clean_endpoint(which) or "")
    if url is None:
        raise UserError(
            _("'{source}' is not an address.", source=redact(which, [])),
            _("It begins with http:// or https:// and names a host."),
        )
    listed = [endpoint for endpoint in known if endpoint.url == url]
    if listed:
        return [replace(endpoint, login=login or endpoint.login) for endpoint in listed]
    # It does not say which language it speaks, so both are tried; tokens are for
    # addresses that the user has vouched for.
    hubs: list[Hub] = ["modelscope", "huggingface"]
    if settings.hub == "huggingface":
        hubs.reverse()
    return [Endpoint(hub, url, urlsplit(url).netloc, login=login) for hub in hubs]


def _labels(endpoints: Sequence[Endpoint]) -> list[str]:
    """Return what each address is called in messages: its hub, if that tells it apart."""
    counts = Counter(endpoint.hub for endpoint in endpoints if not endpoint.is_node)
    labels = []
    for endpoint in endpoints:
        hub = HUB_NAMES[endpoint.hub]
        if endpoint.is_node:
            labels.append(_("node {name}", name=endpoint.name))
        elif counts[endpoint.hub] == 1:
            labels.append(hub)
        else:
            labels.append(f"{hub} ({endpoint.name})")
    return labels


def _job(
    reference: RepoReference,
    request: PullRequest,
    endpoints: Sequence[Endpoint],
    labels: Sequence[str],
    may_use_stored: bool,
) -> dict[str, Any]:
    """Return the job as JSON values; the tokens in it go through a pipe."""
    ids = repo_ids(reference)
    settings = request.settings
    return {
        "task": "pull",
        "kind": reference.kind,
        "ids": ids,
        "revision": reference.revision,
        "include": list(request.include),
        "exclude": list(request.exclude),
        "local_dir": str(request.local_dir) if request.local_dir else None,
        "max_connections": request.max_connections,
        "listing_seconds": LISTING_SECONDS[reference.kind],
        "may_use_stored": may_use_stored,
        "locked": request.locked.to_dict() if request.locked else None,
        "settings": {
            # Its process works in another folder.
            "cache_dir": str(settings.cache_path.absolute()),
            "state_dir": str(settings.state_path.absolute()),
        },
        "addresses": [
            {
                "hub": endpoint.hub,
                "url": endpoint.url,
                "name": endpoint.name,
                "label": label,
                "repo_id": ids[endpoint.hub],
                "is_node": endpoint.is_node,
                "token": endpoint.token.reveal() if endpoint.token else None,
                "login": endpoint.login.reveal() if endpoint.login else None,
            }
            for endpoint, label in zip(endpoints, labels, strict=True)
        ],
    }


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the process, with paths that hold in its folder, too."""
    environment = read_environment(environ)
    return {
        **environ,
        "MODELSCOPE_CACHE": str(environment.modelscope_cache),
        "HF_HUB_CACHE": str(environment.huggingface_cache),
    }


def _offline_variable(environ: Mapping[str, str], kind: str) -> str | None:
    """Return the variable that forbids to ask Hugging Face, or None."""
    names = (*_OFFLINE, "HF_DATASETS_OFFLINE") if kind == "dataset" else _OFFLINE
    return next((name for name in names if environ.get(name, "").lower() in _TRUE), None)


def _redacted(error: SourceUnavailable, secrets: Sequence[Any]) -> SourceUnavailable:
    return SourceUnavailable(redact(error.reason, secrets), error.trouble)


def _nobody() -> SourceUnavailable:
    return SourceUnavailable(_("no address is known that could be asked"), "not_found")


def _all_failed(answers: Sequence[tuple[str, SourceUnavailable]]) -> SourceUnavailable:
    _name, last = answers[-1]
    return SourceUnavailable(last.reason, last.trouble, answers)
