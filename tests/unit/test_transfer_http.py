"""The HTTP client against a small server: redirects, credentials, errors, bodies."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
import time

import pytest

from swift_jupyter.hub.http.client import Client, HttpError, Limits, headers_for
from swift_jupyter.hub.http.errors import plain_address, retry_after_seconds
from swift_jupyter.hub.http.proxies import Proxies

SECRET = "hf_secret"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        if "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(headers.get("length", len(body))))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.partition("?")[0]
        port = self.server.server_port
        if path == "/echo":
            seen = {name.lower(): value for name, value in self.headers.items()}
            seen["port"] = self.client_address[1]
            self.answer(body=json.dumps(seen).encode())
        elif path == "/to-self":
            self.answer(302, Location="/echo")
        elif path == "/to-other":
            self.answer(302, Location=f"http://localhost:{port}/echo")
        elif path == "/loop":
            self.answer(302, Location="/loop")
        elif path == "/to-file":
            self.answer(302, Location="file:///etc/passwd")
        elif path == "/chunked":
            body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            self.answer(body=body, Transfer_Encoding="chunked")
        elif path == "/gzip":
            self.answer(body=gzip.compress(b'{"a": [1, 2]}'), Content_Encoding="gzip")
        elif path == "/html":
            self.answer(body=b"<html>")
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"abc")
            self.close_connection = True
        elif path == "/busy":
            self.answer(503, b"later", Retry_After=7, X_Error_Code="Busy")
        elif path == "/stall":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"abc")
            self.wfile.flush()
            time.sleep(1)
        else:
            self.answer(404, b"no such thing")


@pytest.fixture(scope="module")
def url():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def client():
    found = Client({}, limits=Limits(stall=0.3))
    yield found
    found.close()


def read(response) -> bytes:
    data, block = b"", memoryview(bytearray(7))
    while count := response.readinto(block):
        data += block[:count]
    return data


def test_connections_are_used_again(client, url):
    ports = {client.read_json(f"{url}/echo")[0]["port"] for _request in range(5)}

    assert len(ports) == 1


def test_a_redirect_on_the_same_place_keeps_the_credentials(client, url):
    seen, _headers = client.read_json(f"{url}/to-self", {"Authorization": SECRET})

    assert seen["authorization"] == SECRET


def test_a_redirect_to_another_host_drops_the_credentials(client, url):
    sent = {"Authorization": SECRET, "Cookie": SECRET, "X-Other": "kept"}

    seen, _headers = client.read_json(f"{url}/to-other", sent)

    assert "authorization" not in seen and "cookie" not in seen
    assert seen["x-other"] == "kept"


@pytest.mark.parametrize(
    ("first", "target", "kept"),
    [
        ("https://a/x", "https://a/y", True),
        ("https://a/x", "https://a:443/y", True),
        ("https://a/x", "https://A/y", True),
        ("https://a/x", "https://a:444/y", False),
        ("https://a/x", "https://a.b/y", False),
        ("http://a/x", "https://a/y", False),
    ],
)
def test_credentials_go_only_to_the_same_scheme_host_and_port(first, target, kept):
    assert ("cookie" in headers_for(first, target, {"cookie": "x"})) is kept


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/loop", "too_many_redirects"), ("/to-file", "protocol")],
)
def test_bad_redirects_are_refused(client, url, path, kind):
    with pytest.raises(HttpError) as caught:
        client.open(url + path)

    assert caught.value.kind == kind


@pytest.mark.parametrize("address", ["ftp://a/b", "file:///etc/passwd", "http://[::1", "http://"])
def test_other_addresses_are_not_asked(client, address):
    with pytest.raises(HttpError) as caught:
        client.open(address)

    assert caught.value.kind == "protocol"


def test_nobody_listening_is_no_connection(client):
    with pytest.raises(HttpError) as caught:
        client.open("http://127.0.0.1:9/x")

    assert caught.value.kind == "connect"


def test_chunked_bodies_are_read_to_their_end_and_the_connection_kept(client, url):
    before = client.read_json(f"{url}/echo")[0]["port"]

    response = client.open(f"{url}/chunked")
    assert read(response) == b"abcde"
    response.close(reuse=True)

    assert client.read_json(f"{url}/echo")[0]["port"] == before


def test_a_half_read_body_is_not_used_again(client, url):
    before = client.read_json(f"{url}/echo")[0]["port"]
    response = client.open(f"{url}/html")
    response.readinto(memoryview(bytearray(2)))
    response.close(reuse=True)

    assert client.read_json(f"{url}/echo")[0]["port"] != before


def test_an_early_end_is_an_error_after_what_came(client, url):
    response = client.open(f"{url}/short")
    block = memoryview(bytearray(10))

    assert response.readinto(block) == 3
    with pytest.raises(HttpError) as caught:
        response.readinto(block)
    assert caught.value.kind == "reset"


def test_silence_is_an_error_after_what_came(client, url):
    response = client.open(f"{url}/stall")
    block = memoryview(bytearray(10))
    assert response.readinto(block) == 3

    began = time.monotonic()
    with pytest.raises(HttpError) as caught:
        response.readinto(block)

    assert caught.value.kind == "timeout"
    assert time.monotonic() - began < 0.8


def test_json_may_be_compressed_and_made_smaller_on_the_fly(client, url):
    assert client.read_json(f"{url}/gzip")[0] == {"a": [1, 2]}
    assert client.read_json(f"{url}/gzip", object_hook=lambda o: o["a"])[0] == [1, 2]


def test_what_is_no_json_is_an_error_with_the_beginning_of_it(client, url):
    with pytest.raises(HttpError) as caught:
        client.read_json(f"{url}/html")

    assert (caught.value.kind, caught.value.body) == ("protocol", b"<html>")


def test_a_refusal_tells_status_headers_and_when_to_come_back(client, url):
    with pytest.raises(HttpError) as caught:
        client.read_json(f"{url}/busy")

    error = caught.value
    assert (error.kind, error.status, error.retry_after) == ("status", 503, 7.0)
    assert error.headers["x-error-code"] == "Busy" and error.body == b"later"


def test_no_error_shows_a_query_a_password_or_a_token(client, url):
    place = url.replace("http://", "http://user:password@")
    texts = []
    for path in ("/nothing?sig=signed", "/loop?sig=signed", "/html?sig=signed"):
        with pytest.raises(HttpError) as caught:
            client.read_json(place + path, {"Authorization": SECRET})
        texts.append(str(caught.value) + repr(caught.value))

    assert not any(word in text for text in texts for word in ("signed", "password", SECRET))


def test_addresses_are_shown_without_their_secrets():
    assert plain_address("https://u:p@a.b:8/c?d=e#f") == "https://a.b:8/c"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20.0),
        ("soon", None),
        ("-1", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_seconds(value, now=10.0) == seconds


def test_proxies_come_from_the_environment_with_their_exceptions():
    proxies = Proxies({"HTTPS_PROXY": "p:1", "http_proxy": "http://q:2", "no_proxy": ".inner,b"})

    assert proxies.proxy_for("https://a/x") == "http://p:1"
    assert proxies.proxy_for("http://a/x") == "http://q:2"
    assert proxies.proxy_for("http://hub.inner/x") is None
    assert proxies.proxy_for("https://b:8/x") is None
    assert Proxies({"ALL_PROXY": "socks5h://s:3"}).proxy_for("http://a") == "socks5h://s:3"


def test_requests_go_through_a_proxy(url):
    # A proxy gets the whole address as its target.
    client = Client({"http_proxy": url})

    with pytest.raises(HttpError) as caught:
        client.read_json("http://nowhere.invalid/echo")

    assert caught.value.status == 404
