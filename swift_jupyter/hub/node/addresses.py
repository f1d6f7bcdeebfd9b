"""From the target of a request to what it means. Nothing here touches a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from swift_jupyter.hub.listing import Hub, UnsafePath, check_path
from swift_jupyter.hub.reference import RepoKind, is_repo_id, is_revision

Action = Literal[
    "home",
    "health",
    "status",
    "pieces",
    "region",
    "info",
    "revisions",
    "files",
    "bytes",
    "hf_info",
    "hf_tree",
    "hf_paths_info",
    "hf_refs",
]
DEFAULT_REVISIONS = frozenset(("", "master", "main", "latest", "default"))
_KINDS: dict[str, RepoKind] = {"models": "model", "datasets": "dataset"}


class BadTarget(ValueError):
    """A target that no honest client would send."""


@dataclass(frozen=True)
class Target:
    """What a request wants.

    Attributes
    ----------
    action : str
        Which answer.
    hub : {"modelscope", "huggingface"}
        Whose protocol is spoken.
    kind : {"model", "dataset"}
        What the repository holds.
    repo_id : str
        Its ``owner/name``; for a data set of ModelScope maybe its number.
    revision : str or None
        The revision that was asked for; None stands for the default one.
    path : str
        A checked path in the repository, or the hash of pieces.
    query : dict
        The values of the query by name.
    """

    action: Action
    hub: Hub = "modelscope"
    kind: RepoKind = "model"
    repo_id: str = ""
    revision: str | None = None
    path: str = ""
    query: dict[str, str] = field(default_factory=dict, repr=False)


def parse_target(uri: str) -> Target | None:
    """Return what the target of a request means, or None when it means nothing here.

    Raises
    ------
    BadTarget
        For paths that try to leave their folder, wrong escapes and control characters.
    """
    try:
        path, text = _split(uri)
        segments = [unquote(part, errors="strict") for part in path.split("/")]
        fields = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=32)
        query = {name: values[0] for name, values in fields.items()}
    except ValueError:
        raise BadTarget(uri) from None
    if any("\0" in text or "\\" in text for text in segments):
        raise BadTarget(uri)
    while segments and not segments[0]:
        del segments[0]
    if segments and not segments[-1]:
        del segments[-1]
    # ModelScope's client appends its prefix to an endpoint that has it already.
    while segments[:4] == ["api", "v1", "api", "v1"]:
        del segments[:2]
    return _meaning(segments, query)


def _split(uri: str) -> tuple[str, str]:
    """Return path and query; a proxy's full address counts as its path."""
    if uri.startswith(("http://", "https://")):
        parts = urlsplit(uri)
        return parts.path, parts.query
    path, _sign, query = uri.partition("?")
    return path, query


def _meaning(segments: list[str], query: dict[str, str]) -> Target | None:
    match segments:
        case []:
            return Target("home", query=query)
        case ["healthz"]:
            return Target("health")
        case ["_sj", "v1", "status"]:
            return Target("status")
        case ["_sj", "v1", "pieces", digest]:
            return Target("pieces", path=digest)
        case ["api", "v1", "repos", "internalAccelerationInfo"]:
            return Target("region")
        case ["api", "v1", "models" | "datasets" as kind, *rest]:
            return _modelscope(_KINDS[kind], rest, query)
        case ["api", "models" | "datasets" as kind, owner, name, *rest]:
            return _huggingface(_KINDS[kind], _repo_id(owner, name), rest)
        case ["models" | "datasets" as kind, owner, name, "resolve" | "raw", revision, *path]:
            return _resolve(_KINDS[kind], _repo_id(owner, name), revision, path)
        case [owner, name, "resolve" | "raw", revision, *path] if owner not in _KINDS:
            return _resolve("model", _repo_id(owner, name), revision, path)
    return None


def _modelscope(kind: RepoKind, rest: list[str], query: dict[str, str]) -> Target | None:
    if rest and kind == "dataset" and rest[0].isascii() and rest[0].isdigit():
        repo_id, rest = rest[0], rest[1:]
    elif len(rest) >= 2:
        repo_id, rest = _repo_id(rest[0], rest[1]), rest[2:]
    else:
        return None
    revision = _revision(query.get("Revision", ""))
    if rest == []:
        return Target("info", "modelscope", kind, repo_id, revision)
    if rest == ["revisions"]:
        return Target("revisions", "modelscope", kind, repo_id)
    if rest in (["repo", "files"], ["repo", "tree"]):
        root = query.get("Root", "").strip("/")
        path = _path(root) if root else ""
        return Target("files", "modelscope", kind, repo_id, revision, path, query)
    if rest == ["repo"]:
        path = _path(query.get("FilePath", ""))
        return Target("bytes", "modelscope", kind, repo_id, revision, path)
    return None


def _huggingface(kind: RepoKind, repo_id: str, rest: list[str]) -> Target | None:
    match rest:
        case []:
            return Target("hf_info", "huggingface", kind, repo_id)
        case ["refs"]:
            return Target("hf_refs", "huggingface", kind, repo_id)
        case ["revision", *revision] if revision:
            name = _revision("/".join(revision))
            return Target("hf_info", "huggingface", kind, repo_id, name)
        case ["tree", revision, *path]:
            folder = _path("/".join(path)) if path else ""
            return Target("hf_tree", "huggingface", kind, repo_id, _revision(revision), folder)
        case ["paths-info", revision]:
            return Target("hf_paths_info", "huggingface", kind, repo_id, _revision(revision))
    return None


def _resolve(kind: RepoKind, repo_id: str, revision: str, path: list[str]) -> Target:
    file = _path("/".join(path))
    return Target("bytes", "huggingface", kind, repo_id, _revision(revision), file)


def _repo_id(owner: str, name: str) -> str:
    repo_id = f"{owner}/{name}"
    if not is_repo_id(repo_id):
        raise BadTarget(repo_id)
    return repo_id


def _revision(text: str) -> str | None:
    if text in DEFAULT_REVISIONS:
        return None
    if not is_revision(text):
        raise BadTarget(text)
    return text


def _path(text: str) -> str:
    try:
        return check_path(text)
    except UnsafePath:
        raise BadTarget(text) from None
