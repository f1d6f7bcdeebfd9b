"""What the name of a model stands for."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.engine.models import catalogue
from swift_jupyter.errors import UserError
from swift_jupyter.hub.reference import RepoReference


def test_known_models_have_an_id_and_a_type() -> None:
    known = catalogue.entries()
    assert len(known) > 1000
    assert all(entry.id and entry.model_type for entry in known)
    assert known[0].package_id == "smollm2-demo"


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen2.5-0.5B-Instruct",
        "qwen/qwen2.5-0.5b-instruct",
        "qwen2.5-0.5b-instruct",
        " Qwen2.5-0.5B-Instruct ",
    ],
)
def test_name_in_any_case_with_or_without_owner(name: str) -> None:
    reference = catalogue.resolve(name, "v1")
    assert reference.modelscope_id == "Qwen/Qwen2.5-0.5B-Instruct"
    assert reference.huggingface_id == "Qwen/Qwen2.5-0.5B-Instruct"
    assert reference.revision == "v1"


@pytest.mark.parametrize(
    "name", ["LLM-Research/Meta-Llama-3-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"]
)
def test_id_of_one_hub_brings_the_id_of_the_other(name: str) -> None:
    reference = catalogue.resolve(name)
    assert reference.modelscope_id == "LLM-Research/Meta-Llama-3-8B-Instruct"
    assert reference.huggingface_id == "meta-llama/Meta-Llama-3-8B-Instruct"


def test_local_package_id() -> None:
    assert catalogue.resolve("SmolLM2-Demo").package_id == "smollm2-demo"


def test_unknown_id_is_tried_at_both_hubs() -> None:
    reference = catalogue.resolve("nobody/knows-this")
    assert reference.modelscope_id == reference.huggingface_id == "nobody/knows-this"


def test_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        catalogue.resolve("qwen2.5-0.5b-instuct")
    assert "Qwen/Qwen2.5-0.5B-Instruct" in caught.value.why
    assert "%swift models" in caught.value.next_step


def test_name_that_several_models_have_lists_them() -> None:
    twice = next(
        last for last, found in catalogue._by_last_part().items() if len({e.id for e in found}) > 1
    )
    with pytest.raises(UserError) as caught:
        catalogue.resolve(twice)
    assert caught.value.why.count("/") >= 2


def test_folder_with_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    reference = catalogue.resolve(str(tmp_path))
    assert reference.local_path == tmp_path
    assert reference.modelscope_id is None


def test_relative_folder_that_looks_like_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "output" / "merged"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert catalogue.resolve("output/merged").local_path == folder
    with pytest.raises(UserError, match="no folder output/gone"):
        catalogue.resolve("output/gone")


def test_empty_folder_does_not_hide_a_known_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen" / "Qwen2.5-0.5B").mkdir(parents=True)
    reference = catalogue.resolve("Qwen/Qwen2.5-0.5B", "v2")
    assert reference.modelscope_id == "Qwen/Qwen2.5-0.5B"
    assert reference.revision == "v2"


def test_folder_without_a_model_says_what_lacks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        catalogue.resolve(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter") as caught:
        catalogue.resolve(str(tmp_path))
    assert "--adapters" in caught.value.next_step


@pytest.mark.parametrize("name", ["./gone", "/gone/away", "~/gone-away", "C:\\gone", "a/b/c"])
def test_absent_folder(name: str) -> None:
    with pytest.raises(UserError, match="no folder"):
        catalogue.resolve(name)


@given(st.text(max_size=30) | st.text(alphabet="./~\\abQ-_: \0", max_size=12))
def test_any_text_gives_a_reference_or_a_user_error(text: str) -> None:
    try:
        reference = catalogue.resolve(text)
    except UserError as error:
        assert error.what
    else:
        assert isinstance(reference, RepoReference)


@given(st.text(max_size=30), st.integers(min_value=0, max_value=8))
def test_search_never_fails_and_keeps_the_limit(query: str, limit: int) -> None:
    assert len(catalogue.search(query, limit)) <= limit


def test_search_finds_by_words_in_any_order() -> None:
    found = [entry.id for entry in catalogue.search("0.5b qwen2.5 instruct", 10)]
    assert "Qwen/Qwen2.5-0.5B-Instruct" in found
    assert all("qwen2.5" in name.lower() and "0.5b" in name.lower() for name in found)


def test_search_tolerates_misspelling() -> None:
    assert any("Qwen2.5" in entry.id for entry in catalogue.search("qwne2.5-7b-instruct", 10))


def test_search_finds_huggingface_ids_and_types() -> None:
    assert any(
        e.huggingface_id == "meta-llama/Meta-Llama-3-8B" for e in catalogue.search("meta-llama")
    )
    assert catalogue.search("deepseek_r1")


def test_search_is_quick_once_loaded() -> None:
    catalogue.search("qwen")
    catalogue.search("qwne misspelt")
    started = time.perf_counter()
    for query in ("qwen", "qwne misspelt", "7b instruct", "zzzzzz"):
        catalogue.search(query)
    assert (time.perf_counter() - started) / 4 < 0.02
