"""Packed rows give the loss and the gradients of padded rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_jupyter.engine.data.collation import collate
from swift_jupyter.engine.data.packing import PackingCollator, pack, shared_prefix, single_rows
from swift_jupyter.engine.data.rows import IGNORED_LABEL, EncodedRow, Origin
from swift_jupyter.engine.training.loss import label_loss
from swift_jupyter.engine.training.packing import can_pack

VOCABULARY = 64


def row(prefix: list[int], ids: list[int], context: int = 1) -> EncodedRow:
    """A row whose first tokens, the prefix and `context` more, are not trained."""
    tokens = [*prefix, *ids]
    silent = len(prefix) + context
    labels = [IGNORED_LABEL] * silent + tokens[silent:]
    return EncodedRow(tokens, labels, Origin("test", 1))


def rows(count: int = 4, prefix: int = 7) -> list[EncodedRow]:
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(1, VOCABULARY, (prefix,), generator=generator).tolist()
    result = []
    for number in range(count):
        ids = torch.randint(1, VOCABULARY, (5 + 2 * number,), generator=generator).tolist()
        result.append(row(start, [number + 1, *ids], context=2))
    return result


def tiny(kind: str, **options: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    name = {"llama": "Llama", "qwen2": "Qwen2", "gpt2": "GPT2", "mistral": "Mistral"}[kind]
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
    }
    if kind == "gpt2":
        sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4}
        options = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **options}
    config = getattr(transformers, f"{name}Config")(**sizes, **options)
    head = "GPT2LMHeadModel" if kind == "gpt2" else f"{name}ForCausalLM"
    return getattr(transformers, head)(config)


def loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    batch.pop("row_tokens", None)
    model.zero_grad()
    parts = label_loss(model, batch, True)
    (parts.total / parts.tokens).backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(parts.total.detach()), torch.cat(gradients)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("prefix", [0, 7])
def test_loss_and_gradients_are_those_of_padded_rows(
    kind: str, attention: str, prefix: int
) -> None:
    """Given rows, when packed, then loss and gradients equal the padded ones."""
    model = tiny(kind, attn_implementation=attention)
    batch = rows(prefix=prefix)
    padded, expected = loss_and_gradients(model, collate(batch, 0))
    packed, found = loss_and_gradients(model, pack(batch, torch.float32))

    assert packed == pytest.approx(padded, rel=1e-5)
    assert torch.allclose(found, expected, atol=1e-5)
    assert can_pack(model, batch, [len(r) for r in batch], 0)


def test_a_model_with_a_window_is_found_out() -> None:
    """Given a model that looks back only four tokens, when asked, then it is not packed."""
    model = tiny("mistral", sliding_window=4)

    batch = rows(prefix=20)
    assert not can_pack(model, batch, [len(r) for r in batch], 0)


def test_the_mode_of_the_model_stays() -> None:
    """Given a model in training, when it was asked, then it is still in training."""
    model = tiny("llama").train()
    can_pack(model, rows(), [len(r) for r in rows()], 0)
    assert model.training


IDS = st.lists(st.integers(1, 5), min_size=2, max_size=8)


@given(st.lists(st.tuples(IDS, st.integers(1, 9)), min_size=1, max_size=5), IDS | st.just([]))
@settings(max_examples=100, deadline=None)
def test_every_row_is_there_and_sees_itself_and_the_beginning(
    parts: list[tuple[list[int], int]], start: list[int]
) -> None:
    """Given any rows, when packed, then each can be read back through its mask."""
    batch = [row(start, ids, min(context, len(ids))) for ids, context in parts]
    packed = pack(batch, torch.float32)
    ids, labels = packed["input_ids"][0], packed["labels"][0]
    visible = packed["attention_mask"][0, 0] == 0
    shared = shared_prefix(batch) if len(batch) > 1 else 0

    assert int(packed["row_tokens"]) == sum(map(len, batch))
    assert len(ids) == shared + sum(len(r) - shared for r in batch)
    end = shared
    for original in batch:
        end += len(original) - shared
        seen = visible[end - 1].nonzero().squeeze(-1)
        assert ids[seen].tolist() == original.input_ids
        assert packed["position_ids"][0][seen].tolist() == list(range(len(original)))
        assert labels[seen].tolist() == [IGNORED_LABEL] * shared + original.labels[shared:]
        assert all(label == IGNORED_LABEL for label in original.labels[: shared + 1])


@given(st.lists(st.tuples(IDS, st.integers(1, 9)), min_size=1, max_size=5), IDS | st.just([]))
@settings(max_examples=100, deadline=None)
def test_rows_come_out_of_a_batch_as_they_went_in(
    parts: list[tuple[list[int], int]], start: list[int]
) -> None:
    """Given any rows, when packed or padded, then each can be taken out again."""
    batch = [row(start, ids, min(context, len(ids))) for ids, context in parts]
    for made in (pack(batch, torch.float32), collate(batch, 0)):
        singles = single_rows(made)
        assert [single["input_ids"][0].tolist() for single in singles] == [
            original.input_ids for original in batch
        ]
        for single, original in zip(singles, batch, strict=True):
            assert single["attention_mask"].tolist() == [[1] * len(original)]
            if made["attention_mask"].dim() == 2:
                assert single["labels"][0].tolist() == original.labels


def test_rows_that_cannot_be_packed_are_padded() -> None:
    """Given a row whose first token is trained, when collated, then it is padded."""
    trained = EncodedRow([1, 2], [1, 2], Origin("test", 1))
    collator = PackingCollator(0, torch.float32)

    assert collator([trained, rows()[0]])["attention_mask"].dim() == 2
    assert collator(rows(1))["attention_mask"].dim() == 2
    assert collator(rows(2))["attention_mask"].dim() == 4
    with pytest.raises(ValueError, match="first token"):
        pack([trained], torch.float32)
