"""How encoded rows look: every token coloured by its role, underlined where it is trained."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from swift_jupyter.commands.results import Result
from swift_jupyter.engine.data.sample import Sample, SampleToken
from swift_jupyter.engine.data.statistics import Histogram
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    import pandas

# Thin colours over the page's own background, so that they suit a dark one, too.
_COLOURS = {
    "system": "128,128,128",
    "template": "128,128,128",
    "user": "30,120,230",
    "assistant": "20,160,90",
    "tool": "230,130,20",
    "tool_call": "200,60,160",
    "tool_response": "230,130,20",
}
_OTHER = "150,110,60"
_TRAINED = "20,160,90"
_MOST_TOKENS = 2000
_BLOCKS = "▁▂▃▄▅▆▇█"


class TokenView(Result):
    """Encoded rows, and the numbers of the whole data set.

    Parameters
    ----------
    title : str
        The data set and the model.
    samples : sequence of Sample
        The rows that are shown.
    lengths : sequence of int
        The lengths of all rows that are trained, in tokens.
    facts : mapping
        What is said about the data set, by its label.
    data : mapping
        The same as plain values.
    bins : Histogram
        Of `lengths`.
    notices : sequence of str
        What was left out, and why.
    """

    def __init__(
        self,
        title: str,
        samples: Sequence[Sample],
        lengths: Sequence[int],
        facts: Mapping[str, str],
        data: Mapping[str, Any],
        bins: Histogram,
        notices: Sequence[str] = (),
    ) -> None:
        self.title = title
        self.samples = list(samples)
        self.lengths = list(lengths)
        self.facts = dict(facts)
        self.statistics = dict(data)
        self.histogram = bins
        self.notices = list(notices)

    def __repr__(self) -> str:
        return f"<{self.title}: {len(self.lengths)} rows>"

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics, the lengths and the tokens of the shown rows."""
        return {
            **self.statistics,
            "lengths": self.lengths,
            "samples": [sample.to_dict() for sample in self.samples],
            "notices": self.notices,
        }

    def to_pandas(self) -> pandas.DataFrame:
        """Return the tokens of the shown rows as a DataFrame, one row a token."""
        import pandas

        frame: pandas.DataFrame = pandas.DataFrame(
            [
                {"sample": number, "position": position, **vars(token)}
                for number, sample in enumerate(self.samples)
                for position, token in enumerate(sample.tokens)
            ]
        )
        return frame

    def text(self) -> str:
        """Return the rows with ``[[`` and ``]]`` around what is trained."""
        lines = [self.title]
        lines += [f"  {label}: {value}" for label, value in self.facts.items()]
        lines += [f"  {_bars(self.histogram)}", *self.notices]
        for sample in self.samples:
            lines += ["", _heading(sample), _marked(sample.tokens)]
        if self.samples:
            lines += ["", _("[[ ]] stands around what is trained.")]
        return "\n".join(lines)

    def html(self) -> str:
        """Return the rows in colours."""
        facts = "".join(
            '<span style="margin-right:1.6em;display:inline-block">'
            f'<span style="opacity:.65">{html.escape(label)}</span> '
            f"<b>{html.escape(value)}</b></span>"
            for label, value in self.facts.items()
        )
        chart = _histogram_svg(self.histogram)
        notices = "".join(f'<div style="opacity:.8">⚠ {html.escape(n)}</div>' for n in self.notices)
        samples = "".join(_sample_html(sample) for sample in self.samples)
        return (
            f'<div style="max-width:900px"><div><strong>{html.escape(self.title)}</strong></div>'
            f'<div style="margin:.4em 0;line-height:1.9">{facts}</div>'
            f"{chart}{notices}{_legend(self.samples)}{samples}</div>"
        )


def _heading(sample: Sample) -> str:
    share = sample.trained / sample.length if sample.length else 0
    text = _(
        "{origin} · {length} tokens, {trained} trained ({share})",
        origin=sample.origin,
        length=sample.length,
        trained=sample.trained,
        share=f"{share:.0%}",
    )
    return text + (_(" · cut") if sample.cut else "")


def _marked(tokens: Sequence[SampleToken]) -> str:
    parts, inside = [], False
    for token in tokens[:_MOST_TOKENS]:
        if token.trained != inside:
            parts.append("[[" if token.trained else "]]")
            inside = token.trained
        parts.append(token.text)
    parts.append("]]" if inside else "")
    return "".join(parts) + _more(tokens)


