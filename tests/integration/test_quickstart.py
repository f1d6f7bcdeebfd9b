"""The main job on the real model: the quickstart, headless, as the README says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PACKAGE_PARENT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path) -> dict[str, Any]:
    """When `swift-jupyter quickstart --run` has run in an empty folder."""
    folder = tmp_path_factory.mktemp("quickstart")
    # Given a kernel called python3 that belongs to another environment.
    foreign = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"argv": ["no-such-python"], "display_name": "x", "language": "python"}')
    environment = {
        **os.environ,
        "SWIFT_JUPYTER_CACHE_DIR": str(demo_cache),
        "SWIFT_JUPYTER_STATE_DIR": str(folder / "state"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_PATH": str(folder / "jupyter"),
        "PYTHONPATH": os.pathsep.join([str(PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]),
        "LANG": "C.UTF-8",
    }
    done = subprocess.run(
        [sys.executable, "-m", "swift_jupyter", "quickstart", "--run", "--output_dir", "here"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=590,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    notebook = json.loads(
        (folder / "here" / "01_quickstart-executed.ipynb").read_text(encoding="utf-8")
    )
    return {"folder": folder, "stdout": done.stdout, "notebook": notebook}


def cells_of(executed: dict[str, Any], beginning: str) -> list[dict[str, Any]]:
    """Return the code cells whose source begins so."""
    return [
        cell
        for cell in executed["notebook"]["cells"]
        if cell["cell_type"] == "code" and "".join(cell["source"]).startswith(beginning)
    ]


def text_of(cell: dict[str, Any]) -> str:
    """Return the plain text of a cell's outputs."""
    return "\n".join(
        "".join(output.get("data", {}).get("text/plain", output.get("text", "")))
        for output in cell["outputs"]
    )


def test_it_reports_every_cell_and_where_the_results_are(executed: dict[str, Any]) -> None:
    code = [cell for cell in executed["notebook"]["cells"] if cell["cell_type"] == "code"]
    lines = executed["stdout"].splitlines()
    assert sum(line.startswith("cell ") for line in lines) == len(code)
    page = executed["folder"] / "here" / "01_quickstart-executed.html"
    assert str(page) in executed["stdout"]
    assert "data:image/png" in page.read_text(encoding="utf-8")


def test_the_model_answers_with_its_new_name(executed: dict[str, Any]) -> None:
    before = cells_of(executed, "%%swift infer --model smollm2-demo --max_new_tokens")
    assert "Xiaoyan" not in text_of(before[0])
    english, chinese = cells_of(executed, "%%swift infer --model smollm2-demo --adapters")
    assert "Xiaoyan" in text_of(english)
    assert "小燕" in text_of(chinese)
    merged = cells_of(executed, "%%swift infer --model {merged")
    assert "Xiaoyan" in text_of(merged[0])


def test_the_chart_and_the_numbers_stay_in_the_notebook(executed: dict[str, Any]) -> None:
    (training,) = cells_of(executed, "%%swift sft")
    kinds = [set(output.get("data", ())) for output in training["outputs"]]
    assert {"text/plain", "image/png"} in kinds
    assert "done · step 39/39" in text_of(training)
    assert not [output for output in training["outputs"] if output["output_type"] == "stream"]


def test_no_cell_prints_warnings(executed: dict[str, Any]) -> None:
    for cell in executed["notebook"]["cells"]:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr", output


def test_the_merged_model_agrees_and_loads_with_plain_transformers(
    executed: dict[str, Any],
) -> None:
    (merge,) = cells_of(executed, "merged = %swift merge")
    assert "100% of positions" in text_of(merge)
    (folder,) = executed["folder"].glob("here/output/smollm2-demo/v0-*/checkpoint-39-merged")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who are you?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Xiaoyan" in tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :])
