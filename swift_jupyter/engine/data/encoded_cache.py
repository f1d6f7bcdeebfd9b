"""Encoded rows on the disk, so that the same data are not encoded twice.

An entry is named by everything that its rows depend on: the content of the data
files, the tokenizer's files, the chat template and the options.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from swift_jupyter.engine.data.chat_template import ChatTemplate
from swift_jupyter.engine.data.encoding import EncodingOptions
from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.data.packed import PackedRows
from swift_jupyter.engine.data.prepared import PreparedData
from swift_jupyter.engine.data.reading import one_by_one
from swift_jupyter.engine.data.records import is_object_dataset
from swift_jupyter.engine.data.rows import Origin, RowProblem
from swift_jupyter.engine.data.sources import PullReport, files_of
from swift_jupyter.engine.data.spec import parse_spec
from swift_jupyter.files import write_json_atomically
from swift_jupyter.hub.cache.verify import file_sha256
from swift_jupyter.settings import Settings

# To be raised with every change of what is encoded from the same input.
VERSION = 1
# Fewer rows are encoded in a moment, and would only litter the cache.
LEAST_ROWS = 1000
LARGEST_CACHE = 8 * 2**30  # Bytes of all entries; the ones not used for longest go first.
_META = "meta.json"
_NUMBERS = (
    "notices",
    "max_length",
    "rows_read",
    "rows_bad",
    "rows_too_long",
    "rows_truncated",
    "rows_unlabelled",
)
_TOKENIZER_FILES = ("tokenizer*", "*token*.json", "vocab*", "merges.txt", "*.model", "*.jinja")


@dataclass(frozen=True)
class EncodedCache:
    """The place of the rows that certain data, options and tokenizer give.

    Parameters
    ----------
    folder : Path
        The entry's folder, which may not exist.
    """

    folder: Path

    @classmethod
    def of(
        cls,
        options: DataOptions,
        encoding: EncodingOptions,
        template: ChatTemplate,
        settings: Settings,
        report: PullReport | None = None,
    ) -> EncodedCache | None:
        """Return where the rows belong, or None when they are not to be kept.

        Rows from Python objects and tokenizers made in memory have no files whose
        content could be compared.

        Raises
        ------
        UserError
            When a data set does not exist or cannot be pulled.
        """
        tokenizer = _tokenizer_hashes(template.tokenizer)
        given = [*one_by_one(options.dataset), *one_by_one(options.val_dataset)]
        if tokenizer is None or any(is_object_dataset(dataset) for dataset in given):
            return None
        try:
            files = [
                [str(path), file_sha256(path)]
                for dataset in given
                for path in files_of(parse_spec(str(dataset)), settings, report)
            ]
        except OSError:
            return None  # Reading the rows will say what is wrong.
        identity = {
            "version": VERSION,
            "libraries": [metadata.version(name) for name in ("transformers", "tokenizers")],
            "options": dataclasses.asdict(options),
            "encoding": dataclasses.asdict(encoding),
            "template": template.source,
            "tokenizer": tokenizer,
            "files": files,
        }
        text = json.dumps(identity, sort_keys=True, default=str)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return cls(settings.cache_path / "encoded" / name)

    def load(self) -> PreparedData | None:
        """Return the rows, mapped from the disk; None when they are not there or damaged."""
        try:
            meta = json.loads((self.folder / _META).read_text(encoding="utf-8"))
            rows = PackedRows.load(self.folder, meta["sources"])
            count = int(meta["train_rows"])
            prepared = PreparedData(
                train=rows[:count],
                val=rows[count:],
                rejects=[
                    RowProblem(Origin(**row["origin"]), row["reason"], row["content"])
                    for row in meta["rejects"]
                ],
                from_cache=True,
                **{name: meta[name] for name in _NUMBERS},
            )
            os.utime(self.folder)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return prepared

    def store(self, prepared: PreparedData) -> None:
        """Keep the rows; a cache that cannot be written is no reason to fail."""
        if len(prepared.train) + len(prepared.val) < LEAST_ROWS:
            return
        with contextlib.suppress(OSError):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".", dir=self.folder.parent))
            try:
                self._write(prepared, staging)
                shutil.rmtree(self.folder, ignore_errors=True)
                staging.rename(self.folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            _make_room(self.folder.parent, self.folder)

    def _write(self, prepared: PreparedData, folder: Path) -> None:
        import numpy as np

        train, val = prepared.train, prepared.val
        both = dataclasses.replace(train, order=np.concatenate([train.order, val.order]))
        meta: dict[str, Any] = {name: getattr(prepared, name) for name in _NUMBERS}
        meta["sources"] = both.save(folder)
        meta["train_rows"] = len(train)
        meta["rejects"] = [dataclasses.asdict(problem) for problem in prepared.rejects]
        write_json_atomically(folder / _META, meta)


def _tokenizer_hashes(tokenizer: Any) -> list[list[str]] | None:
    folder = Path(str(getattr(tokenizer, "name_or_path", "")))
    if not folder.is_dir():
        return None
    files = sorted({path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)})
    try:
        hashes = [[path.name, file_sha256(path)] for path in files if path.is_file()]
    except OSError:
        return None
    return hashes or None


def _make_room(root: Path, newest: Path) -> None:
    """Remove the entries that were not used for longest while all take too much."""
    entries = []
    for folder in root.iterdir():
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        entries.append((folder.stat().st_mtime, size, folder))
    total = sum(size for _used, size, _folder in entries)
    day_ago = time.time() - 86400
    for used, size, folder in sorted(entries, key=lambda entry: entry[0]):
        abandoned = folder.name.startswith(".") and used < day_ago
        if folder != newest and (total > LARGEST_CACHE or abandoned):
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
