"""Data sets: what to read, how rows look, and how they become tokens and labels."""

from swift_jupyter.engine.data.collation import Collator, collate
from swift_jupyter.engine.data.encoding import EncodingOptions, encode
from swift_jupyter.engine.data.options import DataOptions
from swift_jupyter.engine.data.pipeline import prepare
from swift_jupyter.engine.data.prepared import PreparedData
from swift_jupyter.engine.data.preview import TokenPiece, preview
from swift_jupyter.engine.data.records import spool
from swift_jupyter.engine.data.rows import IGNORED_LABEL, EncodedRow, Origin
from swift_jupyter.engine.data.spec import DatasetSpec, parse_spec

__all__ = [
    "IGNORED_LABEL",
    "Collator",
    "DataOptions",
    "DatasetSpec",
    "EncodedRow",
    "EncodingOptions",
    "Origin",
    "PreparedData",
    "TokenPiece",
    "collate",
    "encode",
    "parse_spec",
    "prepare",
    "preview",
    "spool",
]
