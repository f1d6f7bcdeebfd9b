"""A line of a magic, split into words."""

from __future__ import annotations

import re

# A quoted text, an escaped space or quote, or any one character.
_PIECE = re.compile(
    r"""(?P<space>\s+) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)'
    | \\(?P<escaped>[\s"']) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def split_line(line: str) -> list[str]:
    """Split a line into words, much as a shell does.

    Three things differ, since lines hold prose, Python and paths: a single quote
    quotes only at the start of a word or value, so that ``what's`` is a word; what
    stands in braces there stays together with its quotes, as in
    ``{frames["train"]}`` or JSON; a backslash escapes only spaces and quotes. A
    quote or brace that is never closed is only a character.
    """
    words: list[str] = []
    inside, place = False, 0
    while place < len(line):
        at_start = not inside or words[-1].endswith("=")
        text, place = _piece(line, place, at_start)
        if text is None:
            inside = False
        elif inside:
            words[-1] += text
        else:
            words.append(text)
            inside = True
    return words


def _piece(line: str, place: int, at_start: bool) -> tuple[str | None, int]:
    """Return the next part of a word, or None for a gap, and where it ends."""
    if line[place] == "{" and at_start and (end := _after_braces(line, place)):
        return line[place:end], end
    if line[place] == "'" and not at_start:
        return "'", place + 1
    match = _PIECE.match(line, place)
    assert match is not None  # The last alternative takes any character.
    if match["space"]:
        return None, match.end()
    if match["double"] is not None:
        return re.sub(r'\\(["\\])', r"\1", match["double"]), match.end()
    return match[str(match.lastgroup)], match.end()


def _after_braces(line: str, start: int) -> int:
    """Return the place behind the brace that closes the one at `start`; 0 without one."""
    depth = 0
    for place in range(start, len(line)):
        depth += {"{": 1, "}": -1}.get(line[place], 0)
        if depth == 0:
            return place + 1
    return 0