def _more(tokens: Sequence[SampleToken]) -> str:
    hidden = len(tokens) - _MOST_TOKENS
    return _(" … and {count} more", count=hidden) if hidden > 0 else ""


def _bars(bins: Histogram) -> str:
    most = max(bins.counts, default=0)
    if not most:
        return ""
    bars = "".join(_BLOCKS[round((len(_BLOCKS) - 1) * n / most)] if n else " " for n in bins.counts)
    end = bins.start + bins.width * len(bins.counts)
    return f"{bins.start} |{bars}| {end}"


def _sample_html(sample: Sample) -> str:
    tokens = "".join(_token_html(token) for token in sample.tokens[:_MOST_TOKENS])
    return (
        f'<details open style="margin:.6em 0"><summary>{html.escape(_heading(sample))}</summary>'
        '<div style="font-family:monospace;line-height:1.75;white-space:pre-wrap;'
        'overflow-wrap:anywhere;padding:.4em .2em">'
        f"{tokens}{html.escape(_more(sample.tokens))}</div></details>"
    )


def _token_html(token: SampleToken) -> str:
    colour = _COLOURS.get(token.role, _OTHER)
    strength = 0.34 if token.trained else 0.14
    style = f"background:rgba({colour},{strength});border-radius:3px;margin-right:1px"
    if token.trained:
        style += f";border-bottom:2px solid rgb({_TRAINED})"
    if token.special:
        style += f";outline:1px solid rgba({colour},.7);font-size:85%"
    state = _("trained") if token.trained else _("context")
    tip = f"{' '.join(map(str, token.ids))} · {token.role or '?'} · {state}"
    return f'<span style="{style}" title="{html.escape(tip)}">{_visible(token.text)}</span>'


def _visible(text: str) -> str:
    """Return a token's text, escaped, with its line ends and blanks to be seen."""
    faint = '<span style="opacity:.45">{}</span>'
    shown = html.escape(text).replace("\t", faint.format("⇥") + "\t")
    if text.strip(" ") == "" and text:
        return shown.replace(" ", faint.format("·"))
    return shown.replace("\n", faint.format("↵") + "\n")


def _legend(samples: Sequence[Sample]) -> str:
    roles = dict.fromkeys(token.role for sample in samples for token in sample.tokens)
    chips = "".join(
        f'<span style="background:rgba({_COLOURS.get(role, _OTHER)},.2);border-radius:3px;'
        f'padding:0 .5em;margin-right:.6em">{html.escape(role)}</span>'
        for role in roles
        if role
    )
    if not samples:
        return ""
    return (
        f'<div style="margin:.5em 0">{chips}'
        f'<span style="border-bottom:2px solid rgb({_TRAINED});margin-right:.6em">'
        f"{html.escape(_('underlined: trained'))}</span>"
        f'<span style="outline:1px solid rgba(128,128,128,.7);border-radius:3px;padding:0 .3em;'
        f'font-size:85%">{html.escape(_("outlined: special token"))}</span></div>'
    )


def _histogram_svg(bins: Histogram) -> str:
    """Return the lengths as bars, with the edges of every bar in its tip."""
    most = max(bins.counts, default=0)
    if not most:
        return ""
    step, height = 460 / len(bins.counts), 60
    bars = []
    for number, count in enumerate(bins.counts):
        low = bins.start + number * bins.width
        size = height * count / most
        tip = _(
            "{low} to {high} tokens: {count} rows",
            low=low,
            high=low + bins.width - 1,
            count=count,
        )
        bars.append(
            f'<rect x="{20 + number * step:.1f}" y="{height - size + 4:.1f}" '
            f'width="{max(step - 1, 1):.1f}" height="{size:.1f}" fill="rgb(30,120,230)" '
            f'fill-opacity=".55"><title>{html.escape(tip)}</title></rect>'
        )
    end = bins.start + bins.width * len(bins.counts)
    label = _("row length in tokens")
    return (
        f'<svg viewBox="0 0 500 86" width="500" height="86" role="img" '
        f'aria-label="{html.escape(label)}" style="max-width:100%">{"".join(bars)}'
        f'<line x1="20" y1="{height + 4}" x2="480" y2="{height + 4}" stroke="currentColor" '
        'stroke-opacity=".4"/><g font-size="11" fill="currentColor" fill-opacity=".75">'
        f'<text x="20" y="80">{bins.start}</text>'
        f'<text x="250" y="80" text-anchor="middle">{html.escape(label)}</text>'
        f'<text x="480" y="80" text-anchor="end">{end}</text></g></svg>'
    )
