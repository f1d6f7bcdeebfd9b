"""Training from a real kernel that is killed, restarted and interrupted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client import KernelManager
from sandbox import environment, isolated_session, wait_for
from tiny_models import build_tiny_model, write_rows

import swift_jupyter
from swift_jupyter.runs.index import RunIndex
from swift_jupyter.runs.process import is_alive
from swift_jupyter.runs.record import State
from swift_jupyter.runs.run import Run

STEPS = 300
CELL = """%%swift sft
model: {model}
dataset: {rows}
output_dir: {output}
max_steps: {steps}
save_steps: 1000
logging_steps: 1
learning_rate: 5e-3
per_device_train_batch_size: 4
gradient_accumulation_steps: 1
num_threads: 1
"""


@dataclass
class Reply:
    """What a cell answered."""

    content: dict[str, Any]
    text: str

    @property
    def status(self) -> str:
        return str(self.content["status"])


class Kernel:
    """A kernel process and what it says."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env={**os.environ, **environment(folder)}, cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)

    def start(self, code: str) -> str:
        """Send a cell and do not wait; return its message id."""
        return str(self.client.execute(code))

    def finish(self, message_id: str, seconds: float = 90) -> Reply:
        """Wait for the end of a cell."""
        texts: list[str] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except Empty:
                assert self.manager.is_alive(), "the kernel died"
                continue
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                texts.append(content["text"])
            elif "data" in content:
                texts.append(content["data"].get("text/plain", ""))
            elif content.get("execution_state") == "idle":
                break
        else:
            raise AssertionError("the cell did not end")
        while True:
            reply = self.client.get_shell_msg(timeout=seconds)
            if reply["parent_header"].get("msg_id") == message_id:
                return Reply(reply["content"], "\n".join(texts))

    def run(self, code: str, seconds: float = 90) -> Reply:
        return self.finish(self.start(code), seconds)

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: not self.manager.is_alive())

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)


class Lab:
    """Kernels that share one machine: model, rows, and the list of runs."""

    def __init__(self, folder: Path, context: Any) -> None:
        self.folder = folder
        self.index = RunIndex(context.settings)
        self.model = build_tiny_model(folder / "model", hidden=64, layers=4)
        self.rows = write_rows(folder / "rows.jsonl", 40)
        self.kernels: list[Kernel] = []

    def kernel(self) -> Kernel:
        kernel = Kernel(self.folder)
        self.kernels.append(kernel)
        return kernel

    def cell(self, name: str, steps: int = STEPS) -> str:
        output = self.folder / name
        return CELL.format(model=self.model, rows=self.rows, output=output, steps=steps)

    def run(self, name: str) -> Run:
        """The one run below an output folder, once it has logged something."""
        wait_for(lambda: list((self.folder / name).glob("*/logging.jsonl")))
        (path,) = (self.folder / name).iterdir()
        return self.index.find(str(path))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("kernels")
    with isolated_session(folder) as context:
        lab = Lab(folder, context)
        try:
            yield lab
        finally:
            for kernel in lab.kernels:
                kernel.close()


def test_run_outlives_its_kernel(lab: Lab) -> None:
    # Given a cell that trains
    first = lab.kernel()
    loaded = first.run("%load_ext swift_jupyter")
    assert loaded.status == "ok", loaded.content
    first.start(lab.cell("killed"))
    run = lab.run("killed")
    wait_for(lambda: run.status().step >= 5)
    # When the kernel is killed in the middle of it
    first.kill()
    killed_at = run.status().step
    assert killed_at < STEPS
    # Then the worker is none the worse
    assert run.state is State.RUNNING
    # And a new kernel mentions the run
    second = lab.kernel()
    greeting = second.run("%load_ext swift_jupyter")
    assert f"Run {run.id} is at work" in greeting.text
    assert f"%swift runs attach {run.id}" in greeting.text
    # And watches it to its end
    attached = second.run(f"%swift runs attach {run.id}")
    assert attached.status == "ok", attached.content
    assert run.state is State.DONE
    rows = [row["step"] for row in run.metrics() if "loss" in row]
    assert rows == list(range(1, STEPS + 1))
    # And it has become what it would have become undisturbed
    undisturbed = swift_jupyter.sft(
        model=str(lab.model),
        dataset=[str(lab.rows)],
        output_dir=str(lab.folder / "undisturbed"),
        max_steps=STEPS,
        save_steps=1000,
        learning_rate=5e-3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=1,
        num_threads=1,
    )
    assert_same_weights(run.folder.checkpoints()[-1], undisturbed.checkpoint)


def assert_same_weights(first: Path, second: Path) -> None:
    import torch
    from safetensors.torch import load_file

    one, other = (load_file(path / "adapter_model.safetensors") for path in (first, second))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=0, atol=1e-6), name


def test_interrupt_of_the_cell_stops_the_run_in_order(lab: Lab) -> None:
    # Given a cell that trains
    kernel = lab.kernel()
    kernel.run("%load_ext swift_jupyter")
    cell = kernel.start(lab.cell("interrupted", steps=5000))
    run = lab.run("interrupted")
    wait_for(lambda: run.status().step >= 5)
    # When it is interrupted
    kernel.interrupt()
    reply = kernel.finish(cell)
    # Then the run is stopped, with a checkpoint of its last step
    assert run.state is State.STOPPED
    step = run.status().step
    assert [path.name for path in run.folder.checkpoints()] == [f"checkpoint-{step}"]
    # And the cell failed with a few lines that say how to go on, and no traceback
    assert reply.status == "error"
    assert reply.content["ename"] == "Interrupted"
    shown = "\n".join(reply.content["traceback"])
    assert len(shown.splitlines()) <= 3
    assert f"checkpoint-{step}" in shown
    assert f"%swift runs resume {run.id}" in shown
    # And the kernel is well
    assert kernel.run("print(6 * 7)").text.strip() == "42"
    # When the run is taken up again and interrupted twice
    cell = kernel.start(f"%swift runs resume {run.id}")
    wait_for(lambda: run.status().step > step)
    worker = run.record().worker
    assert worker is not None
    kernel.interrupt()
    time.sleep(0.02)
    kernel.interrupt()
    reply = kernel.finish(cell)
    # Then it is dead, or was quicker than the second interrupt, and the checkpoint is there
    assert reply.content["ename"] == "Interrupted"
    assert run.state is State.STOPPED
    wait_for(lambda: not is_alive(worker))
    assert run.folder.checkpoints()
    # When it is taken up once more and interrupted twice while it cannot obey
    cell = kernel.start(f"%swift runs resume {run.id}")
    wait_for(lambda: run.events()[-1].get("text") == "Loading the libraries")
    kernel.interrupt()
    time.sleep(0.3)
    kernel.interrupt()
    reply = kernel.finish(cell)
    # Then it was killed
    assert "was killed" in "\n".join(reply.content["traceback"])
    assert run.record().reason == "killed"
    assert kernel.run("print(6 * 7)").text.strip() == "42"
