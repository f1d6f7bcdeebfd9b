"""A folder that the user names."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.hub.progress import Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot, folder_size
from swift_jupyter.hub.sources.base import PullRequest, SourceUnavailable
from swift_jupyter.i18n import translate as _


@dataclass(frozen=True)
class FolderSource:
    """Take a folder as it is."""

    @property
    def name(self) -> str:
        """The name for people."""
        return "folder"

    def offers(self, reference: RepoReference) -> bool:
        """Tell whether the reference names a folder."""
        return reference.local_path is not None

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Return the folder.

        Raises
        ------
        SourceUnavailable
            When it does not exist.
        """
        path = reference.local_path
        if path is None or not path.is_dir():
            raise SourceUnavailable(
                _("there is no folder {path}", path=reference.local_path), "not_found"
            )
        path = path.resolve()
        return Snapshot(reference.name, reference.kind, self.name, path, None, folder_size(path))
