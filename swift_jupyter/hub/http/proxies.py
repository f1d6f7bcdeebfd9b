"""Which proxy and which certificates the environment asks for."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit


class Proxies:
    """The proxies that the environment names.

    Parameters
    ----------
    environ : mapping
        ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy`` count,
        in lower case first, then in upper case.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        def value(name: str) -> str:
            return (environ.get(name) or environ.get(name.upper()) or "").strip()

        everything = value("all_proxy")
        self._by_scheme = {
            "http": value("http_proxy") or everything,
            "https": value("https_proxy") or everything,
        }
        self._exceptions = value("no_proxy")

    def proxy_for(self, url: str) -> str | None:
        """Return the address of the proxy for `url`, or None to go directly."""
        parts = urlsplit(url)
        proxy = self._by_scheme.get(parts.scheme)
        if not proxy or (self._exceptions and self._bypassed(parts.netloc)):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

    def _bypassed(self, place: str) -> bool:
        from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

        place = place.rpartition("@")[2]
        return bool(proxy_bypass_environment(place, {"no": self._exceptions}))


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return a verifying context with the certificates that `environ` names.

    ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE`` and ``SSL_CERT_FILE`` name a
    file (or folder) that replaces the usual ones, which are those of the
    system and of certifi, if that is installed.

    Raises
    ------
    OSError
        If the named file cannot be read.
    """
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        place = environ.get(name)
        if place:
            if Path(place).is_dir():
                return ssl.create_default_context(capath=place)
            return ssl.create_default_context(cafile=place)
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context
