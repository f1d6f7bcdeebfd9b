"""`%swift show` in a real shell with the real model's tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shells import isolated_shell

from swift_jupyter.errors import UserError

ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n} + {n}?"},
                  {"role": "assistant", "content": f"<b>{2 * n}</b>" + "!" * n}]}
    for n in range(1, 13)
]  # fmt: skip


@pytest.fixture
def shell(demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with isolated_shell(tmp_path, monkeypatch) as shell:
        monkeypatch.setenv("SWIFT_JUPYTER_CACHE_DIR", str(demo_cache))
        shell.run_cell("%load_ext swift_jupyter")
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        yield shell


def test_show_draws_tokens_and_statistics(shell: Any) -> None:
    """Given a file, when it is shown, then tokens, roles and lengths are there, escaped."""
    shell.run_cell("view = %swift show rows.jsonl --model smollm2-demo --rows 2")
    view = shell.user_ns["view"]

    assert len(view.samples) == 2
    assert len(view.lengths) == 12
    assert view.statistics["longest"] == max(view.lengths)
    trained = "".join(token.text for token in view.samples[0].tokens if token.trained)
    assert trained == "<b>2</b>!<|im_end|>\n"
    page = view.html()
    assert "&lt;" in page and "<b>2</b>" not in page
    assert "<svg" in page
    assert "[[<b>2</b>!<|im_end|>\n]]" in view.text()
    frame = view.to_pandas()
    assert set(frame["sample"]) == {0, 1}
    assert {"system", "template", "user", "assistant"} >= set(frame["role"])
    json.dumps(view.to_dict())


def test_show_of_an_object_and_chosen_rows(shell: Any) -> None:
    """Given rows as an object, when rows are chosen, then just those are shown."""
    shell.user_ns["rows"] = ROWS
    shell.run_cell("view = %swift show $rows --model smollm2-demo --row 3 -1")
    view = shell.user_ns["view"]

    assert [sample.origin for sample in view.samples] == ["list, row 4", "list, row 12"]


def test_self_cognition_is_shown_with_its_placeholders(shell: Any) -> None:
    """Given no names, when self-cognition is shown, then its marks stay, and a notice."""
    shell.run_cell("view = %swift show self-cognition#5 --model smollm2-demo")
    view = shell.user_ns["view"]

    assert "{{NAME}}" in view.text()
    assert any("--model_name" in notice for notice in view.notices)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("%swift show --model smollm2-demo", "data set"),
        ("%swift show rows.jsonl", "model"),
        ("%swift show rows.jsonl --model smollm2-demo --row 99", "12 rows"),
        ("%swift show nowhere.jsonl --model smollm2-demo", "nowhere.jsonl"),
    ],
)
def test_bad_input_is_told(shell: Any, line: str, hint: str) -> None:
    """Given a wrong line, when it runs, then the error names what is wrong."""
    with pytest.raises(UserError) as caught:
        shell.run_cell(line)
    assert hint in str(caught.value)
