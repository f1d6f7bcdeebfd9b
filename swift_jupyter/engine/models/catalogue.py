"""The models that are known by name, and what a name that a user types stands for."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.engine.training import checkpoints
from swift_jupyter.errors import UserError, nearest
from swift_jupyter.hub.packages import KNOWN_PACKAGES
from swift_jupyter.hub.pairing import known_models
from swift_jupyter.hub.reference import RepoReference, is_repo_id
from swift_jupyter.i18n import translate as _

# Shares of common trigrams below this are coincidence.
LEAST_SIMILARITY = 0.3


@dataclass(frozen=True)
class CatalogueEntry:
    """One known model.

    Parameters
    ----------
    model_type : str
        ms-swift's name for the family.
    modelscope_id, huggingface_id : str or None
        Its id at each hub.
    template : str
        ms-swift's chat template for it.
    architecture : str
        The class in its ``config.json``.
    modality : str
        ``text`` or ``multimodal``.
    requires : tuple of str
        Requirements beyond ours.
    package_id : str or None
        Its id among the models inside Python packages.
    """

    model_type: str
    modelscope_id: str | None
    huggingface_id: str | None
    template: str
    architecture: str
    modality: str
    requires: tuple[str, ...] = ()
    package_id: str | None = None

    @property
    def id(self) -> str:
        """The id to type."""
        return self.package_id or self.modelscope_id or self.huggingface_id or ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**vars(self), "requires": list(self.requires), "id": self.id}


@functools.cache
def entries() -> tuple[CatalogueEntry, ...]:
    """Return all known models, those inside Python packages first."""
    hubs = (
        CatalogueEntry(
            row["model_type"],
            row["modelscope_id"] or None,
            row["huggingface_id"] or None,
            row["template"],
            row["architecture"],
            row["modality"],
            tuple(part.strip() for part in row["requires"].split(",") if part.strip()),
        )
        for row in known_models()
    )
    packages = (
        CatalogueEntry("llama", None, None, "chatml", "LlamaForCausalLM", "text", (), package)
        for package in KNOWN_PACKAGES
    )
    return (*packages, *hubs)


def resolve(name: str, revision: str | None = None) -> RepoReference:
    """Return what a model's name stands for.

    Parameters
    ----------
    name : str
        A folder, an id of either hub in any case, the part of an id behind
        the slash if only one model has it, or the id of a local package.
    revision : str, optional
        Branch, tag or commit.

    Raises
    ------
    UserError
        For a folder that is absent or holds no model, and for a name that
        nothing known resembles; it then names the nearest.
    """
    name = name.strip()
    if not name:
        raise UserError(_("No model is named."), "", _("Give one with --model <name>."))
    if name.lower() in KNOWN_PACKAGES:
        return RepoReference(name, package_id=name.lower(), revision=revision)
    folder = _existing_folder(name)
    if folder is not None:
        return _resolve_folder(name, folder, revision)
    known = _find_by_id(name) or _find_by_last_part(name)
    if known is not None:
        return RepoReference(
            name,
            modelscope_id=known.modelscope_id,
            huggingface_id=known.huggingface_id,
            revision=revision,
        )
    if _looks_like_path(name):
        raise UserError(
            _("There is no folder {path}.", path=name),
            _("It was looked for in {folder}.", folder=Path.cwd()),
            _("Give an existing folder, or a model's id such as owner/name."),
        )
    if is_repo_id(name):
        return RepoReference.of_hub(name, "model", revision)
    raise _unknown(name)


def search(query: str, limit: int = 20) -> list[CatalogueEntry]:
    """Return the models whose names fit `query`, the best first.

    All words of the query must occur in a model's ids or type. If no model
    has them all, the models whose ids look most alike are returned.
    """
    words = query.lower().split()
    if not words:
        return list(entries()[:limit])
    hits = [
        (_rank(entry, words), position)
        for position, (entry, text) in enumerate(zip(entries(), _search_texts(), strict=True))
        if all(word in text for word in words)
    ]
    if hits:
        return [entries()[position] for _rank_, position in sorted(hits)[:limit]]
    return _similar(" ".join(words), limit)


def names() -> Iterable[str]:
    """Return every id that can be typed, for completion."""
    return dict.fromkeys(entry.id for entry in entries())


def _resolve_folder(name: str, folder: Path, revision: str | None) -> RepoReference:
    if (folder / "config.json").is_file():
        return RepoReference(name, local_path=folder.resolve())
    known = _find_by_id(name)
    if known is not None and not _looks_like_path(name, parent_counts=False):
        # A folder that only happens to be called like a known model.
        return RepoReference(
            name, "model", known.modelscope_id, known.huggingface_id, revision=revision
        )
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            _("The folder {path} holds an adapter, not a model.", path=name),
            _("It has adapter_config.json and no config.json."),
            _("Give it with --adapters {path}.", path=name),
        )
    trained = _trained_model(folder)
    if trained is not None:
        return RepoReference(name, local_path=trained)
    raise UserError(
        _("The folder {path} has no config.json.", path=name),
        _("A model's folder has config.json beside its weights."),
    )


def _trained_model(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run that trained all weights."""
    found = [e for e in checkpoints.numbered(folder) if (e / "config.json").is_file()]
    return found[-1].resolve() if found else None


