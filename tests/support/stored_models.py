"""Content for tests of the store: files with their hashes, put in as a pull does."""

from __future__ import annotations

import hashlib
from pathlib import Path

from swift_jupyter.hub.listing import Hub, RemoteFile, RepoListing, content_commit
from swift_jupyter.hub.reference import RepoKind
from swift_jupyter.hub.store.store import Store

MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": bytes(range(256)) * 40,
}
HUGGINGFACE_COMMIT = "c" * 40


def git_sha1(content: bytes) -> str:
    """Return git's blob id of `content`."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def remote_file(path: str, content: bytes, hub: Hub = "modelscope") -> RemoteFile:
    """Return a file as a hub lists it: Hugging Face tells SHA-256 of large files only."""
    lfs = path.endswith(".safetensors")
    if hub == "modelscope":
        return RemoteFile(path, len(content), sha256(content), None, lfs)
    return RemoteFile(path, len(content), sha256(content) if lfs else None, git_sha1(content), lfs)


def listing_of(
    content: dict[str, bytes],
    repo_id: str = "lab/tiny",
    hub: Hub = "modelscope",
    kind: RepoKind = "model",
    revision: str | None = None,
) -> RepoListing:
    """Return a repository as a hub lists it."""
    files = tuple(remote_file(path, data, hub) for path, data in content.items())
    commit = content_commit(files) if hub == "modelscope" else HUGGINGFACE_COMMIT
    branch = revision or ("master" if hub == "modelscope" else "main")
    return RepoListing(hub, repo_id, kind, branch, commit, files)


def fill(store: Store, content: dict[str, bytes]) -> None:
    """Put files into a store as a transfer does."""
    parts = store.parts()
    for number, data in enumerate(content.values()):
        part = parts / f"test-{number}.part"
        part.write_bytes(data)
        store.add(part, sha256(data), git_sha1(data))


def write(path: Path, content: bytes = b"{}") -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
