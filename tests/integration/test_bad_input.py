"""What a user gets wrong is one clear error, and leaves nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox import isolated_session
from tiny_models import build_tiny_model, write_rows
from tmpfs import mounted_tmpfs

import swift_jupyter
from swift_jupyter.errors import UserError
from swift_jupyter.runs.index import RunIndex


class Lab:
    """A good model and good rows, of which each test spoils something."""

    def __init__(self, folder: Path, context: Any) -> None:
        self.folder = folder
        self.index = RunIndex(context.settings)
        self.model = build_tiny_model(folder / "model")
        self.rows = write_rows(folder / "rows.jsonl", 24)

    def sft(self, **options: Any) -> Any:
        values: dict[str, Any] = {
            "model": str(self.model),
            "dataset": [str(self.rows)],
            "output_dir": str(self.folder / "output"),
            "max_steps": 4,
            "num_threads": 1,
        }
        return swift_jupyter.sft(**{**values, **options})

    def refused(self, **options: Any) -> UserError:
        """Fine-tune with wrong options; return the error, after looking at what it left."""
        with pytest.raises(UserError) as caught:
            self.sft(**options)
        error = caught.value
        assert 1 <= len(str(error).splitlines()) <= 3, str(error)
        assert "Traceback" not in str(error)
        return error

    def write(self, name: str, *rows: Any) -> str:
        path = self.folder / name
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
        return str(path)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("bad")
    with isolated_session(folder) as context:
        yield Lab(folder, context)


@pytest.fixture
def no_worker(lab: Lab) -> Iterator[None]:
    """The test must not start a run."""
    before = len(lab.index.all())
    yield
    assert len(lab.index.all()) == before


GOOD = {"query": "Hello?", "response": "Hi."}


# What can be seen at once does not start a worker.


@pytest.mark.usefixtures("no_worker")
class TestBeforeTheWorker:
    def test_unknown_model_names_its_neighbours(self, lab: Lab) -> None:
        error = lab.refused(model="Qwen2.5-0.5B-Instrukt")
        assert "Qwen2.5-0.5B-Instruct" in str(error)

    def test_missing_model_folder(self, lab: Lab) -> None:
        assert "no folder" in lab.refused(model=str(lab.folder / "nowhere")).what

    def test_model_folder_with_broken_config(self, lab: Lab) -> None:
        broken = lab.folder / "broken-config"
        shutil.copytree(lab.model, broken)
        (broken / "config.json").write_text('{"architectures": [')
        error = lab.refused(model=str(broken))
        assert "is broken" in error.what
        assert "config.json" in error.why

    def test_missing_dataset_file(self, lab: Lab) -> None:
        error = lab.refused(dataset=[str(lab.folder / "rowz.jsonl")])
        assert "rowz.jsonl" in error.what
        assert "rows.jsonl" in error.why

    def test_unknown_dataset(self, lab: Lab) -> None:
        assert "self-cognition" in str(lab.refused(dataset=["self-cognitoin"]))

    def test_no_dataset(self, lab: Lab) -> None:
        assert "--dataset" in lab.refused(dataset=[]).next_step

    @pytest.mark.parametrize("spec", ["self-cognition", "swift/self-cognition#20"])
    def test_self_cognition_without_a_name(self, lab: Lab, spec: str) -> None:
        error = lab.refused(dataset=[spec])
        assert "model_name" in error.what
        error = lab.refused(dataset=[spec], model_name=["Bo"])
        assert "model_author" in error.what
        assert "model_name" not in error.what

    def test_output_folder_below_a_file(self, lab: Lab) -> None:
        error = lab.refused(output_dir=str(lab.rows / "output"))
        assert "--output_dir" in error.next_step

    def test_read_only_output_folder(self, lab: Lab, tmp_path: Path) -> None:
        with mounted_tmpfs(tmp_path / "disk", kilobytes=1024) as disk:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            error = lab.refused(output_dir=str(disk / "output"))
            assert "Read-only" in error.why
            assert "--output_dir" in error.next_step
            assert not list(disk.iterdir())

    def test_disk_without_room_for_a_run(self, lab: Lab, tmp_path: Path) -> None:
        with mounted_tmpfs(tmp_path / "disk", kilobytes=64) as disk:
            (disk / "filler").write_bytes(os.urandom(64 * 1024))
            error = lab.refused(output_dir=str(disk / "output"))
            assert "No space left" in error.why
            assert not list(disk.glob("output/*"))


# What only the worker sees reaches the cell in the worker's words.


def left_nothing(lab: Lab) -> None:
    run = lab.index.all()[0]
    assert run.state.value == "failed"
    assert not run.folder.checkpoints()
    assert not (run.path / ".unpublished").exists()


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("empty.jsonl", [], "is empty"),
        ("shape.jsonl", [{"colour": "red", "size": 3}], "colour"),
        ("silent.jsonl", [{"messages": [{"role": "user", "content": "Hello?"}]}], "assistant"),
    ],
)
def test_dataset_without_a_usable_row(lab: Lab, name: str, rows: list[Any], expected: str) -> None:
    error = lab.refused(dataset=[lab.write(name, *rows)])
    assert expected in str(error)
    left_nothing(lab)


def test_bad_row_is_left_out_and_counted_or_stops_when_strict(lab: Lab) -> None:
    # Given good rows and one without an answer, in line 2
    bad = {"messages": [{"role": "user", "content": "Hello?"}]}
    path = lab.write("mixed.jsonl", GOOD, bad, *[GOOD] * 6)
    # When they are trained on, the bad one is left out, counted, and named by its line
    run = lab.sft(dataset=[path], max_steps=1)
    data = run.metrics["data"]
    assert (data["rows_read"], data["rows_bad"], data["train_rows"]) == (8, 1, 7)
    notice = " ".join(event["text"] for event in lab.index.find(run.id).events() if "text" in event)
    assert "mixed.jsonl" in notice
    assert "line 2" in notice
    # But strictness stops there
    error = lab.refused(dataset=[path], strict=True)
    assert "line 2" in str(error)
    left_nothing(lab)


def test_max_length_below_every_row(lab: Lab) -> None:
    error = lab.refused(max_length=5)
    assert "max_length" in error.what
    assert "--max_length" in error.next_step
    left_nothing(lab)


def test_truncated_weights(lab: Lab) -> None:
    broken = lab.folder / "truncated"
    shutil.copytree(lab.model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = lab.refused(model=str(broken))
    assert "is broken" in error.what
    left_nothing(lab)


def test_unknown_target_modules(lab: Lab) -> None:
    error = lab.refused(target_modules=["q_prjo"])
    assert "q_prjo" in error.what
    assert "q_proj" in error.why
    assert "--target_modules" in error.next_step
    left_nothing(lab)


def test_no_room_for_a_checkpoint(lab: Lab, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", kilobytes=4096) as disk:
        error = lab.refused(output_dir=str(disk / "output"))
        assert "no room for a checkpoint" in error.what
        assert "needs" in error.why and "are free" in error.why
        left_nothing(lab)


def test_disk_that_fills_up_keeps_the_last_checkpoint(lab: Lab, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    # Given a disk on which checkpoints of more than half a MiB do not fit for long
    model = build_tiny_model(tmp_path / "wide", hidden=256, layers=4)
    with mounted_tmpfs(tmp_path / "disk", kilobytes=44 * 1024) as disk:
        options = {
            "model": str(model),
            "output_dir": str(disk / "output"),
            "max_steps": 12,
            "save_steps": 1,
            "lora_rank": 32,
        }
        # When it fills up
        error = lab.refused(**options)
        # Then the error says so
        assert "disk is full" in error.what
        run = lab.index.all()[0]
        assert run.state.value == "failed"
        assert "disk is full" in run.record().reason
        # And everything that has a checkpoint's name is whole
        found = run.folder.checkpoints()
        assert found
        assert not (run.path / ".unpublished").exists()
        for path in found:
            plain = AutoModelForCausalLM.from_pretrained(model)
            PeftModel.from_pretrained(plain, path)
            assert (path / "trainer_state.json").is_file()
            assert (path / "optimizer.pt").is_file()
        # And with more room the run goes on from there
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
        resumed = swift_jupyter.manage_runs(action="resume", run=run.id)
        assert resumed.state == "done"
        assert len(resumed.checkpoints) == 12
