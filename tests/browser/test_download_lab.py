"""A slow download in a real JupyterLab: it is drawn, stopped, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fault_server import FaultServer, Repo

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MIB = 1 << 20
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001-of-00002.safetensors": 40 * MIB,
    "model-00002-of-00002.safetensors": 24 * MIB,
}


@pytest.fixture
def slow_hub() -> Iterator[str]:
    with FaultServer() as server:
        hub = server.add_origin([Repo("lab/slow", FILES)])
        hub.set(rate=250_000)
        yield hub.url


def test_a_download_is_drawn_stopped_and_goes_on(lab_page: Any, slow_hub: str) -> None:
    # Given a notebook whose hub is slow
    setup, download, list_runs = range(3)
    lab_page.open_notebook(
        f"%load_ext swift_jupyter\n%env MODELSCOPE_ENDPOINT={slow_hub}\n"
        f"%env HF_ENDPOINT={slow_hub}",
        "%swift download lab/slow",
        "%swift runs",
    )
    lab_page.run_cell(setup)
    lab_page.wait_idle()

    # When a model is downloaded, then its files and the whole are drawn while they come
    lab_page.run_cell(download)
    output = lab_page.output(download)
    output.filter(has_text="model-00001-of-00002.safetensors").first.wait_for(timeout=30_000)
    output.filter(has_text="MB/s").first.wait_for(timeout=30_000)
    lab_page.screenshot("download")

    # When the kernel is interrupted, then what has come is kept, and the cell says how to go on
    lab_page.execute("notebook:interrupt-kernel")
    error = output.filter(has_text="What has arrived is kept")
    error.first.wait_for(timeout=30_000)
    assert "Traceback" not in error.first.inner_text()
    lab_page.wait_idle()
    lab_page.run_cell(list_runs)
    lab_page.wait_idle()
    lab_page.output(list_runs).filter(has_text="stopped").first.wait_for()
