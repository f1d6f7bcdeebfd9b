"""Mirror lists: what a list may say, the user's own list, and the order in which to ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift_jupyter.errors import UserError
from swift_jupyter.hub.mirrors.endpoints import endpoints_for
from swift_jupyter.hub.mirrors.health import OPENS_AFTER, StoredHealth
from swift_jupyter.hub.mirrors.lists import (
    _DATA,
    add_mirrors,
    built_in_mirrors,
    check_list,
    known_mirrors,
    read_list,
    remove_mirror,
    restore_mirror,
    user_list_file,
)
from swift_jupyter.hub.mirrors.mirror import Mirror
from swift_jupyter.hub.mirrors.overview import all_mirrors
from swift_jupyter.settings import Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def settings(home: Path, **values: Any) -> Settings:
    return Settings(state_dir=str(home / "state"), cache_dir=str(home / "cache"), **values)


def entry(**values: Any) -> dict[str, Any]:
    return {"name": "lab", "url": "http://lab:8000", "hubs": ["huggingface"], **values}


def listed(*entries: Any, **values: Any) -> dict[str, Any]:
    return {"version": 1, "mirrors": list(entries), **values}


# Lists and their schema


def test_the_built_in_list_fits_its_own_schema() -> None:
    content = json.loads((_DATA / "mirrors.json").read_text(encoding="utf-8"))
    names = [mirror.name for mirror in check_list(content, "built in")]
    assert names == [mirror.name for mirror in built_in_mirrors()]
    assert {"modelscope.cn", "modelscope.ai", "huggingface.co", "hf-mirror.com"} <= set(names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "is not of type 'object'"),
        ({"mirrors": []}, "version"),
        (listed(entry(), "x"), "entry number 2"),
        (listed(entry(url="ftp://lab")), "entry 'lab', url"),
        (listed(entry(url="http://me:secret@lab")), "entry 'lab', url"),
        (listed(entry(url="http://lab?token=1")), "entry 'lab', url"),
        (listed(entry(hubs=["github"])), "'github' is not one of modelscope, huggingface"),
        (listed(entry(hubs=[])), "entry 'lab', hubs"),
        (listed(entry(role="king")), "'king' is not one of hub, mirror, node"),
        (listed(entry(name="../x")), "entry '../x', name"),
        (listed(entry(token_env="A B")), "entry 'lab', token_env"),
        (listed(entry(colour="red")), "colour"),
        (listed({"name": "lab", "hubs": ["modelscope"]}), "url is missing"),
        (listed(entry(), entry(name="LAB")), "'LAB' stands there twice"),
        (listed(entry(note=["<script>"])), "entry 'lab', note"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_the_entry_and_the_field(
    content: Any, words: str
) -> None:
    with pytest.raises(UserError) as raised:
        check_list(content, "there.json")
    assert "there.json is not a list of mirrors" in str(raised.value)
    assert words in raised.value.why


def test_a_list_is_read_from_a_file(home: Path) -> None:
    path = home / "list.json"
    path.write_text(json.dumps(listed(entry(), entry(name="two", note="<b>"))))
    assert [mirror.name for mirror in read_list(str(path))] == ["lab", "two"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_is_refused(home: Path, content: bytes) -> None:
    path = home / "list.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        read_list(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        read_list(str(home / "absent.json"))


# The user's list


def test_entries_of_the_user_are_kept_replaced_and_forgotten() -> None:
    # Given two entries
    add_mirrors(check_list(listed(entry(), entry(name="two")), "x"))
    assert [m.name for m in known_mirrors() if m.origin == "yours"] == ["lab", "two"]
    # When one is added again in other letters, then it is replaced
    add_mirrors(check_list(listed(entry(name="LAB", url="http://other:1/")), "x"))
    mine = {m.name: m for m in known_mirrors() if m.origin == "yours"}
    assert set(mine) == {"LAB", "two"}
    assert mine["LAB"].url == "http://other:1"
    # When it is removed, then it is gone
    remove_mirror("lab")
    assert [m.name for m in known_mirrors() if m.origin == "yours"] == ["two"]


def test_a_built_in_entry_is_hidden_and_comes_back() -> None:
    remove_mirror("hf-mirror.com")
    assert "hf-mirror.com" not in [m.name for m in known_mirrors()]
    restore_mirror("hf-mirror.com")
    assert "hf-mirror.com" in [m.name for m in known_mirrors()]


def test_an_entry_of_the_user_stands_for_a_built_in_one_without_its_token() -> None:
    add_mirrors([Mirror("huggingface.co", "http://evil:1", ("huggingface",), "hub")])
    (found,) = [m for m in known_mirrors() if m.name == "huggingface.co"]
    assert found.url == "http://evil:1"
    assert not found.is_official


def test_a_broken_list_of_the_user_harms_no_download_and_is_not_overwritten() -> None:
    path = user_list_file()
    path.parent.mkdir(parents=True)
    for content in ("{", "[1]", '{"mirrors": 5}', '{"mirrors": [{"name": "x"}]}'):
        path.write_text(content)
        assert [m.name for m in known_mirrors()] == [m.name for m in built_in_mirrors()]
        with pytest.raises(UserError, match="cannot be read"):
            add_mirrors([Mirror("lab", "http://lab", ("modelscope",))])
        assert path.read_text() == content


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError) as raised:
        remove_mirror("hf-miror.com")
    assert "hf-mirror.com" in raised.value.why


# The order of addresses, and who sees a token


def urls(found: Any, hub: str | None = None) -> list[str]:
    return [endpoint.url for endpoint in found if hub in (None, endpoint.hub)]


def test_nodes_come_first_then_the_preferred_hub_then_the_other(home: Path) -> None:
    # Given a node in the settings and one in the user's list
    add_mirrors([Mirror("box", "http://box:9", ("huggingface", "modelscope"), "node")])
    found = endpoints_for(settings(home, nodes="http://lab:8000, lab2"), {})
    # Then each node is asked in both protocols, the preferred hub's first
    assert [(e.hub, e.url, e.is_node) for e in found[:6]] == [
        ("modelscope", "http://lab:8000", True),
        ("huggingface", "http://lab:8000", True),
        ("modelscope", "http://lab2", True),
        ("huggingface", "http://lab2", True),
        ("modelscope", "http://box:9", True),
        ("huggingface", "http://box:9", True),
    ]
    assert [e.hub for e in found[6:]] == ["modelscope"] * 2 + ["huggingface"] * 2
    # And the hubs change places when the user prefers the other
    swapped = endpoints_for(settings(home, hub="huggingface"), {})
    assert [e.hub for e in swapped[2:]] == ["huggingface"] * 2 + ["modelscope"] * 2
    # And one hub alone is asked when it is named
    assert {e.hub for e in endpoints_for(settings(home), {}, "huggingface")} == {"huggingface"}


def test_built_in_addresses_do_not_hear_of_what_a_private_mirror_holds(home: Path) -> None:
    add_mirrors([Mirror("mine", "http://mine:1", ("huggingface",))])
    environ = {"HF_ENDPOINT": "http://me:word@private:5/hf/"}
    found = endpoints_for(settings(home), environ)
    assert urls(found, "huggingface") == ["http://private:5/hf", "http://mine:1"]
    assert urls(found, "modelscope") == ["https://www.modelscope.cn", "https://www.modelscope.ai"]
    private = next(e for e in found if e.url == "http://private:5/hf")
    assert private.login is not None and private.login.reveal() == "me:word"
    assert "word" not in repr(found)
    shown = all_mirrors(settings(home), environ)
    assert "huggingface.co" not in [m.name for m in shown]
    assert "word" not in repr(shown)


def test_only_who_may_see_it_gets_a_token(home: Path) -> None:
    # Given tokens for both hubs, and an entry with a token of its own
    add_mirrors(
        [
            Mirror("paid", "http://paid:1", ("huggingface",), token_env="PAID"),
            Mirror("free", "http://free:1", ("huggingface", "modelscope"), "hub"),
        ]
    )
    environ = {"HF_TOKEN": "hf-1", "MODELSCOPE_API_TOKEN": "ms-1", "PAID": "paid-1"}
    known = settings(home, nodes="http://lab:8000", node_token="node-1")
    seen = {
        (e.hub, e.name): e.token.reveal() if e.token else None
        for e in endpoints_for(known, environ)
    }
    # Then each goes to its place and to no other
    assert seen == {
        ("modelscope", "lab:8000"): "node-1",
        ("huggingface", "lab:8000"): "node-1",
        ("modelscope", "free"): None,
        ("modelscope", "modelscope.cn"): "ms-1",
        ("modelscope", "modelscope.ai"): "ms-1",
        ("huggingface", "paid"): "paid-1",
        ("huggingface", "free"): None,
        ("huggingface", "huggingface.co"): "hf-1",
        ("huggingface", "hf-mirror.com"): None,
    }


def test_an_address_with_an_open_circuit_comes_last_of_all(home: Path) -> None:
    clock = [1000.0]
    health = StoredHealth(home / "health.json", lambda: clock[0])
    for _failure in range(OPENS_AFTER):
        clock[0] += 1
        health.failed("https://www.modelscope.cn", "connect")
    found = urls(endpoints_for(settings(home), {}, health=health))
    assert found[-1] == "https://www.modelscope.cn"
    assert found[0] == "https://www.modelscope.ai"
    # Given some time, it is tried again in its place
    clock[0] += 3600
    assert "https://www.modelscope.cn" in urls(endpoints_for(settings(home), {}, health=health))[:2]


def test_the_faster_address_of_a_group_is_asked_first(home: Path) -> None:
    health = StoredHealth(home / "health.json")
    health.succeeded("https://hf-mirror.com", 10_000_000, 1.0)
    health.succeeded("https://huggingface.co", 1_000_000, 1.0)
    found = urls(endpoints_for(settings(home), {}, health=health), "huggingface")
    assert found == ["https://hf-mirror.com", "https://huggingface.co"]
