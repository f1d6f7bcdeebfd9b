"""Paths that a hub lists, and the choice among them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.errors import UserError
from swift_jupyter.hub.listing import RemoteFile, UnsafePath, check_path, select_files
from swift_jupyter.hub.reference import RepoReference, is_repo_id, is_revision


@pytest.mark.parametrize(
    "path",
    [
        *("..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "", "a/", "a\\..\\b"),
        *("C:/x", "C:x", "\\\\host\\share", "a\0b", "a\nb"),
    ],
)
def test_paths_that_leave_the_folder_are_refused(path: str) -> None:
    with pytest.raises(UnsafePath):
        check_path(path)


@pytest.mark.parametrize(
    "path", ["a", "a/b.txt", ".gitattributes", "数据/训练.jsonl", "a..b", "..."]
)
def test_ordinary_paths_are_taken(path: str) -> None:
    assert check_path(path) == path


@given(st.text(alphabet="./\\ab:~ \n\0", max_size=12))
def test_whatever_is_taken_stays_inside(path: str) -> None:
    root = Path("/cache/repo")
    try:
        check_path(path)
    except UnsafePath:
        return
    inside = Path("/").joinpath(root, path)
    assert root in inside.parents
    assert ".." not in inside.parts


def names(paths: list[str], kind: str = "model", **patterns: list[str]) -> list[str]:
    return [f.path for f in select_files([RemoteFile(path) for path in paths], kind, **patterns)]


def test_model_with_safetensors_leaves_out_redundant_weights() -> None:
    paths = [
        *("config.json", "model.safetensors", "pytorch_model.bin", "model.gguf"),
        *("onnx/model.onnx", "original/consolidated.00.pth", "tokenizer.json"),
    ]
    assert names(paths) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_model_with_pickled_weights_only_keeps_them() -> None:
    assert names(["config.json", "pytorch_model.bin", "tf_model.h5"]) == [
        "config.json",
        "pytorch_model.bin",
    ]


def test_model_without_any_known_weights_keeps_everything() -> None:
    assert names(["config.json", "x.onnx"]) == ["config.json", "x.onnx"]


def test_dataset_takes_everything() -> None:
    assert names(["a.zip", "b.bin", "c.safetensors"], "dataset") == [
        "a.zip",
        "b.bin",
        "c.safetensors",
    ]


def test_patterns_win_over_the_default_choice() -> None:
    paths = ["config.json", "model.safetensors", "onnx/model.onnx", "onnx/big.onnx"]
    assert names(paths, include=["onnx/"], exclude=["*big*"]) == ["onnx/model.onnx"]


@pytest.mark.parametrize("text", ["Qwen/Qwen2.5-0.5B", "a/b", "_x/y_z", "01-ai/Yi-6B"])
def test_ids_of_hubs(text: str) -> None:
    assert is_repo_id(text)


@pytest.mark.parametrize(
    "text", ["a", "a/b/c", "../b", "a/..", "a/b c", "a--b/c", "a/b--c", "-a/b", "/b"]
)
def test_texts_that_are_no_ids(text: str) -> None:
    assert not is_repo_id(text)
    with pytest.raises(UserError):
        RepoReference.of_hub(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("main", True),
        ("refs/pr/1", True),
        ("v1.0", True),
        ("../x", False),
        ("/x", False),
        ("x/", False),
    ],
)
def test_revisions(text: str, expected: bool) -> None:
    assert is_revision(text) is expected
