"""Who may ask a node, and what its log keeps to itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tornado.httputil import HTTPHeaders, RequestStartLine

from swift_jupyter.errors import OptionError
from swift_jupyter.hub.node.access import (
    Guard,
    check_exposure,
    given_token,
    keep_token,
    read_token,
    token_file,
)
from swift_jupyter.hub.node.access_log import AccessLog, plain
from swift_jupyter.hub.node.exchange import Exchange
from swift_jupyter.hub.tokens import Secret

TOKEN = "s3cret-token"


def exchange(uri: str = "/", **headers: str) -> Exchange:
    values = HTTPHeaders({name.replace("_", "-"): text for name, text in headers.items()})
    return Exchange(RequestStartLine("GET", uri, "HTTP/1.1"), values, None)


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, None, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, None, None),
        ({"Authorization": f"bearer  {TOKEN}"}, None, None),
        ({"Authorization": f"Bearer {TOKEN}x"}, None, 401),
        ({"Authorization": TOKEN}, None, 401),
        ({"Authorization": "Bearer \x80ä"}, None, 401),
        ({"Cookie": f"a=b; m_session_id={TOKEN}"}, None, None),
        ({"Cookie": "m_session_id=wrong"}, None, 401),
        ({"Cookie": ";;;=="}, None, 401),
        ({}, TOKEN, None),
        ({}, "wrong", 401),
    ],
)
def test_a_token_is_asked_for(
    headers: dict[str, str], query: str | None, status: int | None
) -> None:
    refusal = Guard(Secret(TOKEN), False).refusal(exchange(**headers), query)
    assert (refusal and refusal[0]) == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8970", None),
        ("localhost:1", None),
        ("[::1]:5", None),
        ("lab-pc:8970", None),
        ("evil.example:8970", 403),
        ("evil.example", 403),
        ("", None),
        ("a.localhost", None),
    ],
)
def test_a_page_elsewhere_cannot_read_a_node_for_this_machine(
    host: str, status: int | None
) -> None:
    refusal = Guard(None, True).refusal(exchange(Host=host), None)
    assert (refusal and refusal[0]) == status
    assert Guard(None, False).refusal(exchange(Host=host), None) is None


def test_others_need_a_token_or_an_open_door() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        check_exposure(host, None, False)
    for host in ("0.0.0.0", "192.168.1.5", "", "::", "lab-pc"):
        with pytest.raises(OptionError, match="token"):
            check_exposure(host, None, False)
        check_exposure(host, Secret(TOKEN), False)
        check_exposure(host, None, True)


def test_a_token_comes_from_the_line_or_the_environment() -> None:
    environ = {"SWIFT_JUPYTER_MIRROR_TOKEN": "other"}
    assert given_token(TOKEN, environ) == Secret(TOKEN)
    assert given_token("", environ) == Secret("other")
    assert given_token("", {}) is None
    for wrong in ("two words", 'a"b', "a;b", "ümlaut", "a\nb"):
        with pytest.raises(OptionError):
            given_token(wrong, {})


def test_a_kept_token_is_for_the_user_alone(tmp_path: Path) -> None:
    file = token_file(tmp_path, 8970)
    assert read_token(file) is None
    keep_token(Secret(TOKEN), file)
    assert read_token(file) == Secret(TOKEN)
    assert file.stat().st_mode & 0o077 == 0


def test_the_log_keeps_secrets_and_its_lines(tmp_path: Path) -> None:
    # Given a request that shows tokens and tries to forge a line
    log = AccessLog(tmp_path / "access.log")
    asked = exchange(
        f"/?a=1&token={TOKEN}&b=2\r\nforged",
        Authorization=f"Bearer {TOKEN}",
        Cookie=f"m_session_id={TOKEN}",
        User_Agent='x" 200 1\u2028 y',
    )
    asked.client, asked.status = "10.0.0.1", 200
    # When it is logged
    log.write(asked)
    log.close()
    # Then there is one line without any of them
    text = (tmp_path / "access.log").read_text(encoding="utf-8")
    assert text.count("\n") == 1 and TOKEN not in text
    assert "token=***&b=2" in text and "%0D%0Aforged" in text


def test_long_targets_are_cut() -> None:
    assert len(plain("/" + "a" * 10_000)) <= 500
