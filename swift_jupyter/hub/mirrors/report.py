"""A report about an address that does not work, ready to be filed with who runs it."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from swift_jupyter.hub.mirrors.health import EndpointHealth
from swift_jupyter.hub.mirrors.mirror import Mirror
from swift_jupyter.hub.mirrors.probe import ProbeResult
from swift_jupyter.i18n import translate as _

_VERSIONED = ("swift_jupyter", "urllib3")
_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


def write_report(
    mirror: Mirror,
    results: Sequence[ProbeResult],
    health: EndpointHealth,
    environ: Mapping[str, str],
    *,
    now: float | None = None,
) -> str:
    """Return a report in Markdown: what was tried, when, and what came of it.

    Parameters
    ----------
    mirror : Mirror
        The entry.
    results : sequence of ProbeResult
        What it answered just now, one for each protocol it speaks.
    health : EndpointHealth
        What is known from before.
    environ : mapping
        Environment variables: whether a proxy is in between. Its address is not told.
    now : float, optional
        The present time, seconds since 1970.

    Notes
    -----
    Nothing of the user is in it: no token, no user name, no path of this machine.
    """
    now = time.time() if now is None else now
    works = bool(results) and all(result.state == "good" for result in results)
    lines = [
        f"## {mirror.name} {'works' if works else 'does not work'}",
        "",
        f"- Address: {mirror.url}",
        f"- Protocols: {', '.join(mirror.hubs)}",
        f"- Tested: {_moment(now)}",
        f"- Last success: {_moment(health.last_success)}",
        f"- Last failure: {_moment(health.last_failure)}",
    ]
    if health.reason:
        lines.append(f"- Last error: {_one_line(health.reason)}")
    lines += ["", "### What was tried", ""]
    for result in results:
        lines.append(f"{result.endpoint.hub}:")
        lines.append("")
        lines += [f"1. {_one_line(what)}: {_one_line(came)}" for what, came in result.steps]
        lines.append("")
    lines += ["### Where", "", *_where(environ), ""]
    return redact_user("\n".join(lines), environ)


def _moment(seconds: float) -> str:
    if not seconds:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _where(environ: Mapping[str, str]) -> list[str]:
    proxied = any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES)
    lines = [
        f"- Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"- Through a proxy: {'yes' if proxied else 'no'}",
    ]
    for name in _VERSIONED:
        try:
            lines.append(f"- {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return lines


def redact_user(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` without the user's home, the user's name, and logins inside addresses."""
    text = re.sub(r"(://)[^/@\s]+@", r"\1", text)
    home = environ.get("HOME") or str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    for name in ("USER", "USERNAME", "LOGNAME"):
        user = environ.get(name, "")
        if len(user) > 2 and user != "root":
            text = re.sub(rf"\b{re.escape(user)}\b", _("(user)"), text)
    return text
