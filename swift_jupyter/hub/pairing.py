"""Which names the two hubs give to the same model."""

from __future__ import annotations

import csv
import functools
from dataclasses import replace
from pathlib import Path

from swift_jupyter.hub.listing import Hub
from swift_jupyter.hub.reference import RepoReference

_TABLE = Path(__file__).parent / "data" / "model_ids.tsv"
_COLUMNS: dict[Hub, str] = {"modelscope": "modelscope_id", "huggingface": "huggingface_id"}


@functools.cache
def known_models() -> tuple[dict[str, str], ...]:
    """Return the rows of the table of models; every value is a text, maybe empty."""
    with _TABLE.open(encoding="utf-8", newline="") as stream:
        return tuple(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def paired_id(repo_id: str, hub: Hub) -> str | None:
    """Return the other hub's id of a model that `hub` calls `repo_id`.

    Parameters
    ----------
    repo_id : str
        Its ``owner/name``, in any case.
    hub : {"modelscope", "huggingface"}
        The hub whose id it is.

    Returns
    -------
    str or None
        None where the model is not known, or the other hub does not have it.
    """
    return _pairs(hub).get(repo_id.lower())


def with_paired_ids(reference: RepoReference) -> RepoReference:
    """Return `reference` with the id at each hub, where one stands for both or is left out.

    A name that both hubs use for different models means ModelScope's.
    """
    if reference.kind != "model":
        return reference
    first, second = reference.modelscope_id, reference.huggingface_id
    if first and second in (None, first):
        other = paired_id(first, "modelscope")
        if other:
            return replace(reference, huggingface_id=other)
    if second and first in (None, second):
        other = paired_id(second, "huggingface")
        if other:
            return replace(reference, modelscope_id=other)
    return reference


@functools.cache
def _pairs(hub: Hub) -> dict[str, str]:
    mine = _COLUMNS[hub]
    [theirs] = [column for column in _COLUMNS.values() if column != mine]
    pairs: dict[str, str] = {}
    for row in known_models():
        if row[mine] and row[theirs]:
            pairs.setdefault(row[mine].lower(), row[theirs])
    return pairs
