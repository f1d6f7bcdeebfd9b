"""Settings for downloads: nodes, connections, and tokens that nobody sees."""

from __future__ import annotations

import dataclasses
import json
import stat
from pathlib import Path

import pytest

from swift_jupyter.errors import UserError
from swift_jupyter.settings import (
    SECRETS,
    Settings,
    effective_settings,
    load_settings,
    parse_setting,
    secret_variables,
    split_nodes,
    user_file,
    with_secrets,
    write_user_setting,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_nodes_come_from_the_environment() -> None:
    settings = load_settings(environ={"SWIFT_JUPYTER_NODES": "http://a:1, b:2 ,,https://c"})
    assert split_nodes(settings.nodes) == ("http://a:1", "b:2", "https://c")


@pytest.mark.parametrize("nodes", ["ftp://a", "http://", "http://a:99999", "http://a, ://"])
def test_what_is_no_address_is_refused(nodes: str) -> None:
    with pytest.raises(UserError, match="is not the address of a node"):
        parse_setting("nodes", nodes)


def test_a_refused_address_does_not_show_its_password() -> None:
    with pytest.raises(UserError) as raised:
        parse_setting("nodes", "ftp://jane:secret@host")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("count", ["0", "129", "-1", "many", "1.5", "", True])
def test_connections_are_a_sensible_number(count: object) -> None:
    with pytest.raises(UserError, match="whole number from 1 to 128"):
        parse_setting("max_connections", count)
    assert parse_setting("max_connections", "8") == 8


def test_tokens_are_used_and_not_shown() -> None:
    # Given a token in the environment
    environ = {"SWIFT_JUPYTER_HUGGINGFACE_TOKEN": "hf_1"}
    settings = load_settings(environ=environ)
    # Then it is there, and in nothing that is shown or written
    assert settings.huggingface_token == "hf_1"
    shown = [repr(settings), repr(settings.huggingface_token)]
    shown += [str(value.shown) for value in effective_settings(environ=environ)]
    shown += [json.dumps(dataclasses.asdict(settings.without_secrets()))]
    assert not any("hf_1" in text for text in shown)
    # And another process gets it by the same way
    assert secret_variables(settings) == environ
    assert with_secrets(Settings(), environ).huggingface_token == "hf_1"
    # And what a session was given wins
    given = Settings(huggingface_token="hf_2")
    assert with_secrets(given, environ).huggingface_token == "hf_2"


@pytest.mark.parametrize("name", SECRETS)
def test_a_stored_token_is_for_its_owner_alone(name: str) -> None:
    write_user_setting("hub", "huggingface")
    write_user_setting(name, " tok ")
    assert stat.S_IMODE(user_file().stat().st_mode) == 0o600
    assert getattr(load_settings(environ={}), name) == "tok"
    assert load_settings(environ={}).hub == "huggingface"


def test_logins_inside_addresses_are_masked() -> None:
    nodes = "http://jane:secret@a:1,https://token2@b"
    settings = load_settings({"nodes": nodes}, {})
    assert settings.nodes == nodes
    shown = {value.name: value.shown for value in effective_settings({"nodes": nodes}, {})}
    assert shown["nodes"] == "http://***@a:1,https://***@b"
    assert "secret" not in repr(settings) and "token2" not in repr(settings)


def test_logins_inside_addresses_reach_another_process_and_no_file() -> None:
    settings = load_settings({"nodes": "http://jane:secret@a:1"}, {})
    # Given what a run folder holds
    written = settings.without_secrets()
    assert written.nodes == "http://a:1"
    # Then the worker has the login nevertheless, as long as the addresses are the same
    environ = secret_variables(settings)
    assert with_secrets(written, environ).nodes == settings.nodes
    other = dataclasses.replace(written, nodes="http://b:2")
    assert with_secrets(other, environ).nodes == "http://b:2"
