"""From targets to meanings; nothing leaves the folder of a repository."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.hub.listing import UnsafePath, check_path
from swift_jupyter.hub.node.addresses import BadTarget, Target, parse_target

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.]{0,12}[A-Za-z0-9]", fullmatch=True).filter(
    lambda text: ".." not in text
)
owners = names.filter(lambda text: text not in ("api", "models", "datasets", "_sj", "healthz"))
paths = st.lists(
    st.text(st.characters(exclude_categories=("C",), exclude_characters="/\\"), min_size=1),
    min_size=1,
    max_size=4,
).map("/".join)


def parsed(uri: str) -> Target:
    target = parse_target(uri)
    assert target is not None, uri
    return target


@given(owners, names, paths)
def test_paths_arrive_as_they_were_quoted(owner: str, name: str, path: str) -> None:
    try:
        check_path(path)
    except UnsafePath:
        with pytest.raises(BadTarget):
            parse_target(f"/{owner}/{name}/resolve/main/{quote(path)}")
        return
    repo = f"{owner}/{name}"
    for uri in (
        f"/{repo}/resolve/main/{quote(path)}",
        f"/{repo}/resolve/main/{quote(path, safe='')}",
        f"//{repo}/resolve/main/{quote(path)}?download=true",
        f"http://proxy.example/{repo}/resolve/main/{quote(path)}",
        f"/models/{repo}/resolve/master/{quote(path)}",
    ):
        found = parsed(uri)
        assert (found.action, found.repo_id, found.path) == ("bytes", repo, path)
        assert found.hub == "huggingface" and found.revision is None
    for prefix in ("/api/v1", "/api/v1/api/v1", "/api/v1/api/v1/api/v1"):
        found = parsed(f"{prefix}/models/{repo}/repo?Revision=v1&FilePath={quote(path, safe='')}")
        assert (found.action, found.hub, found.path) == ("bytes", "modelscope", path)
        assert found.revision == "v1"


@given(st.text(max_size=80))
def test_any_text_is_a_meaning_nothing_or_a_bad_target(text: str) -> None:
    try:
        found = parse_target("/" + text)
    except BadTarget:
        return
    if found is not None and found.action in ("bytes", "files") and found.path:
        check_path(found.path)


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "a/%2E%2E/%2E%2E/b",
        "a%00b",
        "a%5c..%5cb",
        "%2fetc%2fpasswd",
        "a//b",
        "a/./b",
        "C:%5Cx",
        "%ff%fe",
    ],
)
def test_hostile_paths_are_refused(path: str) -> None:
    for uri in (
        f"/lab/x/resolve/main/{path}",
        f"/datasets/lab/x/resolve/main/{path}",
        f"/api/v1/models/lab/x/repo?FilePath={path}",
    ):
        with pytest.raises(BadTarget):
            parse_target(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "/..%2f/x/resolve/main/f",
        "/lab/x/resolve/..%2f../f",
        "/lab/x--y/resolve/main/f",
        "/api/models/lab/..",
        "/api/v1/models/lab/x/repo?FilePath=f&Revision=..%2f..",
    ],
)
def test_hostile_names_and_revisions_are_refused(uri: str) -> None:
    with pytest.raises(BadTarget):
        parse_target(uri)


@pytest.mark.parametrize(
    ("uri", "action"),
    [
        ("/", "home"),
        ("/?token=x", "home"),
        ("/healthz", "health"),
        ("/_sj/v1/status", "status"),
        ("/api/v1/repos/internalAccelerationInfo", "region"),
        ("/api/v1/datasets/123/repo/tree?Root=%2F", "files"),
        ("/api/v1/models/lab/x/revisions", "revisions"),
        ("/api/v1/models/lab/x", "info"),
        ("/api/models/lab/x", "hf_info"),
        ("/api/datasets/lab/x/revision/refs%2Fpr%2F1", "hf_info"),
        ("/api/models/lab/x/tree/main/sub/dir?recursive=false", "hf_tree"),
        ("/api/models/lab/x/paths-info/main", "hf_paths_info"),
        ("/api/models/lab/x/refs", "hf_refs"),
    ],
)
def test_meanings(uri: str, action: str) -> None:
    assert parsed(uri).action == action


@pytest.mark.parametrize("uri", ["/nothing", "/api/agent-harnesses", "/api/v1/models", "/a/b/c/d"])
def test_what_means_nothing(uri: str) -> None:
    assert parse_target(uri) is None
