"""The user's tokens for both hubs: where they are kept, and a text that never shows itself."""

from __future__ import annotations

import configparser
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from swift_jupyter.hub.cookie_jar import read_cookie
from swift_jupyter.hub.listing import Hub

if TYPE_CHECKING:
    from swift_jupyter.settings import Settings

MASK = "***"
# Anything longer is not a token, and a line end would forge a header.
_LONGEST_TOKEN = 4096
_LARGEST_STORE = 1 << 20
_TRUE = frozenset(("1", "on", "yes", "true"))


class Secret:
    """A text that is only given to who asks for it by `reveal`.

    It shows as ``***`` wherever it is printed or formatted, and refuses to be
    pickled; JSON refuses it by itself.

    Parameters
    ----------
    value : str
        The text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, _specification: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: Any) -> Secret:
        return self

    def __reduce_ex__(self, _protocol: Any) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def clean_token(text: str | None) -> Secret | None:
    """Return `text` as a token, or None when it is empty or cannot be sent in a header."""
    text = (text or "").strip()
    if not text or len(text) > _LONGEST_TOKEN or not text.isascii() or not text.isprintable():
        return None
    return Secret(text)


def hub_token(hub: Hub, settings: Settings | None, environ: Mapping[str, str]) -> Secret | None:
    """Return the user's token for a hub, or None.

    Parameters
    ----------
    hub : {"modelscope", "huggingface"}
        The hub.
    settings : Settings, optional
        The preferences in force; a token there wins.
    environ : mapping
        The environment variables, then the place of the hub's login store.

    Notes
    -----
    Whether an address may see the token is decided where addresses are made.
    """
    given = clean_token(getattr(settings, f"{hub}_token", None)) if settings else None
    if given:
        return given
    return _modelscope_token(environ) if hub == "modelscope" else _huggingface_token(environ)


def redact(text: str, secrets: Iterable[Secret | None]) -> str:
    """Return `text` with every one of `secrets` masked."""
    for secret in secrets:
        if secret:
            text = text.replace(secret.reveal(), MASK)
    return text


def _modelscope_token(environ: Mapping[str, str]) -> Secret | None:
    if "MODELSCOPE_API_TOKEN" in environ:
        # An empty one says: no token, whatever the login store holds.
        return clean_token(environ["MODELSCOPE_API_TOKEN"])
    home = _folder(environ, "MODELSCOPE_HOME") or _home(environ) / ".modelscope"
    store = home / "credentials"
    # A login keeps its token in a cookie; older clients kept one for git as well.
    token = clean_token(read_cookie(store / "cookies", "m_session_id"))
    return token or clean_token(_read(store / "git_token"))


def _huggingface_token(environ: Mapping[str, str]) -> Secret | None:
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").lower() in _TRUE:
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        token = clean_token(environ.get(name))
        if token:
            return token
    cache = _folder(environ, "XDG_CACHE_HOME") or _home(environ) / ".cache"
    home = _folder(environ, "HF_HOME") or cache / "huggingface"
    path = _folder(environ, "HF_TOKEN_PATH") or home / "token"
    return clean_token(_read(path)) or _only_stored_token(path.with_name("stored_tokens"))


def _only_stored_token(path: Path) -> Secret | None:
    """Return the stored token when there is just one: among several nobody chose."""
    stored = configparser.ConfigParser(interpolation=None)
    try:
        stored.read_string(_read(path) or "")
    except configparser.Error:
        return None
    tokens = [stored.get(name, "hf_token", fallback=None) for name in stored.sections()]
    return clean_token(tokens[0]) if len(tokens) == 1 else None


def _read(path: Path) -> str | None:
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.read(_LARGEST_STORE)
    except (OSError, ValueError):
        return None


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or Path.home())


def _folder(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name, "").strip()
    if text == "~" or text.startswith(("~/", "~\\")):
        return _home(environ) / text[2:]
    return Path(text).absolute() if text else None
