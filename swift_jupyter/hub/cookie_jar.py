"""Reading one cookie out of a jar that ModelScope's client has pickled, without running it."""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import Any

_LARGEST_JAR = 1 << 20
# All that a jar consists of. Nothing of it is imported or called.
_PARTS = frozenset(
    {
        ("requests.cookies", "RequestsCookieJar"),
        ("http.cookiejar", "CookieJar"),
        ("http.cookiejar", "Cookie"),
        ("http.cookiejar", "DefaultCookiePolicy"),
    }
)


class _Values:
    """Stands for any object of a jar; holds its attributes and does nothing."""


class _JarReader(pickle.Unpickler):
    """Knows no class but `_Values`, so that a forged jar can neither import nor call anything."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _PARTS:
            raise pickle.UnpicklingError("not a cookie jar")
        return _Values

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("not a cookie jar")


def read_cookie(path: Path, name: str) -> str | None:
    """Return the value of the cookie `name`; None when it is absent or has expired.

    Parameters
    ----------
    path : Path
        The file that the client wrote, or anything else that lies there.
    name : str
        The cookie's name.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_JAR)
        jar = _JarReader(io.BytesIO(content)).load()
        cookies = [
            cookie
            for paths in vars(jar)["_cookies"].values()
            for by_name in paths.values()
            for cookie in by_name.values()
        ]
    # A file that is no jar fails in as many ways as there are files.
    except Exception:
        return None
    now = time.time()
    for cookie in cookies:
        values = vars(cookie) if isinstance(cookie, _Values) else {}
        expires, value = values.get("expires"), values.get("value")
        current = expires is None or (isinstance(expires, (int, float)) and expires > now)
        if values.get("name") == name and isinstance(value, str) and current:
            return value
    return None
