"""A pull by ModelScope's own client.

The client package `modelscope_hub` is used directly: importing `modelscope`
fails under ``MS_CACHE_HOME`` and some values of ``MODELSCOPE_LOG_LEVEL``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from swift_jupyter.hub.layouts import modelscope_revision, modelscope_snapshots
from swift_jupyter.hub.listing import RemoteFile
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
from swift_jupyter.i18n import translate as _

WORKERS = 4
_EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def run(job: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    """Pull the repository of `job` and return the values of the final event."""
    from modelscope_hub import HubApi, HubConfig

    channel.progress("listing")
    config = HubConfig(endpoint=job["endpoint"], cache_dir=Path(job["cache"]), token=job["token"])
    check_reachable(config.endpoint or "")
    api = HubApi(config)
    revision = modelscope_revision(job["revision"])
    try:
        listing = _list(api, job, revision)
        files = plan_files(listing, job)
        folder = _download(api, job, revision, files, channel)
        mismatches = verify(folder, files, channel)
        if mismatches:
            _discard(folder, [mismatch.path for mismatch in mismatches])
            folder = _download(api, job, revision, files, channel)
            mismatches = verify(folder, files, channel)
    except TransferFailed:
        raise
    except Exception as error:
        channel.check()
        raise _explain(error, job) from error
    if mismatches:
        _discard(folder, [mismatch.path for mismatch in mismatches])
        raise corrupt(mismatches[0])
    return result(folder, revision, files, listing)


def _list(api: Any, job: Mapping[str, Any], revision: str) -> list[RemoteFile]:
    entries = api.list_repo_files(job["repo_id"], job["kind"], revision=revision)
    return [
        RemoteFile(
            entry.path,
            # The client reads an unknown size as zero.
            entry.size if entry.size or entry.sha256 == _EMPTY_SHA256 else None,
            entry.sha256.lower() if entry.sha256 else None,
        )
        for entry in entries
        if not entry.is_dir
    ]


def _download(
    api: Any, job: Mapping[str, Any], revision: str, files: list[RemoteFile], channel: Channel
) -> Path:
    cache, local_dir = Path(job["cache"]), job["local_dir"]
    present = next(modelscope_snapshots(cache, job["repo_id"], job["kind"], revision), None)
    target = Path(local_dir) if local_dir else present.path if present else cache
    check_room(target, files, present_bytes(target, files))
    channel.progress("downloading", 0, sum(file.size or 0 for file in files))
    folder = api.download_repo(
        job["repo_id"],
        job["kind"],
        revision=revision,
        cache_dir=None if local_dir else cache,
        local_dir=local_dir,
        max_workers=WORKERS,
        progress_callbacks=[_callback_class(files, channel)],
        file_list=[
            {"Path": file.path, "Type": "blob", "Size": file.size, "Sha256": file.sha256}
            for file in files
        ],
    )
    return Path(folder)


def _callback_class(files: list[RemoteFile], channel: Channel) -> type:
    from modelscope_hub import ProgressCallback

    total = sum(file.size or 0 for file in files)
    lock = threading.Lock()
    done = 0

    class Callback(ProgressCallback):  # type: ignore[misc, unused-ignore]
        def update(self, size: int) -> None:
            nonlocal done
            with lock:
                done += size
                current = done
            channel.progress("downloading", current, total, self.filename)

    return Callback


def _discard(folder: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (folder / path).unlink(missing_ok=True)


def _explain(error: Exception, job: Mapping[str, Any]) -> TransferFailed:
    from modelscope_hub import errors

    causes = list(getattr(error, "failed_files", {}).values()) or [error]
    for cause in causes:
        if is_disk_full(cause):
            return TransferFailed(_("The disk of {path} is full.", path=job["cache"]), "disk_full")
        if isinstance(cause, errors.FileIntegrityError):
            return TransferFailed(
                _("a file is damaged: {error}", error=str(cause).splitlines()[0]), "corrupt"
            )
    cause = causes[0]
    if isinstance(cause, errors.NotExistError):
        return TransferFailed(
            _("it has no {kind} {repo_id}", kind=job["kind"], repo_id=job["repo_id"]), "not_found"
        )
    if isinstance(cause, errors.AuthenticationError | errors.PermissionDeniedError):
        return TransferFailed(
            _(
                "it denies access to {repo_id}; MODELSCOPE_API_TOKEN may help",
                repo_id=job["repo_id"],
            ),
            "denied",
        )
    is_network = isinstance(cause, errors.NetworkError | OSError)
    return unexpected(cause, is_network, getattr(cause, "status_code", None))
