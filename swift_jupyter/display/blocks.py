"""Small pieces of HTML that several views share; every text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable

BRAND = "var(--jp-brand-color1, #1976d2)"
GOOD = "var(--jp-success-color1, #388e3c)"
WARN = "var(--jp-warn-color1, #f57c00)"
BAD = "var(--jp-error-color1, #d32f2f)"
_TRACK = "var(--jp-border-color2, #ddd)"


def bar(share: float | None, colour: str = BRAND, max_width: str = "800px") -> str:
    """Return a bar that is filled by `share`, 0 to 1; None for an empty one."""
    width = f"{100 * min(1.0, max(0.0, share)):.1f}%" if share is not None else "0"
    return (
        f'<div style="height:6px;border-radius:3px;max-width:{max_width};background:{_TRACK}">'
        f'<div style="height:6px;border-radius:3px;width:{width};background:{colour}"></div></div>'
    )


def heading(text: str, colour: str = BRAND) -> str:
    """Return a line in bold."""
    return f'<div style="color:{colour};font-weight:600">{html.escape(text)}</div>'


def lines(texts: Iterable[str]) -> str:
    """Return each text as a line of its own."""
    return "".join(f'<div style="opacity:.85">{html.escape(text)}</div>' for text in texts)


def labelled(pairs: Iterable[tuple[str, str]]) -> str:
    """Return labels with their values, side by side."""
    return "".join(
        '<span style="display:inline-block;margin:2px 18px 2px 0">'
        f'<span style="opacity:.7">{html.escape(label)}</span> <b>{html.escape(value)}</b></span>'
        for label, value in pairs
    )


def table(rows: Iterable[str]) -> str:
    """Return rows, which are HTML already, as a small table without a head."""
    style = "font-size:90%;margin:4px 0;color:inherit"
    return f'<table style="{style}"><tbody>{"".join(rows)}</tbody></table>'
