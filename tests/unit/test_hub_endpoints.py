"""Addresses, caches and tokens as the environment gives them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.endpoints import clean_endpoint, read_environment

HOME = {"HOME": "/home/ada"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://mirror.example", "https://mirror.example"),
        ("https://mirror.example/", "https://mirror.example"),
        ("https://mirror.example/api/v1", "https://mirror.example"),
        ("https://mirror.example/api/v1/", "https://mirror.example"),
        ("http://mirror.example:8080/hub/api/v1/api/v1", "http://mirror.example:8080/hub"),
        ("mirror.example", "https://mirror.example"),
        ("HTTP://mirror.example", "http://mirror.example"),
        ("  ", None),
        ("", None),
        (None, None),
    ],
)
def test_endpoint_is_brought_into_one_form(text: str | None, expected: str | None) -> None:
    assert clean_endpoint(text) == expected


@given(st.from_regex(r"(https?://)?[a-z]{1,8}(:[0-9]{2,4})?(/[a-z0-9/]{0,12})?", fullmatch=True))
def test_cleaning_an_endpoint_twice_changes_nothing(text: str) -> None:
    once = clean_endpoint(text)
    assert clean_endpoint(once) == once
    assert once is not None and not once.endswith(("/", "/api/v1"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/ada/.cache/modelscope"),
        ({"MS_CACHE_HOME": "/ms"}, "/ms"),
        ({"MODELSCOPE_CACHE": "~/models", "MS_CACHE_HOME": "/ms"}, "/home/ada/models"),
        ({"MODELSCOPE_CACHE": "", "MS_CACHE_HOME": "/ms"}, "/ms"),
    ],
)
def test_modelscope_cache(environ: dict[str, str], expected: str) -> None:
    assert read_environment({**HOME, **environ}).modelscope_cache == Path(expected)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "/home/ada/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hub"),
        ({"HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"}, "/hf/hub"),
        ({"HF_HOME": "/hf", "HF_HUB_CACHE": "/blobs"}, "/blobs"),
    ],
)
def test_huggingface_cache(environ: dict[str, str], expected: str) -> None:
    assert read_environment({**HOME, **environ}).huggingface_cache == Path(expected)


def test_endpoint_variable_wins_over_the_older_domain_variable() -> None:
    environ = {**HOME, "MODELSCOPE_DOMAIN": "old.example"}
    assert read_environment(environ).modelscope_endpoint == "https://old.example"
    environ["MODELSCOPE_ENDPOINT"] = "http://new.example/api/v1"
    assert read_environment(environ).modelscope_endpoint == "http://new.example"


def test_secrets_are_neither_in_the_repr_nor_in_redacted_text() -> None:
    environment = read_environment(
        {
            **HOME,
            "MODELSCOPE_API_TOKEN": "ms-secret",
            "HF_TOKEN": "hf_secret",
            "HF_ENDPOINT": "https://ada:pass1@mirror.example",
        }
    )
    text = environment.redact("tried ms-secret, hf_secret and https://ada:pass1@mirror.example")
    for secret in ("ms-secret", "hf_secret"):
        assert secret not in repr(environment)
    for secret in ("ms-secret", "hf_secret", "pass1"):
        assert secret not in text
