"""What commands return: one line of text, a table for the notebook, plain values."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


class Result:
    """Base of all results.

    Notes
    -----
    A result that was already shown while its command ran (a chart, a streamed
    answer) sets `shown`, and the cell does not show it a second time. The magic
    clears the mark when the cell ends.
    """

    shown = False

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        raise NotImplementedError

    def text(self) -> str:
        """Return what a terminal shows."""
        return repr(self)

    def html(self) -> str:
        """Return what a notebook shows, with every foreign text escaped."""
        return f"<pre>{html.escape(self.text())}</pre>"

    def _ipython_display_(self) -> None:
        if not self.shown:
            # IPython then goes on to the other representations.
            raise NotImplementedError

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}


@dataclass(eq=False)
class Table(Result):
    """Rows under column names.

    Parameters
    ----------
    columns : sequence of str
        The keys of the rows, in the order shown.
    rows : sequence of mapping
        Plain values.
    title : str
        One line above.
    note : str
        Lines below: what to type next.
    data : mapping
        What `to_dict` adds.
    """

    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    note: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Any:
        return iter(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.rows[index]

    def __repr__(self) -> str:
        return f"<{self.title or 'table'}: {len(self.rows)} rows>"

    def to_dict(self) -> dict[str, Any]:
        """Return the rows and what else is known."""
        return {"rows": [dict(row) for row in self.rows], **self.data}

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a DataFrame."""
        import pandas

        frame: pandas.DataFrame = pandas.DataFrame([dict(row) for row in self.rows])
        return frame

    def text(self) -> str:
        """Return aligned columns."""
        head = [name.replace("_", " ") for name in self.columns]
        body = [[_cell(row.get(name)) for name in self.columns] for row in self.rows]
        widths = [max(columns_of(line[i]) for line in [head, *body]) for i in range(len(head))]
        lines = [
            "  ".join(_pad(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in ([head, *body] if body else [])
        ]
        return "\n".join([part for part in (self.title, *lines, self.note) if part])

    def html(self) -> str:
        """Return a table."""
        parts = [f"<div><strong>{html.escape(self.title)}</strong></div>"] if self.title else []
        if self.rows:
            head = "".join(f"<th>{html.escape(n.replace('_', ' '))}</th>" for n in self.columns)
            body = "".join(f"<tr>{self._html_row(row)}</tr>" for row in self.rows)
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        if self.note:
            parts.append(f"<pre>{html.escape(self.note)}</pre>")
        return "".join(parts)

    def _html_row(self, row: Mapping[str, Any]) -> str:
        cells = (html.escape(_cell(row.get(name))) for name in self.columns)
        return "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells)


@dataclass(eq=False)
class Facts(Result):
    """A few named facts about one thing.

    Parameters
    ----------
    title : str
        One line above.
    facts : mapping
        What is shown, by its label.
    data : mapping
        What `to_dict` returns; also reachable as attributes.
    note : str
        Lines below: what to type next.
    body : str
        Foreign text, shown as it is between the facts and the note.
    """

    title: str
    facts: Mapping[str, Any]
    data: Mapping[str, Any]
    note: str = ""
    body: str = ""

    def __getattr__(self, name: str) -> Any:
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"<{self.title}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values."""
        return dict(self.data)

    def text(self) -> str:
        """Return one fact a line."""
        width = max((columns_of(label) for label in self.facts), default=0)
        lines = [f"{_pad(label, width)}  {_cell(value)}" for label, value in self.facts.items()]
        return "\n".join([part for part in (self.title, *lines, self.body, self.note) if part])

    def html(self) -> str:
        """Return a small table."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(label)}</th>'
            f'<td style="text-align:left">{html.escape(_cell(value))}</td></tr>'
            for label, value in self.facts.items()
        )
        table = f"<table><tbody>{rows}</tbody></table>" if rows else ""
        blocks = [f"<pre>{html.escape(text)}</pre>" for text in (self.body, self.note) if text]
        title = f"<div><strong>{html.escape(self.title)}</strong></div>"
        return "".join([title, table, *blocks])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("\n", " ")


def columns_of(text: str) -> int:
    """Return how many columns a terminal needs: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - columns_of(text))


def duration_text(seconds: float) -> str:
    """Return a time in words, such as ``2 min 5 s``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
