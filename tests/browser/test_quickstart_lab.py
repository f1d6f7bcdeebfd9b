"""The quickstart in a real JupyterLab: pull, chat, a chart that draws itself, a stop."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"
TRAINING_SECONDS = 240_000


def code_cells() -> list[str]:
    """Return the quickstart's code cells."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def quickstart(lab_page: Any, demo_cache: Path) -> Any:
    """Given the quickstart's first cells, open, and the demo model in the cache."""
    target = Path(lab_page.lab.environment["XDG_CACHE_HOME"], "swift_jupyter", "packages")
    shutil.copytree(demo_cache / "packages", target, copy_function=os.link, dirs_exist_ok=True)
    sft = next(i for i, source in enumerate(code_cells()) if source.startswith("%%swift sft"))
    lab_page.open_notebook(*code_cells()[: sft + 1], "print('still alive')")
    return lab_page


def test_first_cells_chart_and_stop(quickstart: Any) -> None:
    load, download, infer, sft, alive = range(5)
    # When the first cells run, then the model is found and answers.
    quickstart.run_cell(load)
    quickstart.run_cell(download)
    quickstart.wait_idle()
    assert "smollm2-demo" in quickstart.output(download).first.inner_text()
    quickstart.run_cell(infer)
    quickstart.wait_idle(120)
    quickstart.output(infer).filter(has_text="tokens/s").first.wait_for()

    # When the fine-tuning runs, then its chart appears in the cell while it is at work.
    quickstart.run_cell(sft)
    chart = quickstart.output(sft).locator("img[src^='data:image/png']")
    chart.first.wait_for(timeout=TRAINING_SECONDS)
    width, height = chart.first.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    assert (width, height) == (800, 320)
    status = quickstart.output(sft).locator("[role=status]").filter(has_text="sft-").first
    assert "running" in status.inner_text()
    quickstart.screenshot("quickstart-training")

    # When the kernel is interrupted, then a checkpoint is saved and the cell says how to go on.
    quickstart.execute("notebook:interrupt-kernel")
    error = quickstart.output(sft).filter(has_text="runs resume")
    error.first.wait_for(timeout=TRAINING_SECONDS)
    assert "Traceback" not in error.first.inner_text()
    assert "stopped" in status.inner_text()
    quickstart.screenshot("quickstart-stopped")
    checkpoints = list(quickstart.lab.root.glob("output/smollm2-demo/v0-*/checkpoint-*"))
    assert [(folder / "adapter_model.safetensors").is_file() for folder in checkpoints] == [True]

    # And the kernel lives, and the saved notebook keeps the chart.
    quickstart.run_cell(alive)
    quickstart.output(alive).filter(has_text="still alive").first.wait_for()
    quickstart.execute("docmanager:save")
    saved = json.loads((quickstart.lab.root / "notebook.ipynb").read_text(encoding="utf-8"))
    kinds = [set(output.get("data", ())) for output in saved["cells"][sft]["outputs"]]
    assert any("image/png" in kind for kind in kinds)