def _existing_folder(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if path.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _looks_like_path(name: str, parent_counts: bool = True) -> bool:
    if name.startswith((".", "/", "~", "\\")) or name.endswith(("/", "\\")) or "\\" in name:
        return True
    if Path(name).is_absolute() or name.count("/") > 1:
        return True
    if not parent_counts or "/" not in name:
        return False
    return _existing_folder(name.rpartition("/")[0]) is not None


@functools.cache
def _by_id() -> dict[str, CatalogueEntry]:
    index: dict[str, CatalogueEntry] = {}
    # A name that both hubs use for different models means ModelScope's.
    for field in ("modelscope_id", "huggingface_id"):
        for entry in entries():
            repo_id = getattr(entry, field)
            if repo_id:
                index.setdefault(repo_id.lower(), entry)
    return index


@functools.cache
def _by_last_part() -> dict[str, tuple[CatalogueEntry, ...]]:
    index: dict[str, dict[tuple[str | None, str | None], CatalogueEntry]] = {}
    for entry in entries():
        for repo_id in (entry.modelscope_id, entry.huggingface_id):
            if repo_id:
                last = repo_id.rpartition("/")[2].lower()
                key = (entry.modelscope_id, entry.huggingface_id)
                index.setdefault(last, {}).setdefault(key, entry)
    return {last: tuple(found.values()) for last, found in index.items()}


def _find_by_id(name: str) -> CatalogueEntry | None:
    return _by_id().get(name.lower())


def _find_by_last_part(name: str) -> CatalogueEntry | None:
    found = _by_last_part().get(name.lower(), ())
    if len(found) > 1:
        raise UserError(
            _("Several models are called '{name}'.", name=name),
            _("They are {names}.", names=", ".join(entry.id for entry in found)),
            _("Type the whole id."),
        )
    return found[0] if found else None


def _unknown(name: str) -> UserError:
    alike = nearest(name, [*KNOWN_PACKAGES, *_by_last_part(), *_by_id()])
    shown = [_display(text) for text in alike] or [entry.id for entry in _similar(name.lower(), 3)]
    why = _("Did you mean {names}?", names=", ".join(dict.fromkeys(shown))) if shown else ""
    return UserError(
        _("No model is called '{name}'.", name=name),
        why,
        _("Type %swift models <query> to search, or give the whole id as owner/name."),
    )


def _display(text: str) -> str:
    found = _by_last_part().get(text) or ((_by_id()[text],) if text in _by_id() else ())
    return found[0].id if found else text


@functools.cache
def _search_texts() -> tuple[str, ...]:
    return tuple(
        " ".join((entry.id, entry.huggingface_id or "", entry.model_type)).lower()
        for entry in entries()
    )


def _rank(entry: CatalogueEntry, words: Sequence[str]) -> tuple[int, int]:
    """Rank hits at the start of the name first, then the shorter names."""
    last = entry.id.rpartition("/")[2].lower()
    starts = last.startswith(words[0])
    inside = all(word in last for word in words)
    return (0 if starts and inside else 1 if inside else 2), len(entry.id)


@functools.cache
def _trigram_sets() -> tuple[frozenset[str], ...]:
    return tuple(_trigrams(entry.id.rpartition("/")[2].lower()) for entry in entries())


def _trigrams(text: str) -> frozenset[str]:
    padded = f"  {re.sub(r'[^a-z0-9]+', ' ', text)} "
    return frozenset(padded[start : start + 3] for start in range(len(padded) - 2))


def _similar(query: str, limit: int) -> list[CatalogueEntry]:
    wanted = _trigrams(query.rpartition("/")[2])
    scored = []
    for position, grams in enumerate(_trigram_sets()):
        common = len(wanted & grams)
        similarity = 2 * common / (len(wanted) + len(grams))
        if similarity >= LEAST_SIMILARITY:
            scored.append((-similarity, position))
    return [entries()[position] for _score, position in sorted(scored)[:limit]]
