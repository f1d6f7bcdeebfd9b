"""Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.progress import Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot
from swift_jupyter.hub.sources.base import PullRequest
from swift_jupyter.hub.sources.hubs import pull_from_hub


@dataclass(frozen=True)
class HuggingFaceSource:
    """Pull from Hugging Face, or from a mirror that speaks its API."""

    @property
    def name(self) -> str:
        """The name for people."""
        return "Hugging Face"

    def offers(self, reference: RepoReference) -> bool:
        """Tell whether the reference has an id at this hub."""
        return reference.huggingface_id is not None

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Pull; see `Source.fetch`."""
        environment = read_environment(request.environ)
        job = {
            "task": "huggingface",
            "endpoint": environment.huggingface_endpoint,
            "cache": str(environment.huggingface_cache),
            "token": environment.huggingface_token,
        }
        assert reference.huggingface_id is not None
        return pull_from_hub(self.name, job, reference.huggingface_id, reference, request, report)
