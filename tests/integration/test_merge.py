"""Merging with real weights: the same logits, no stale result, nothing half written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import build_adapter, build_tiny_model
from tmpfs import mounted_tmpfs

from swift_jupyter.commands.context import Context
from swift_jupyter.commands.frontend import SilentFrontend
from swift_jupyter.commands.merge import MergeOptions
from swift_jupyter.commands.merge import run as merge_command
from swift_jupyter.engine.export.merge import Merged, merge
from swift_jupyter.engine.inference.adapters import locate_adapter
from swift_jupyter.errors import UserError
from swift_jupyter.settings import Settings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("merge") / "model")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return build_adapter(tmp_path / "checkpoint-3", base, seed=1)


def merged(adapter: Path, base: Path, output: Path, **options: Any) -> Merged:
    return merge(locate_adapter(str(adapter)), base, output, **options)


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(torch.arange(64).unsqueeze(0)).logits


def entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_merged_model_is_the_adapted_one(adapter: Path, base: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Given what base and adapter say together
    plain = AutoModelForCausalLM.from_pretrained(base)
    expected = logits(PeftModel.from_pretrained(plain, adapter))
    # When they are merged
    texts: list[str] = []
    result = merged(adapter, base, tmp_path / "merged", report=texts.append)
    # Then plain transformers loads one model that says the same
    alone = AutoModelForCausalLM.from_pretrained(result.path)
    assert (logits(alone) - expected).abs().max() < 1e-4
    assert (logits(AutoModelForCausalLM.from_pretrained(base)) - expected).abs().max() > 0.01
    assert not hasattr(alone, "peft_config")
    # And so says the measurement
    assert result.largest_difference < 1e-4
    assert result.same_choices == 1.0
    assert result.dtype == "float32"
    assert not result.reused
    assert len(texts) == 4
    # And its tokenizer is the base's
    first, second = (AutoTokenizer.from_pretrained(path) for path in (base, result.path))
    assert first.chat_template == second.chat_template
    assert first("Who are you?")["input_ids"] == second("Who are you?")["input_ids"]
    # And nothing else lies around
    assert entries(tmp_path) == {"checkpoint-3", "merged"}


def test_stored_data_type_can_be_chosen(adapter: Path, base: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    result = merged(adapter, base, tmp_path / "half", dtype="bfloat16")
    assert result.dtype == "bfloat16"
    assert 0 < result.largest_difference < 0.1 * result.logit_scale
    with safe_open(result.path / "model.safetensors", framework="pt") as weights:
        assert weights.get_slice("model.norm.weight").get_dtype() == "BF16"


def test_same_merge_is_reused_and_a_stale_one_refused(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    output = tmp_path / "merged"
    # Given a merge
    first = merged(adapter, base, output)
    weights = (output / "model.safetensors").read_bytes()
    # When the same is asked for again, it is there already
    again = merged(adapter, base, output)
    assert again.reused
    assert again.largest_difference == first.largest_difference
    # When the adapter has changed, the old result is not passed off as the new one
    build_adapter(adapter, base, seed=2)
    with pytest.raises(UserError, match="already exists") as error:
        merged(adapter, base, output)
    assert "older state" in error.value.why
    assert "--overwrite" in error.value.next_step
    assert (output / "model.safetensors").read_bytes() == weights
    # But it is replaced when the user says so
    replaced = merged(adapter, base, output, overwrite=True)
    assert not replaced.reused
    assert (output / "model.safetensors").read_bytes() != weights
    assert entries(tmp_path) == {"checkpoint-3", "merged"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folder_is_never_touched(
    adapter: Path, base: Path, tmp_path: Path, overwrite: bool
) -> None:
    # Given a folder that somebody else filled, and a file
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.txt").write_text("years of work")
    # Then neither is touched
    with pytest.raises(UserError, match="already exists") as error:
        merged(adapter, base, foreign, overwrite=overwrite)
    assert "--output_dir" in error.value.next_step
    with pytest.raises(UserError):
        merged(adapter, base, foreign / "chapter.txt", overwrite=overwrite)
    assert (foreign / "chapter.txt").read_text() == "years of work"
    assert entries(tmp_path) == {"checkpoint-3", "thesis"}
    # But an empty folder may be filled
    (tmp_path / "empty").mkdir()
    assert merged(adapter, base, tmp_path / "empty").path == tmp_path / "empty"


def test_adapter_of_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", hidden=64)
    with pytest.raises(UserError, match="does not fit"):
        merged(adapter, other, tmp_path / "merged")
    assert entries(tmp_path) == {"checkpoint-3", "other"}


def test_interrupted_merge_leaves_nothing(adapter: Path, base: Path, tmp_path: Path) -> None:
    def interrupt(text: str) -> None:
        if text == "comparing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merged(adapter, base, tmp_path / "merged", report=interrupt)
    assert entries(tmp_path) == {"checkpoint-3"}


def test_command_finds_the_base_and_the_place_by_itself(
    adapter: Path, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Given a checkpoint that knows its base
    (adapter / "args.json").write_text(json.dumps({"model": str(base)}))
    context = Context(Settings(state_dir=str(tmp_path / "state")), SilentFrontend())
    capfd.readouterr()
    # When it is merged by the command
    facts = merge_command(MergeOptions(adapter=str(adapter)), context)
    # Then the result is beside it, and the libraries kept silent
    assert str(facts.to_dict()["path"]) == f"{adapter}-merged"
    assert (tmp_path / "checkpoint-3-merged" / "config.json").is_file()
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_tmpfs(tmp_path / "disk", kilobytes=4096) as folder:
        yield folder


def test_disk_without_room_is_refused_beforehand(
    adapter: Path, base: Path, small_disk: Path
) -> None:
    # Given a disk with less room than the weights need
    fill(small_disk, leave=64 * 1024)
    with pytest.raises(UserError, match="no room"):
        merged(adapter, base, small_disk / "merged")
    assert entries(small_disk) == {"filler"}


def test_disk_that_fills_up_meanwhile_leaves_nothing(
    adapter: Path, base: Path, small_disk: Path
) -> None:
    # Given a disk that somebody else fills while the model is loaded
    def report(text: str) -> None:
        if text == "merging":
            fill(small_disk, leave=64 * 1024)

    with pytest.raises(UserError, match="cannot be written") as error:
        merged(adapter, base, small_disk / "merged", report=report)
    assert len(error.value.lines) == 3
    assert entries(small_disk) == {"filler"}


def test_read_only_folder_is_one_clear_error(adapter: Path, base: Path, small_disk: Path) -> None:
    (small_disk / "there").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match="cannot be written") as error:
        merged(adapter, base, small_disk / "merged")
    assert "Read-only" in error.value.why
    assert entries(small_disk) == {"there"}


def test_folder_below_a_file_is_one_clear_error(adapter: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        merged(adapter, base, tmp_path / "file" / "merged")


def fill(folder: Path, leave: int) -> None:
    """Fill a disk but for `leave` bytes."""
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(os.urandom(free - leave))
