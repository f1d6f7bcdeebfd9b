"""The page that a node shows at its root: plain HTML, nothing from elsewhere, no scripts."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import Any

from swift_jupyter.files import size_text
from swift_jupyter.i18n import translate as _

REFRESH_SECONDS = 10
_SHOWN = 200
_STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--dim:#657085;--line:#e2e6ec;--accent:#2563eb;
--good:#15803d;--warn:#b45309;--track:#e8ebf0}
@media(prefers-color-scheme:dark){:root{--bg:#11151c;--card:#1a202a;--ink:#e6eaf1;--dim:#97a3b6;
--line:#2b3442;--accent:#6ea8fe;--good:#4ade80;--warn:#fbbf24;--track:#2b3442}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans","Noto Sans CJK SC",sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:32px 0 10px}
.top{display:flex;align-items:center;gap:12px;flex-wrap:wrap}
.dot{width:11px;height:11px;border-radius:50%;background:var(--good)}
.dim{color:var(--dim)}.small{font-size:13px}
.tag{border:1px solid var(--line);border-radius:99px;padding:1px 10px;font-size:12.5px;
color:var(--dim);background:var(--card);white-space:nowrap}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px;
margin-top:20px}
.tile,.card{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:14px 16px}.tile b{display:block;font-size:23px;line-height:1.25;
font-variant-numeric:tabular-nums}
.card{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:8px 14px;border-top:1px solid var(--line);white-space:nowrap;
vertical-align:top}
thead th{border-top:0;font-size:12.5px;font-weight:600;color:var(--dim)}
td.num,th.num{text-align:right;font-variant-numeric:tabular-nums}
td.name{white-space:normal;overflow-wrap:anywhere;min-width:190px}
.bar{width:120px;height:7px;border-radius:4px;background:var(--track);overflow:hidden;
display:inline-block;vertical-align:middle;margin-right:8px}
.bar i{display:block;height:100%;background:var(--accent)}
.bar.full i{background:var(--good)}
.ok{color:var(--good)}.part{color:var(--warn)}
code,pre{font:13px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{margin:0;padding:12px 16px;white-space:pre-wrap;overflow-wrap:anywhere;user-select:all}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:12px}
.two .card p{margin:12px 16px 0}
.empty{padding:16px;color:var(--dim)}
"""


def status_page(status: dict[str, Any], address: str) -> str:
    """Return the page.

    Parameters
    ----------
    status : dict
        What ``/_sj/v1/status`` gives.
    address : str
        Scheme, host and port as the client sees the node.
    """
    parts = [
        _head(status),
        _tiles(status),
        _section(_("What is held"), _held(status)),
        _section(_("Transfers under way"), _active(status)),
        _section(_("Clients"), _clients(status)),
        _section(_("Point a client here"), _how(status, address)),
    ]
    title = _text(_("Mirror node"))
    return (
        '<!doctype html><html><head><meta charset="utf-8">'
        f"<title>{title}</title>"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        f"<style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>"
    )


def _head(status: dict[str, Any]) -> str:
    tags = [
        _("fills on demand") if status["on_demand"] else _("serves what it holds"),
        _("asks for a token") if status["asks_token"] else _("no token needed"),
    ]
    if status["upstream"]:
        tags.append(_("upstream: {names}", names=", ".join(status["upstream"])))
    marks = "".join(f'<span class="tag">{_text(tag)}</span>' for tag in tags)
    since = _("running for {time}", time=_ago(status["started"]))
    return (
        f'<div class="top"><span class="dot" title="{_text(_("running"))}"></span>'
        f"<h1>{_text(_('Mirror node'))}</h1>{marks}</div>"
        f'<div class="dim small">swift-jupyter {_text(status["version"])} · {_text(since)} · '
        f"{_text(status['root'])}</div>"
    )


