"""What both hubs share as sources: a job for a transfer process, and the record of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swift_jupyter.errors import UserError
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.listing import RemoteFile
from swift_jupyter.hub.progress import PullProgress, Report
from swift_jupyter.hub.records import PullRecord, write_record
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import PullRequest, SourceUnavailable
from swift_jupyter.hub.transfer.process import relay, run_job

# A model's listing is one short answer; a dataset's may take hundreds of pages.
LISTING_SECONDS = {"model": 30.0, "dataset": 300.0}


def pull_from_hub(
    name: str,
    hub_job: dict[str, Any],
    repo_id: str,
    reference: RepoReference,
    request: PullRequest,
    report: Report,
) -> Snapshot:
    """Pull `repo_id` by the client of one hub.

    Parameters
    ----------
    name : str
        The hub for people.
    hub_job : dict
        The job's part that differs between the hubs.
    repo_id : str
        The id at this hub.
    reference, request, report
        As in `Source.fetch`.
    """
    report(PullProgress(name, repo_id, phase="listing"))
    job = {
        **hub_job,
        "repo_id": repo_id,
        "kind": reference.kind,
        "revision": reference.revision,
        "include": list(request.include),
        "exclude": list(request.exclude),
        "local_dir": str(request.local_dir) if request.local_dir else None,
    }
    environment = read_environment(request.environ)
    environ = dict(request.environ)
    if hub_job["endpoint"]:
        # Its other protocol would by-pass the address that the user chose.
        environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        event = run_job(job, environ, relay(report, name, repo_id), LISTING_SECONDS[reference.kind])
    except SourceUnavailable as error:
        raise SourceUnavailable(environment.redact(error.reason), error.trouble) from None
    except UserError as error:
        raise UserError(error.what, environment.redact(error.why), error.next_step) from None
    path = Path(event["path"])
    files = tuple(RemoteFile(**file) for file in event["files"])
    write_record(
        request.settings,
        PullRecord(path, name, repo_id, reference.kind, event["revision"], files),
    )
    return Snapshot(repo_id, reference.kind, name, path, event["revision"], event["size"])
