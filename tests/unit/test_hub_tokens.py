"""Tokens: where they are found, and that they never show themselves."""

import copy
import json
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.api.base import Endpoint, hub_api
from swift_jupyter.hub.http.client import Client
from swift_jupyter.hub.tokens import Secret, clean_token, hub_token, redact
from swift_jupyter.settings import Settings

TEXT = "hf_s3cret-Token"


@given(st.text(min_size=4))
def test_secret_does_not_show_itself(text: str) -> None:
    secret = Secret(text)
    shown = f"{secret} {secret!r} {secret!s:>20} {[secret]} {(secret,)} {secret:>30}"
    if text not in "Secret(***) {'x': }[]":
        assert text not in shown.replace("***", "")
    assert secret.reveal() == text


def test_secret_is_neither_pickled_nor_written_as_json() -> None:
    secret = Secret(TEXT)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(secret, protocol)
    with pytest.raises(TypeError):
        json.dumps({"token": secret})
    with pytest.raises(TypeError):
        vars(secret)
    assert copy.deepcopy(secret) == secret == Secret(TEXT) != Secret("other")


def test_secret_inside_other_objects() -> None:
    @dataclass
    class Holder:
        token: Secret

    endpoint = Endpoint("huggingface", "https://hub.example", "hub", Secret(TEXT))
    api = hub_api(endpoint, Client({}))
    for thing in (endpoint, Holder(Secret(TEXT)), asdict(Holder(Secret(TEXT))), api):
        assert TEXT not in repr(thing) and TEXT not in str(thing)


@pytest.mark.parametrize("text", [None, "", "  ", "a\r\nX-Evil: 1", "über", "x" * 5000, "a\0b"])
def test_what_cannot_be_a_token_is_none(text: str | None) -> None:
    assert clean_token(text) is None


def test_redact() -> None:
    assert redact(f"sent {TEXT}!", [None, Secret(TEXT), Secret("")]) == "sent ***!"


def environ(home: Path, **values: str) -> dict[str, str]:
    return {"HOME": str(home), **values}


def token(hub: str, variables: dict[str, str], settings: Settings | None = None) -> str | None:
    found = hub_token(hub, settings, variables)  # type: ignore[arg-type]
    return found.reveal() if found else None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_environment_comes_before_the_login(tmp_path: Path) -> None:
    write(tmp_path / ".cache/huggingface/token", "stored\n")
    write(tmp_path / ".modelscope/credentials/git_token", "ms-stored\n")
    assert token("huggingface", environ(tmp_path)) == "stored"
    assert token("modelscope", environ(tmp_path)) == "ms-stored"
    variables = environ(tmp_path, HF_TOKEN="given", MODELSCOPE_API_TOKEN="ms-given")
    assert token("huggingface", variables) == "given"
    assert token("modelscope", variables) == "ms-given"
    assert token("huggingface", environ(tmp_path, HUGGING_FACE_HUB_TOKEN="old")) == "old"


def test_settings_come_first(tmp_path: Path) -> None:
    settings = Settings(huggingface_token="set", modelscope_token="ms-set")
    variables = environ(tmp_path, HF_TOKEN="given", MODELSCOPE_API_TOKEN="ms-given")
    assert token("huggingface", variables, settings) == "set"
    assert token("modelscope", variables, settings) == "ms-set"


@pytest.mark.parametrize("variable", ["HF_HOME", "XDG_CACHE_HOME", "HF_TOKEN_PATH"])
def test_login_store_of_huggingface_may_be_elsewhere(tmp_path: Path, variable: str) -> None:
    place = tmp_path / "there"
    path = {
        "HF_HOME": place / "token",
        "XDG_CACHE_HOME": place / "huggingface/token",
        "HF_TOKEN_PATH": place,
    }[variable]
    write(path, "elsewhere")
    assert token("huggingface", environ(tmp_path, **{variable: str(place)})) == "elsewhere"


def test_stored_tokens_count_when_there_is_one_only(tmp_path: Path) -> None:
    path = tmp_path / ".cache/huggingface/stored_tokens"
    write(path, "[work]\nhf_token = hf_%1\n")
    assert token("huggingface", environ(tmp_path)) == "hf_%1"
    write(path, "[work]\nhf_token = hf_1\n[home]\nhf_token = hf_2\n")
    assert token("huggingface", environ(tmp_path)) is None
    write(path, "not an ini file")
    assert token("huggingface", environ(tmp_path)) is None


def test_store_written_by_the_installed_client_is_read(tmp_path: Path) -> None:
    from modelscope_hub import HubConfig

    HubConfig(config_dir=tmp_path / ".modelscope", token="x").save_git_token("gt-1")
    assert token("modelscope", environ(tmp_path)) == "gt-1"
    home = str(tmp_path / ".modelscope")
    assert token("modelscope", {"HOME": "/nowhere", "MODELSCOPE_HOME": home}) == "gt-1"


def test_variables_that_switch_tokens_off(tmp_path: Path) -> None:
    write(tmp_path / ".cache/huggingface/token", "stored")
    write(tmp_path / ".modelscope/credentials/git_token", "stored")
    assert token("modelscope", environ(tmp_path, MODELSCOPE_API_TOKEN="")) is None
    variables = environ(tmp_path, HF_HUB_DISABLE_IMPLICIT_TOKEN="1", HF_TOKEN="given")
    assert token("huggingface", variables) is None


def test_pickled_cookies_are_never_opened(tmp_path: Path) -> None:
    # Given a cookie jar that would run code when it is loaded
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "sprung",))  # type: ignore[return-value]

    jar = tmp_path / ".modelscope/credentials/cookies"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(pickle.dumps(Trap()))
    assert token("modelscope", environ(tmp_path)) is None
    assert not (tmp_path / "sprung").exists()
