"""Who may ask a node."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

from swift_jupyter.errors import OptionError
from swift_jupyter.files import write_bytes_atomically
from swift_jupyter.hub.node.exchange import Exchange
from swift_jupyter.hub.tokens import Secret, clean_token
from swift_jupyter.i18n import translate as _

COOKIE = "m_session_id"
TOKEN_VARIABLE = "SWIFT_JUPYTER_MIRROR_TOKEN"


def is_loopback(host: str) -> bool:
    """Tell whether a host to bind to is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: Secret | None, is_open: bool) -> None:
    """Refuse to serve others without a token, unless that is what is wanted.

    Raises
    ------
    OptionError
        When it is not.
    """
    if is_loopback(host) or token or is_open:
        return
    raise OptionError(
        _("Other machines could reach {host} without a token.", host=host),
        _("Whoever can reach the node could read every model that it holds."),
        _("Give --token TEXT, or --open when that is what you want."),
    )


def given_token(text: str, environ: Mapping[str, str]) -> Secret | None:
    """Return the token that clients have to show: as given, or from the environment.

    Raises
    ------
    OptionError
        For a text that cannot be sent in a header.
    """
    text = text or environ.get(TOKEN_VARIABLE, "")
    if not text:
        return None
    token = clean_token(text)
    if token is None or any(character in text.strip() for character in ' ";,'):
        raise OptionError(
            _("This token cannot be used."),
            _("It has to be plain letters, digits and signs without blanks, quotes, , and ;"),
        )
    return token


def token_file(root: Path, port: int) -> Path:
    """Return where the token of a node in the background is kept."""
    return root / "node" / "tokens" / str(port)


def keep_token(token: Secret, file: Path) -> None:
    """Keep a token where only the user can read it.

    A run's folder must not hold it, and a list of processes must not show it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(file, token.reveal().encode() + b"\n", private=True)


def read_token(file: Path) -> Secret | None:
    """Return a kept token, or None when it is gone."""
    try:
        return clean_token(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


class Guard:
    """Decides whether an exchange may be answered.

    Parameters
    ----------
    token : Secret or None
        What clients have to show; None lets everybody in.
    local_only : bool
        Whether the node is for this machine alone, so that a page of some web site
        whose name leads here must not read it.
    """

    def __init__(self, token: Secret | None, local_only: bool) -> None:
        self._token = token
        self._local_only = local_only and token is None

    def refusal(self, exchange: Exchange, query_token: str | None) -> tuple[int, str] | None:
        """Return the status and the reason when an exchange is not to be answered.

        Parameters
        ----------
        exchange : Exchange
            The request.
        query_token : str or None
            A token from the address, which counts for the status page only.
        """
        if self._local_only and not _names_this_machine(exchange.headers.get("Host", "")):
            return 403, _("this node serves its own machine only")
        if self._token is None or any(map(self._fits, _shown_tokens(exchange, query_token))):
            return None
        return 401, _("this node asks for a token")

    def _fits(self, text: str) -> bool:
        assert self._token is not None
        shown = text.encode(errors="replace")
        return hmac.compare_digest(shown, self._token.reveal().encode())


def _shown_tokens(exchange: Exchange, query_token: str | None) -> list[str]:
    found = [query_token] if query_token else []
    scheme, _blank, value = exchange.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        found.append(value.strip())
    try:
        cookies = SimpleCookie(exchange.headers.get("Cookie", ""))
    except CookieError:
        return found
    if COOKIE in cookies:
        found.append(cookies[COOKIE].value)
    return found


def _names_this_machine(host: str) -> bool:
    """Tell whether a ``Host`` is an address or a name without a domain."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if not name or "." not in name or name.endswith((".localhost", ".local")):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
