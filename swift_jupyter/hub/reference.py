"""What is to be pulled: one repository under all the names it has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _

RepoKind = Literal["model", "dataset"]

# Both hubs compute cache folders from the id, so it must never leave its folder.
_REPO_ID = re.compile(r"[A-Za-z0-9_][\w.\-]*/[A-Za-z0-9_][\w.\-]*", re.ASCII)
_REVISION = re.compile(r"[\w][\w.\-+/]*", re.ASCII)


def is_repo_id(text: str) -> bool:
    """Tell whether `text` has the form ``owner/name`` of a hub's id."""
    return bool(_REPO_ID.fullmatch(text)) and ".." not in text and "--" not in text


def is_revision(text: str) -> bool:
    """Tell whether `text` can be a branch, a tag or a commit, and is safe as a folder name."""
    return bool(_REVISION.fullmatch(text)) and ".." not in text and not text.endswith("/")


@dataclass(frozen=True)
class RepoReference:
    """A model or a dataset, with every name under which it can be found.

    Parameters
    ----------
    name : str
        The name as the user typed it.
    kind : {"model", "dataset"}
        What the repository holds.
    modelscope_id, huggingface_id : str, optional
        Its ``owner/name`` at each hub; None where it is not offered.
    package_id : str, optional
        Its id among the models that come inside a Python package.
    local_path : Path, optional
        A folder that holds it.
    revision : str, optional
        Branch, tag or commit; the hub's default branch when left out.

    Raises
    ------
    UserError
        For an id or a revision that no hub could have.
    """

    name: str
    kind: RepoKind = "model"
    modelscope_id: str | None = None
    huggingface_id: str | None = None
    package_id: str | None = None
    local_path: Path | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        for repo_id in (self.modelscope_id, self.huggingface_id):
            if repo_id is not None and not is_repo_id(repo_id):
                raise UserError(
                    _("'{name}' is not the name of a repository.", name=repo_id),
                    _("A hub's id has the form owner/name."),
                )
        if self.revision is not None and not is_revision(self.revision):
            raise UserError(
                _("'{revision}' is not a revision.", revision=self.revision),
                _("It is the name of a branch or a tag, or a commit."),
            )

    @classmethod
    def of_hub(
        cls, repo_id: str, kind: RepoKind = "model", revision: str | None = None
    ) -> RepoReference:
        """Refer to the same ``owner/name`` at both hubs."""
        return cls(repo_id, kind, repo_id, repo_id, revision=revision)
