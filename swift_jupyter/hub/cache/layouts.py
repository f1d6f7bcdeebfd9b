"""How the hubs' clients lay out their caches: from a repository to its folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.hub.listing import RemoteFile, UnsafePath, check_path

# The default branch has another name at each hub; both names mean "the default".
DEFAULT_BRANCHES = (None, "main", "master")
MODELSCOPE_BRANCH = "master"
HUGGINGFACE_BRANCH = "main"


@dataclass(frozen=True)
class CachedSnapshot:
    """One revision of a repository in a cache, complete or not."""

    path: Path
    revision: str | None
    listing: tuple[RemoteFile, ...] | None = None


def modelscope_revision(revision: str | None) -> str:
    """Return the branch name that ModelScope uses for `revision`."""
    return MODELSCOPE_BRANCH if revision in DEFAULT_BRANCHES else str(revision)


def huggingface_revision(revision: str | None) -> str:
    """Return the branch name that Hugging Face uses for `revision`."""
    return HUGGINGFACE_BRANCH if revision in DEFAULT_BRANCHES else str(revision)


def modelscope_snapshots(
    cache: Path, repo_id: str, kind: str, revision: str | None
) -> Iterator[CachedSnapshot]:
    """Yield the folders in which ModelScope's clients, old and new, keep a repository."""
    branch = modelscope_revision(revision)
    current = modelscope_repo_folder(cache, repo_id, kind) / "snapshots" / branch
    candidates = [current]
    if revision in DEFAULT_BRANCHES:
        # The old layouts hold one revision and do not tell its name.
        candidates += legacy_modelscope_folders(cache, repo_id, kind)
    seen = set()
    for folder in candidates:
        if folder.is_dir() and (real := folder.resolve()) not in seen:
            seen.add(real)
            yield CachedSnapshot(folder, branch)


def modelscope_repo_folder(cache: Path, repo_id: str, kind: str) -> Path:
    """Return the folder of a repository in ModelScope's cache, in its present layout."""
    return cache / f"{kind}s" / repo_id.replace("/", "--")


def legacy_modelscope_folders(cache: Path, repo_id: str, kind: str) -> list[Path]:
    """Return where older clients of ModelScope kept a repository, whether it is there or not."""
    owner, name = repo_id.split("/", 1)
    masked = name.replace(".", "___")
    folders = [
        segment / owner / written
        for root in (cache, cache / "hub")
        for segment in (root / f"{kind}s", root)
        for written in (masked, name)
    ]
    return list(dict.fromkeys(folders))


def legacy_modelscope_folder(cache: Path, repo_id: str, kind: str) -> Path | None:
    """Return the folder of an older layout that ModelScope's client uses in place, or None."""
    owner, name = repo_id.split("/", 1)
    for root in (cache, cache / "hub"):
        folder = root / f"{kind}s" / owner / name.replace(".", "___")
        try:
            if any(folder.iterdir()):
                return folder
        except OSError:
            continue
    return None


def huggingface_repo_folder(cache: Path, repo_id: str, kind: str) -> Path:
    """Return the folder of a repository in Hugging Face's cache."""
    return cache / f"{kind}s--{repo_id.replace('/', '--')}"


def huggingface_snapshots(
    cache: Path, repo_id: str, kind: str, revision: str | None
) -> Iterator[CachedSnapshot]:
    """Yield the revision of a repository in Hugging Face's cache, with its listing if stored."""
    repo = huggingface_repo_folder(cache, repo_id, kind)
    wanted = huggingface_revision(revision)
    commit = _read_ref(repo, wanted) or wanted
    folder = repo / "snapshots" / commit
    if folder.is_dir():
        yield CachedSnapshot(folder, commit, stored_listing(repo, commit))


def stored_listing(repo: str | Path, commit: str) -> tuple[RemoteFile, ...] | None:
    """Return the listing that Hugging Face's client stored for a commit, or None."""
    try:
        with open(f"{repo}/trees/{commit}.json", "rb") as stream:
            content = json.loads(stream.read())
        return tuple(
            RemoteFile(
                check_path(path),
                entry["size"],
                entry.get("lfs_sha256"),
                entry["blob_id"],
                "lfs_sha256" in entry,
            )
            for path, entry in content["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UnsafePath):
        return None


def references(repo: Path) -> dict[str, str]:
    """Return commit by name for every branch and tag of a folder in Hugging Face's cache."""
    refs = repo / "refs"
    names = {}
    for directory, _folders, files in os.walk(refs):
        for file in files:
            path = Path(directory, file)
            commit = _read_ref(repo, path.relative_to(refs).as_posix())
            if commit:
                names[path.relative_to(refs).as_posix()] = commit
    return names


def _read_ref(repo: Path, name: str) -> str | None:
    try:
        text = (repo / "refs" / name).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return text if text.isalnum() else None
