"""A quick look whether an address answers, before a patient client is sent there."""

from __future__ import annotations

import ssl
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from swift_jupyter.hub.transfer.channel import TransferFailed
from swift_jupyter.i18n import translate as _

PROBE_SECONDS = 5.0
# Resolving a name ignores time limits of sockets, hence the second limit.
DEADLINE_SECONDS = 10.0


class _KeepRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        return None


def check_reachable(endpoint: str) -> None:
    """Return when `endpoint` gives any HTTP answer, an error included.

    Raises
    ------
    TransferFailed
        With trouble ``unreachable`` when there is none within seconds.
    """
    outcome: list[str | None] = []
    thread = threading.Thread(target=lambda: outcome.append(_probe(endpoint)), daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    problem = outcome[0] if outcome else _("no answer within {seconds} s", seconds=DEADLINE_SECONDS)
    if problem is not None:
        host = urlsplit(endpoint).hostname or endpoint
        raise TransferFailed(
            _("{host} cannot be reached ({problem})", host=host, problem=problem), "unreachable"
        )


def _without_password(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _probe(endpoint: str) -> str | None:
    opener = urllib.request.build_opener(_KeepRedirects)
    try:
        # An answer that asks for a password is an answer, so none is sent.
        request = urllib.request.Request(_without_password(endpoint) + "/", method="HEAD")
        opener.open(request, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return None  # It answers; the client may know the certificate.
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    except Exception as error:  # http.client speaks up for answers that are no HTTP.
        return type(error).__name__
    return None
