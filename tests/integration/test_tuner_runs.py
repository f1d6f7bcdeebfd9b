"""Trainings by a real worker that are not LoRA, and what infer and merge make of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox import isolated_session
from tiny_models import build_tiny_model, write_rows

import swift_jupyter
from swift_jupyter.errors import OptionError, UserError


class Lab:
    """A tiny model, its rows, and a session of its own."""

    def __init__(self, folder: Path, context: Any) -> None:
        self.folder = folder
        self.context = context
        self.model = str(build_tiny_model(folder / "model", layers=3))
        self.rows = str(write_rows(folder / "rows.jsonl", 24))

    def sft(self, tuner_type: str, **options: Any) -> Any:
        values = {
            "model": self.model,
            "dataset": [self.rows],
            "output_dir": str(self.folder / tuner_type),
            "max_steps": 12,
            "logging_steps": 1,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "num_threads": 1,
            **options,
        }
        return swift_jupyter.sft(tuner_type=tuner_type, **values)

    def ask(self, *adapters: Any, **options: Any) -> dict[str, str]:
        result = swift_jupyter.infer(
            "Who are you?", adapters=list(adapters), temperature=0, max_new_tokens=12, **options
        )
        return {name: str(answer) for name, answer in result.answers.items()}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("tuner-runs")
    with isolated_session(folder) as context:
        yield Lab(folder, context)


def falls(run: Any) -> bool:
    losses = [row["loss"] for row in run.history if "loss" in row]
    return bool(sum(losses[-3:]) < sum(losses[:3]))


def test_frozen_training_leaves_a_model(lab: Lab) -> None:
    # Given a run that trained the last layer's own weights
    run = lab.sft("freeze", target_layers=["-1:"], learning_rate=1e-2)
    assert falls(run)
    assert 0 < run.metrics["trainable_parameters"] < run.metrics["parameters"]
    bare = lab.ask(model=lab.model)
    # Then its checkpoint answers as a model, however it is named
    answers = lab.ask(run)
    assert list(answers) == [run.id]
    assert list(answers.values()) != list(bare.values())
    for named in (str(run.checkpoint), str(run.path)):
        assert list(lab.ask(model=named).values()) == list(answers.values())
        assert list(lab.ask(named).values()) == list(answers.values())
    # And it is no adapter for another model, and nothing to merge
    with pytest.raises(UserError, match="whole model"):
        lab.ask(run, model=lab.model)
    with pytest.raises(UserError, match="nothing to merge") as error:
        swift_jupyter.merge(run)
    assert "--model" in error.value.next_step


def test_reft_answers_beside_other_adapters(lab: Lab) -> None:
    # Given a run with ReFT and one with MiSS
    reft = lab.sft("reft", learning_rate=5e-2, reft_positions="f3+l3")
    other = lab.folder / "other.jsonl"
    other.write_text(json.dumps({"query": "Who are you?", "response": "Zzz zzz zzz."}) + "\n")
    miss = lab.sft("miss", learning_rate=1e-2, dataset=[f"{other}#16"])
    assert falls(reft) and falls(miss)
    assert reft.metrics["trainable_parameters"] == 3 * (2 * 4 * 32 + 4)
    # Then both answer on one base in memory, each as when it is alone
    together = lab.ask(reft, miss)
    assert list(together) == [reft.id, miss.id]
    assert together[reft.id] != together[miss.id]
    assert lab.ask(reft)[reft.id] == together[reft.id]
    assert lab.ask(miss)[miss.id] == together[miss.id]
    # And one of them merges
    merged = swift_jupyter.merge(miss)
    assert merged.to_dict()["largest_difference"] < 1e-4
    with pytest.raises(UserError, match="cannot be merged"):
        swift_jupyter.merge(reft)


def test_quantised_training_belongs_to_the_whole_base(lab: Lab) -> None:
    pytest.importorskip("bitsandbytes")
    # Given LoRA on a base of four bits
    base = str(build_tiny_model(lab.folder / "wide", hidden=128))
    run = lab.sft("lora", model=base, quant_method="bnb", learning_rate=5e-3)
    assert falls(run)
    assert json.loads((run.path / "args.json").read_text())["quant_method"] == "bnb"
    # Then it answers on the base as it is, and merges into it
    assert lab.ask(run) != lab.ask(model=base)
    merged = swift_jupyter.merge(run)
    assert merged.to_dict()["largest_difference"] < 1e-4
    config = json.loads((Path(merged.to_dict()["path"]) / "config.json").read_text())
    assert "quantization_config" not in config


def test_what_cannot_work_is_said_before_a_run_is_made(lab: Lab) -> None:
    with pytest.raises(OptionError, match="boft has no option use_dora"):
        lab.sft("boft", use_dora=True, output_dir=str(lab.folder / "none"))
    with pytest.raises(UserError, match="Liger"):
        lab.sft("lora", use_liger_kernel=True, output_dir=str(lab.folder / "none"))
    assert not (lab.folder / "none").exists()
