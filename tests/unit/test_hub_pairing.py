"""Which names the two hubs give to the same model."""

from swift_jupyter.hub.pairing import known_models, paired_id, with_paired_ids
from swift_jupyter.hub.reference import RepoReference, is_repo_id


def test_every_row_has_ids_that_hubs_could_have() -> None:
    rows = known_models()
    assert len(rows) > 1000
    for row in rows:
        for column in ("modelscope_id", "huggingface_id"):
            assert not row[column] or is_repo_id(row[column]), row


def test_names_that_differ() -> None:
    differing = {
        (row["modelscope_id"], row["huggingface_id"])
        for row in known_models()
        if row["modelscope_id"]
        and row["huggingface_id"]
        and row["modelscope_id"] != row["huggingface_id"]
    }
    assert len(differing) > 350
    assert paired_id("llm-research/META-Llama-3-8B", "modelscope") == "meta-llama/Meta-Llama-3-8B"
    assert paired_id("meta-llama/Meta-Llama-3-8B", "huggingface") == "LLM-Research/Meta-Llama-3-8B"
    assert paired_id("nobody/nothing", "modelscope") is None


def test_reference_gets_the_id_at_each_hub() -> None:
    pair = ("LLM-Research/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B")
    for reference in (
        RepoReference.of_hub(pair[0]),
        RepoReference.of_hub(pair[1]),
        RepoReference("x", modelscope_id=pair[0]),
        RepoReference("x", huggingface_id=pair[1]),
    ):
        found = with_paired_ids(reference)
        assert (found.modelscope_id, found.huggingface_id) == pair
        assert found.name == reference.name


def test_what_the_caller_says_stands() -> None:
    for reference in (
        RepoReference("x", modelscope_id="LLM-Research/Meta-Llama-3-8B", huggingface_id="my/copy"),
        RepoReference.of_hub("meta-llama/Meta-Llama-3-8B", "dataset"),
        RepoReference.of_hub("nobody/nothing"),
        RepoReference("smollm2-demo", package_id="smollm2-demo"),
    ):
        assert with_paired_ids(reference) == reference