def _tiles(status: dict[str, Any]) -> str:
    asked = status["hits"] + status["fills"]
    rate = f"{status['hits'] / asked:.0%}" if asked else "–"
    tiles = [
        (
            size_text(status["bytes_held"]),
            _("held in {count} repositories", count=len(status["held"])),
        ),
        (size_text(status["bytes_served"]), _("served")),
        (size_text(status["bytes_saved"]), _("saved against upstream")),
        (size_text(status["bytes_fetched"]), _("fetched from upstream")),
        (rate, _("of {count} file requests were hits", count=asked)),
        (size_text(status["bytes_free"]), _("free on the disk")),
    ]
    cells = "".join(
        f'<div class="tile"><b>{_text(value)}</b>'
        f'<span class="dim small">{_text(label)}</span></div>'
        for value, label in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _held(status: dict[str, Any]) -> str:
    rows = []
    for repo in status["held"][:_SHOWN]:
        share = repo["bytes_held"] / repo["bytes_total"] if repo["bytes_total"] else 1.0
        state = _("complete") if repo["complete"] else f"{repo['files_held']}/{repo['files']}"
        names = ", ".join(sorted(repo["revisions"])) or "–"
        more = _(" · {count} kept", count=repo["commits"]) if repo["commits"] > 1 else ""
        paired = (
            f'<div class="dim small">{_text(repo["paired_id"])}</div>' if repo["paired_id"] else ""
        )
        rows.append(
            (
                f'<td class="name"><b>{_text(repo["repo_id"])}</b>{paired}</td>',
                f"<td>{_text(_kind(repo['kind']))}</td>",
                f"<td>{_text(_hub(repo['hub']))}</td>",
                f'<td>{_bar(share)}<span class="{"ok" if repo["complete"] else "part"}">'
                f"{_text(state)}</span></td>",
                f'<td class="num">{_text(size_text(repo["bytes_held"]))}</td>',
                f"<td>{_text(names + more)}</td>",
                f"<td>{_text(_('{time} ago', time=_ago(repo['last_sync'])))}</td>",
            )
        )
    head = (
        _("name"),
        _("kind"),
        _("hub"),
        _("state"),
        "#" + _("size"),
        _("revisions"),
        _("synced"),
    )
    nothing = _("Nothing yet. Fill it: swift-jupyter mirror sync NAME")
    if status["on_demand"]:
        nothing = _("Nothing yet. It fills itself with what its clients ask for.")
    return _table(head, rows, nothing, len(status["held"]) - _SHOWN)


def _active(status: dict[str, Any]) -> str:
    rows = []
    for entry in status["active"][:_SHOWN]:
        share = entry["sent"] / entry["total"] if entry["total"] else 0.0
        sizes = f"{size_text(entry['sent'])} / {size_text(entry['total'])}"
        rows.append(
            (
                f"<td>{_text(entry['client'])}</td>",
                f'<td class="name">{_text(entry["repo_id"])} <span class="dim">'
                f"{_text(entry['path'])}</span></td>",
                f"<td>{_bar(share)}</td>",
                f'<td class="num">{_text(sizes)}</td>',
            )
        )
    for entry in status["filling"][:_SHOWN]:
        share = entry["done"] / entry["total"] if entry["total"] else 0.0
        sizes = f"{size_text(entry['done'])} / {size_text(entry['total'] or 0)}"
        rows.append(
            (
                f'<td class="part">{_text(_("from {source}", source=entry["source"] or "…"))}</td>',
                f'<td class="name">{_text(entry["path"])}</td>',
                f"<td>{_bar(share)}</td>",
                f'<td class="num">{_text(sizes)}</td>',
            )
        )
    return _table((_("client"), _("file"), "", "#"), rows, _("None at the moment."))


def _clients(status: dict[str, Any]) -> str:
    rows = [
        (
            f"<td>{_text(client['address'])}</td>",
            f"<td>{_text(client['program'])}</td>",
            f'<td class="num">{client["requests"]}</td>',
            f'<td class="num">{_text(size_text(client["bytes"]))}</td>',
            f"<td>{_text(_('{time} ago', time=_ago(client['last_seen'])))}</td>",
        )
        for client in status["clients"][:_SHOWN]
    ]
    head = (
        _("address"),
        _("program"),
        "#" + _("requests"),
        "#" + _("bytes"),
        _("last seen"),
    )
    return _table(head, rows, _("Nobody has asked yet."), len(status["clients"]) - _SHOWN)


def _how(status: dict[str, Any], address: str) -> str:
    cards = "".join(
        f'<div class="card"><p class="dim small">{_text(title)}</p>'
        f"<pre>{_text(chr(10).join(lines))}</pre></div>"
        for title, lines in exports(address, status["asks_token"])
    )
    return f'<div class="two">{cards}</div>'


def exports(address: str, asks_token: bool) -> list[tuple[str, list[str]]]:
    """Return the lines that point each client at a node, each group with its title."""
    modelscope = [f"export MODELSCOPE_ENDPOINT={address}"]
    huggingface = [f"export HF_ENDPOINT={address}"]
    ours = [f"swift-jupyter config set nodes {address}"]
    if asks_token:
        modelscope.append("export MODELSCOPE_API_TOKEN=…")
        huggingface.append("export HF_TOKEN=…")
        ours.append("swift-jupyter config set node_token …")
    return [
        (_("modelscope: snapshot_download, MsDataset"), modelscope),
        (_("huggingface_hub, transformers, datasets, vLLM"), huggingface),
        (_("swift_jupyter: %swift and the terminal"), ours),
    ]


def _section(title: str, body: str) -> str:
    return f"<h2>{_text(title)}</h2>{body}"


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], nothing: str, left_out: int = 0
) -> str:
    if not rows:
        return f'<div class="card"><div class="empty">{_text(nothing)}</div></div>'
    names = "".join(
        f'<th class="num">{_text(name[1:])}</th>'
        if name.startswith("#")
        else f"<th>{_text(name)}</th>"
        for name in head
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    if left_out > 0:
        more = _text(_("… and {count} more", count=left_out))
        body += f'<tr><td class="dim" colspan="{len(head)}">{more}</td></tr>'
    table = f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="card">{table}</div>'


def _bar(share: float) -> str:
    share = min(1.0, max(0.0, share))
    full = " full" if share == 1.0 else ""
    return f'<span class="bar{full}"><i style="width:{100 * share:.1f}%"></i></span>'


def _kind(kind: str) -> str:
    return _("model") if kind == "model" else _("data set")


def _hub(hub: str) -> str:
    return "ModelScope" if hub == "modelscope" else "Hugging Face"


def _ago(moment: float) -> str:
    seconds = max(0, round(time.time() - moment))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _text(value: object) -> str:
    """Return a foreign value as text that is safe inside elements and attributes."""
    return html.escape(str(value))
