"""The sidebar in a real JupyterLab: it lists, refreshes, inserts, and stops runs."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swift_jupyter.runs.folder import RunFolder, create_run_folder
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.process import identify
from swift_jupyter.runs.record import RunRecord, State
from swift_jupyter.settings import Settings

pytestmark = pytest.mark.browser

SIZE = 1_500_000
SIDEBAR = "#swift-jupyter-sidebar"


def write_complete_model(cache: Path, repo_id: str = "org/tiny") -> Path:
    """Make a model as Hugging Face's client leaves it in its cache."""
    folder = cache / f"models--{repo_id.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = folder / "snapshots" / revision
    header = json.dumps({"w": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
    files = {
        "config.json": json.dumps({"model_type": "llama"}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": struct.pack("<Q", len(header)) + header + bytes(SIZE),
    }
    for part in (folder / "refs", folder / "blobs", snapshot):
        part.mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    for number, (name, content) in enumerate(files.items()):
        blob = folder / "blobs" / f"{number:040x}"
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs", blob.name))
    return folder


def add_running_run(lab: Any, run_id: str) -> RunFolder:
    """Enter a run at step 30 of 120, whose worker is this very process."""
    folder = create_run_folder(lab.root / "output")
    folder.write(RunRecord(run_id, "sft", state=State.RUNNING, worker=identify(), created=1.0))
    folder.metrics_file.write_text('{"loss": 1.5, "global_step/max_steps": "30/120"}\n')
    RunIndex(Settings(state_dir=str(lab.state))).add(run_id, folder)
    return folder


@pytest.fixture
def sidebar(lab_page: Any) -> Iterator[Any]:
    """The opened sidebar of a server with an empty cache."""
    lab_page.execute("swift-jupyter:open")
    region = lab_page.page.locator(SIDEBAR)
    region.wait_for()
    yield region
    shutil.rmtree(lab_page.lab.huggingface_cache, ignore_errors=True)
    shutil.rmtree(lab_page.lab.state, ignore_errors=True)


def test_labextension_is_enabled(lab: Any) -> None:
    # Given a server environment
    # When its labextensions are listed
    listing = subprocess.run(
        [sys.executable, "-m", "jupyterlab.labextensions", "list"],
        env=lab.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # Then ours is there, enabled and fits this JupyterLab
    lines = [line for line in (listing.stdout + listing.stderr).splitlines() if "swift-" in line]
    assert len(lines) == 1
    assert "enabled" in lines[0]
    assert "OK" in lines[0]


def test_empty_cache_explains_the_first_step(lab_page: Any, sidebar: Any) -> None:
    # Given an empty cache, when the sidebar is opened
    sidebar.get_by_text("No model is cached yet").wait_for()
    # Then it tells what to type and which folders it reads
    assert sidebar.get_by_text("%swift download smollm2-demo").is_visible()
    assert sidebar.get_by_text("No run yet").is_visible()
    assert sidebar.get_by_text(str(lab_page.lab.huggingface_cache)).is_visible()
    assert sidebar.get_by_text(sys.executable).is_visible()
    lab_page.screenshot("sidebar-empty")


def test_sidebar_is_named_for_assistive_technology(lab_page: Any, sidebar: Any) -> None:
    region = lab_page.page.get_by_role("region", name="Swift")
    assert region.get_by_role("heading", name="Models").is_visible()
    assert region.get_by_role("heading", name="Runs").is_visible()
    assert region.get_by_role("button", name="Refresh").is_visible()


def test_new_model_appears_after_refresh(lab_page: Any, sidebar: Any) -> None:
    # Given an open sidebar, when a model comes into the cache
    sidebar.get_by_text("No model is cached yet").wait_for()
    write_complete_model(lab_page.lab.huggingface_cache)
    sidebar.get_by_role("button", name="Refresh").click()
    # Then it is listed with its size
    row = sidebar.get_by_role("list", name="Cached models").get_by_role("listitem")
    row.wait_for()
    text = row.inner_text()
    assert "org/tiny" in text
    assert "1.5 MB" in text
    assert "Hugging Face" in text
    assert "incomplete" not in text
    lab_page.screenshot("sidebar-model")


def test_insert_cell_adds_code_and_does_not_run_it(lab_page: Any, sidebar: Any) -> None:
    # Given a cached model and a notebook with one cell
    write_complete_model(lab_page.lab.huggingface_cache)
    lab_page.open_notebook("before = 1")
    sidebar.get_by_role("button", name="Refresh").click()
    # When a cell is inserted twice
    button = sidebar.get_by_role("button", name="Insert cell for org/tiny")
    button.click()
    button.click()
    # Then the magic is loaded once, the cells are below, and nothing has run
    cells = lab_page.cells()
    sources = [cell["source"].splitlines()[0] for cell in cells]
    infer = "%%swift infer --model org/tiny"
    assert sources == ["before = 1", "%load_ext swift_jupyter", infer, infer]
    assert {cell["type"] for cell in cells} == {"code"}
    # And the new cell has the keyboard, so that the next key may be Shift+Enter
    lab_page.page.wait_for_selector(".jp-Notebook .jp-Cell.jp-mod-active:focus")
    lab_page.wait_idle()
    assert [cell["count"] for cell in lab_page.cells()] == [None] * 4
    lab_page.screenshot("sidebar-inserted")


def test_insert_without_a_notebook_offers_a_new_one(lab_page: Any, sidebar: Any) -> None:
    # Given no open notebook, when the first step is inserted
    sidebar.get_by_role("button", name="Insert cell").click()
    # Then a notification offers to make one, and it gets the cell
    lab_page.page.get_by_role("button", name="New notebook").click()
    lab_page.page.wait_for_selector(".jp-Notebook .jp-Cell")
    lab_page.page.wait_for_function(
        """() => {
            const { model } = window.jupyterapp.shell.currentWidget.content;
            return Array.from(model.cells).some(
                cell => cell.sharedModel.source === '%swift download smollm2-demo'
            );
        }"""
    )


def test_run_is_stopped_without_a_kernel(lab_page: Any, sidebar: Any) -> None:
    # Given a run at work and no kernel at all
    folder = add_running_run(lab_page.lab, "sft-aaaa")
    sidebar.get_by_role("button", name="Refresh").click()
    sidebar.get_by_text("running · step 30 of 120 · loss 1.5").wait_for()
    stop = sidebar.get_by_role("button", name="Stop sft-aaaa")
    dialog = lab_page.page.get_by_role("dialog")
    # When the question is declined, nothing happens
    stop.click()
    dialog.get_by_role("button", name="Cancel").click()
    assert not folder.stop_requested()
    # When it is accepted
    stop.click()
    dialog.get_by_role("button", name="Stop").click()
    # Then the worker is asked, and the sidebar says so
    sidebar.get_by_text("stopping").wait_for()
    assert folder.stop_requested()
    assert stop.count() == 0


def test_sidebar_comes_back_after_a_reload(lab_page: Any, sidebar: Any) -> None:
    # Given an open sidebar whose layout was saved
    sidebar.get_by_text("No model is cached yet").wait_for()
    page = lab_page.page
    with page.expect_response(
        lambda answer: "/api/workspaces" in answer.url and answer.request.method == "PUT"
    ):
        lab_page.execute("filebrowser:activate")
        lab_page.execute("swift-jupyter:open")
    # When the page is loaded again without a reset
    page.goto(f"{lab_page.lab.url}lab")
    page.wait_for_function("window.jupyterapp && window.jupyterapp.restored")
    # Then the sidebar is open and filled
    page.locator(SIDEBAR).get_by_text("No model is cached yet").wait_for()


def test_dark_theme_changes_the_colours(lab_page: Any, sidebar: Any) -> None:
    def colour() -> str:
        value: str = sidebar.evaluate("node => getComputedStyle(node).backgroundColor")
        return value

    # Given the light theme, when the dark one is chosen
    light = colour()
    lab_page.execute("apputils:change-theme", theme="JupyterLab Dark")
    lab_page.page.wait_for_selector('[data-jp-theme-light="false"]', state="attached")
    # Then the sidebar follows
    lab_page.page.wait_for_function(
        "([selector, light]) => getComputedStyle("
        "document.querySelector(selector)).backgroundColor !== light",
        arg=[SIDEBAR, light],
    )
    lab_page.screenshot("sidebar-dark")
    lab_page.execute("apputils:change-theme", theme="JupyterLab Light")
