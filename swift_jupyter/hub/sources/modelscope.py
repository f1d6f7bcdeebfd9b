"""ModelScope."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.progress import Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import PullRequest
from swift_jupyter.hub.sources.hubs import pull_from_hub


@dataclass(frozen=True)
class ModelScopeSource:
    """Pull from ModelScope, or from a mirror that speaks its API."""

    @property
    def name(self) -> str:
        """The name for people."""
        return "ModelScope"

    def offers(self, reference: RepoReference) -> bool:
        """Tell whether the reference has an id at this hub."""
        return reference.modelscope_id is not None

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Pull; see `Source.fetch`."""
        environment = read_environment(request.environ)
        job = {
            "task": "modelscope",
            "endpoint": environment.modelscope_endpoint,
            "cache": str(environment.modelscope_cache),
            "token": environment.modelscope_token,
        }
        assert reference.modelscope_id is not None
        return pull_from_hub(self.name, job, reference.modelscope_id, reference, request, report)
