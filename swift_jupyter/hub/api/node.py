"""What only mirror nodes of our own can tell: the hashes of a file's pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swift_jupyter.hub.api.asking import Asker
from swift_jupyter.hub.api.base import Endpoint
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.http.errors import HttpError

# A node hashes a large file at the first question, which takes it some seconds.
_SECONDS = 60.0
_MOST_PIECES = 1 << 20

PieceHashes = Callable[[str], "tuple[int, list[str]] | None"]


def piece_hashes(endpoints: Sequence[Endpoint], client: Client) -> PieceHashes | None:
    """Return what asks the nodes among `endpoints` for hashes of pieces.

    Parameters
    ----------
    endpoints : sequence of Endpoint
        All addresses of a pull.
    client : Client
        The connections.

    Returns
    -------
    callable or None
        Takes the SHA-256 of a file and returns the length of its pieces in bytes and
        the SHA-256 of each, or None when no node knows. It is None itself without nodes.
    """
    nodes = [endpoint for endpoint in endpoints if endpoint.is_node]
    if not nodes:
        return None

    def ask(sha256: str) -> tuple[int, list[str]] | None:
        for node in nodes:
            try:
                known = _pieces(Asker(node, client, _SECONDS), node, sha256)
            except HttpError:
                continue
            if known is not None:
                return known
        return None

    return ask


def _pieces(asker: Asker, node: Endpoint, sha256: str) -> tuple[int, list[str]] | None:
    answer, _headers = asker.ask(f"{node.url}/_sj/v1/pieces/{sha256}")
    return _checked(answer)


def _checked(answer: Any) -> tuple[int, list[str]] | None:
    if not isinstance(answer, dict):
        return None
    size, hashes = answer.get("piece_size"), answer.get("sha256")
    if not isinstance(size, int) or size <= 0 or not isinstance(hashes, list):
        return None
    if len(hashes) > _MOST_PIECES or not all(isinstance(value, str) for value in hashes):
        return None
    return size, hashes
