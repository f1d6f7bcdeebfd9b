"""A bar chart without a library: an SVG for the notebook, characters for the terminal."""

from __future__ import annotations

import html
from collections.abc import Sequence

from swift_jupyter.commands.frontend import Bar
from swift_jupyter.commands.results import columns_of

_ROW, _LABEL, _LENGTH, _TEXT, _TOP = 22, 170, 320, 230, 28
_COLOUR, _INK, _TRACK = "#1976d2", "#888888", "#88888833"
_CHARACTERS = 30


def svg(title: str, bars: Sequence[Bar]) -> str:
    """Return the chart as SVG; its colours are readable on a light and on a dark page."""
    longest = max((bar.value for bar in bars), default=0.0)
    height = _TOP + _ROW * len(bars) + 6
    width = _LABEL + _LENGTH + _TEXT
    rows = "".join(_svg_row(number, bar, longest) for number, bar in enumerate(bars))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="12">'
        f"<title>{html.escape(title)}</title>"
        f'<text x="4" y="17" fill="{_INK}" font-weight="bold">{html.escape(title)}</text>'
        f"{rows}</svg>"
    )


def _svg_row(number: int, bar: Bar, longest: float) -> str:
    top = _TOP + number * _ROW
    length = _LENGTH * bar.value / longest if longest > 0 else 0.0
    if bar.value > 0:
        length = max(length, 2.0)
    text = f'y="{top + 12}" fill="{_INK}"'
    label = bar.label if len(bar.label) <= 24 else bar.label[:23] + "…"
    return (
        f'<text x="{_LABEL - 8}" {text} text-anchor="end">{html.escape(label)}</text>'
        f'<rect x="{_LABEL}" y="{top + 2}" width="{_LENGTH}" height="13" rx="3" fill="{_TRACK}"/>'
        f'<rect x="{_LABEL}" y="{top + 2}" width="{length:.1f}" height="13" rx="3" '
        f'fill="{_COLOUR}"/>'
        f'<text x="{_LABEL + _LENGTH + 8}" {text}>{html.escape(bar.text)}</text>'
    )


def text(title: str, bars: Sequence[Bar]) -> str:
    """Return the chart as lines of text."""
    longest = max((bar.value for bar in bars), default=0.0)
    width = max((columns_of(bar.label) for bar in bars), default=0)
    lines = [title]
    for bar in bars:
        count = round(_CHARACTERS * bar.value / longest) if longest > 0 else 0
        drawn = "█" * max(count, bar.value > 0)
        label = bar.label + " " * (width - columns_of(bar.label))
        lines.append(f"{label}  {drawn:<{_CHARACTERS}}  {bar.text}".rstrip())
    return "\n".join(lines)
