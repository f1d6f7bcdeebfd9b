"""A pull by Hugging Face's own client.

The client gives up at a reset connection and at a 503, and compares no hash
over HTTP. Here transient errors are tried again, and every file is compared
with the listing before anything refers to the snapshot.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from swift_jupyter.files import write_text_atomically
from swift_jupyter.hub.layouts import huggingface_repo_folder, huggingface_revision
from swift_jupyter.hub.listing import RemoteFile, pull_patterns
from swift_jupyter.hub.transfer.channel import Channel, TransferFailed
from swift_jupyter.hub.transfer.plan import (
    check_room,
    corrupt,
    is_disk_full,
    plan_files,
    present_bytes,
    result,
    unexpected,
    verify,
)
from swift_jupyter.hub.transfer.probe import check_reachable
from swift_jupyter.hub.verify import Mismatch
from swift_jupyter.i18n import translate as _

ATTEMPTS = 3
FIRST_PAUSE = 1.0
WORKERS = 8
_RETRIED_STATUS = (408, 409, 425, 429)

T = TypeVar("T")


def run(job: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    """Pull the repository of `job` and return the values of the final event."""
    from huggingface_hub import HfApi, constants

    channel.progress("listing")
    channel.on_abort(_remove_unfinished)
    endpoint = job["endpoint"] or constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        raise TransferFailed(_("HF_HUB_OFFLINE forbids to ask it"), "offline")
    check_reachable(endpoint)
    api = HfApi(endpoint=endpoint, token=job["token"])
    revision = huggingface_revision(job["revision"])
    try:
        commit, listing = _retried(lambda: _list(api, job, revision), channel)
        files = plan_files(listing, job)
        folder = _retried(
            lambda: _download(job, endpoint, commit, files, listing, channel), channel
        )
        mismatches = verify(folder, files, channel)
        if mismatches:
            _discard(folder, Path(job["cache"]), mismatches)
            _retried(lambda: _download(job, endpoint, commit, files, listing, channel), channel)
            mismatches = verify(folder, files, channel)
    except TransferFailed:
        raise
    except Exception as error:
        channel.check()
        raise _explain(error, job) from error
    if mismatches:
        _discard(folder, Path(job["cache"]), mismatches)
        raise corrupt(mismatches[0])
    if not job["local_dir"]:
        _publish(job, revision, commit)
    return result(folder, commit, files, listing)


def _list(api: Any, job: Mapping[str, Any], revision: str) -> tuple[str, list[RemoteFile]]:
    repo = {"repo_id": job["repo_id"], "repo_type": job["kind"]}
    commit = api.repo_info(**repo, revision=revision).sha
    entries = api.list_repo_tree(**repo, revision=commit, recursive=True)
    files = [
        RemoteFile(
            entry.path,
            entry.lfs.size if entry.lfs else entry.size,
            entry.lfs.sha256 if entry.lfs else None,
            None if entry.lfs else entry.blob_id,
        )
        for entry in entries
        if hasattr(entry, "blob_id")
    ]
    return commit, files


def _download(
    job: Mapping[str, Any],
    endpoint: str,
    commit: str,
    files: Sequence[RemoteFile],
    listing: Sequence[RemoteFile],
    channel: Channel,
) -> Path:
    from huggingface_hub import snapshot_download

    cache, local_dir = Path(job["cache"]), job["local_dir"]
    repo = huggingface_repo_folder(cache, job["repo_id"], job["kind"])
    target = Path(local_dir) if local_dir else repo / "snapshots" / commit
    present = present_bytes(target, files)
    check_room(target, files, present)
    total = sum(file.size or 0 for file in files)
    channel.progress("downloading", present, total)
    take, leave = pull_patterns(listing, job["kind"], job["include"], job["exclude"])
    folder = snapshot_download(
        job["repo_id"],
        repo_type=job["kind"],
        revision=commit,
        cache_dir=cache,
        local_dir=local_dir,
        endpoint=endpoint,
        token=job["token"],
        allow_patterns=list(take) or None,
        ignore_patterns=list(leave) or None,
        max_workers=WORKERS,
        tqdm_class=_progress_class(present, total, channel),
    )
    return Path(folder)


def _progress_class(present: int, total: int, channel: Channel) -> type:
    """Return a silent bar that counts bytes and stops the client when it is cancelled."""
    from tqdm import tqdm

    lock = threading.Lock()
    counts: dict[int, float] = {}

    class Progress(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *args: Any, **options: Any) -> None:
            # Two bars count bytes, received and written; another one counts files.
            self._counts_bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self._counts_bytes:
                with lock:
                    counts[id(self)] = counts.get(id(self), 0) + (n or 0)
                    done = present + int(max(counts.values()))
                channel.progress("downloading", min(done, total), total)
            else:
                channel.check()
            return None

    return Progress


def _retried(work: Callable[[], T], channel: Channel) -> T:
    pause = FIRST_PAUSE
    for _attempt in range(ATTEMPTS - 1):
        try:
            return work()
        except Exception as error:
            channel.check()
            if not _is_transient(error):
                raise
        channel.wait(pause)
        pause *= 2
    return work()


def _is_transient(error: Exception) -> bool:
    import httpx
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, TransferFailed) or is_disk_full(error):
        return False
    if isinstance(error, LocalEntryNotFoundError):
        return True  # What the client says when a request for metadata failed.
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else 0
        return status in _RETRIED_STATUS or status >= 500
    if isinstance(error, EntryNotFoundError | PermissionError):
        return False
    return isinstance(error, httpx.HTTPError | OSError)


def _discard(folder: Path, cache: Path, mismatches: Sequence[Mismatch]) -> None:
    """Remove wrong files, and the stored blobs that they point to."""
    for mismatch in mismatches:
        path = folder / mismatch.path
        blob = path.resolve()
        if path.is_symlink() and cache.resolve() in blob.parents:
            blob.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _remove_unfinished() -> None:
    """Remove what this process is writing: the client would never continue it.

    It notices a wish to stop between blocks of 10 MiB, which may take long.
    """
    import psutil

    for file in psutil.Process().open_files():
        if file.path.endswith(".incomplete"):
            Path(file.path).unlink(missing_ok=True)


def _publish(job: Mapping[str, Any], revision: str, commit: str) -> None:
    """Let the name of the revision point to the verified commit, as the client would."""
    if revision == commit:
        return
    repo = huggingface_repo_folder(Path(job["cache"]), job["repo_id"], job["kind"])
    reference = repo / "refs" / revision
    reference.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(reference, commit)


def _explain(error: Exception, job: Mapping[str, Any]) -> TransferFailed:
    import httpx
    from huggingface_hub import errors

    repo_id = job["repo_id"]
    if is_disk_full(error):
        return TransferFailed(_("The disk of {path} is full.", path=job["cache"]), "disk_full")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return TransferFailed(
            _("it denies access to {repo_id}; HF_TOKEN may help", repo_id=repo_id), "denied"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return TransferFailed(
            _("{repo_id} has no revision {revision}", repo_id=repo_id, revision=job["revision"]),
            "not_found",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        # It answers so as well for repositories that need a token.
        return TransferFailed(
            _("it has no {kind} {repo_id}", kind=job["kind"], repo_id=repo_id), "not_found"
        )
    return unexpected(error, isinstance(error, httpx.HTTPError | OSError), status)
