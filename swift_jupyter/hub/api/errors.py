"""What an answer that is no listing means, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterable

from swift_jupyter.errors import nearest
from swift_jupyter.hub.api.base import Endpoint
from swift_jupyter.hub.http.errors import HttpError
from swift_jupyter.hub.listing import HUB_NAMES, Hub
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

TOKEN_VARIABLES: dict[Hub, str] = {
    "modelscope": "MODELSCOPE_API_TOKEN",
    "huggingface": "HF_TOKEN",
}
_SHOWN_NAMES = 8


def no_repository(repo_id: str, kind: str) -> SourceUnavailable:
    """Return the failure for a repository that is not there."""
    return SourceUnavailable(
        _("it has no {kind} {repo_id}", kind=kind, repo_id=repo_id), "not_found"
    )


def no_revision(repo_id: str, revision: str, known: Iterable[str]) -> SourceUnavailable:
    """Return the failure for a revision that is not there, with the nearest names."""
    known = list(dict.fromkeys(known))
    reason = _("{repo_id} has no revision {revision}", repo_id=repo_id, revision=revision)
    names = nearest(revision, known)
    if names:
        reason += " (" + _("did you mean {names}?", names=", ".join(names)) + ")"
    elif known:
        shown = ", ".join(known[:_SHOWN_NAMES]) + (" …" if len(known) > _SHOWN_NAMES else "")
        reason += " (" + _("it has {names}", names=shown) + ")"
    return SourceUnavailable(reason, "not_found")


def gated(endpoint: Endpoint, repo_id: str, kind: str) -> SourceUnavailable:
    """Return the failure for a repository whose terms have to be accepted."""
    page = f"{endpoint.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
    variable = TOKEN_VARIABLES[endpoint.hub]
    if endpoint.token:
        reason = _(
            "{repo_id} is gated, and your token's account has no access yet: ask for it at {page}",
            repo_id=repo_id,
            page=page,
        )
    else:
        reason = _(
            "{repo_id} is gated: accept its terms at {page}, then set {variable}",
            repo_id=repo_id,
            page=page,
            variable=variable,
        )
    return SourceUnavailable(reason, "denied")


def denied(endpoint: Endpoint, repo_id: str) -> SourceUnavailable:
    """Return the failure for a repository that this user may not see."""
    variable = TOKEN_VARIABLES[endpoint.hub]
    if endpoint.token:
        reason = _(
            "it denies access to {repo_id}: it refuses your token (from {variable} or the login)",
            repo_id=repo_id,
            variable=variable,
        )
    else:
        reason = _(
            "it denies access to {repo_id}; {variable} may help",
            repo_id=repo_id,
            variable=variable,
        )
    return SourceUnavailable(reason, "denied")


def no_answer(endpoint: Endpoint, error: HttpError) -> SourceUnavailable:
    """Return the failure for an address that gives no sensible answer."""
    if error.kind == "status":
        return SourceUnavailable(
            _("it answers with HTTP {status}", status=error.status), "unreachable"
        )
    if error.kind == "timeout":
        return SourceUnavailable(
            _("{host} did not answer in time", host=endpoint.name), "unreachable"
        )
    if error.kind == "protocol":
        return SourceUnavailable(
            _(
                "{host} does not speak the language of {hub} ({problem})",
                host=endpoint.name,
                hub=HUB_NAMES[endpoint.hub],
                problem=error.text,
            ),
            "unreachable",
        )
    return SourceUnavailable(
        _("{host} cannot be reached ({problem})", host=endpoint.name, problem=error.text),
        "unreachable",
    )
