"""The token of a ModelScope login is read; a forged jar runs nothing."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requests.cookies import RequestsCookieJar

from swift_jupyter.hub.cookie_jar import read_cookie
from swift_jupyter.hub.tokens import hub_token


def login(home: Path, token: str) -> None:
    """Log in as the unmodified client does."""
    from modelscope_hub.config import HubConfig

    os.environ["MODELSCOPE_HOME"] = str(home)
    try:
        HubConfig().save_token(token)
    finally:
        del os.environ["MODELSCOPE_HOME"]


def test_the_token_of_the_clients_own_login(tmp_path: Path) -> None:
    """Given a login by ModelScope's client, when a token is looked for, then it is found."""
    login(tmp_path, "ms-11111111-2222")

    token = hub_token("modelscope", None, {"MODELSCOPE_HOME": str(tmp_path)})
    assert token is not None and token.reveal() == "ms-11111111-2222"
    assert hub_token("huggingface", None, {"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize(("left", "expected"), [(None, "x"), (60, "x"), (-60, None)])
def test_only_a_cookie_that_counts(
    tmp_path: Path, protocol: int, left: int | None, expected: str | None
) -> None:
    """Given cookies, when one is read, then by its name and not after its end."""
    jar = RequestsCookieJar()
    jar.set("other", "y", domain="a", path="/")
    expires = None if left is None else int(time.time()) + left
    jar.set("m_session_id", "x", domain="b", path="/", expires=expires)
    path = tmp_path / "cookies"
    path.write_bytes(pickle.dumps(jar, protocol))

    assert read_cookie(path, "m_session_id") == expected


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_a_forged_jar_runs_nothing(tmp_path: Path) -> None:
    """Given a pickle that would run a function, when it is read, then it does not."""
    path, marker = tmp_path / "cookies", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Malicious(marker)))

    assert read_cookie(path, "m_session_id") is None
    assert not marker.exists()


@given(st.binary(max_size=200) | st.builds(pickle.dumps, st.dictionaries(st.text(), st.text())))
@settings(max_examples=100, deadline=None)
def test_what_is_no_jar_has_no_cookie(content: bytes) -> None:
    """Given any bytes, when they are read, then there is no token and no error."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cookies"
        path.write_bytes(content)
        assert read_cookie(path, "m_session_id") is None
