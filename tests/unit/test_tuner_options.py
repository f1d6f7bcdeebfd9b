"""Options of tuners: what they mean, and that none is left aside in silence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swift_jupyter.commands.parsing import parse
from swift_jupyter.commands.table import COMMANDS
from swift_jupyter.engine.training import job as job_options
from swift_jupyter.engine.training.job import SftJob, check_methods
from swift_jupyter.engine.training.tuners.layer_spec import check_layer_spec, select_layers
from swift_jupyter.engine.training.tuners.names import TUNER_TYPES, WHOLE_MODEL_TUNERS
from swift_jupyter.engine.training.tuners.peft_tuners import PEFT_TUNERS, merges
from swift_jupyter.engine.training.tuners.tuner_args import read_tuner_args, value_of
from swift_jupyter.errors import OptionError, UserError


def test_every_name_has_a_tuner_and_every_option_exists() -> None:
    import peft

    assert set(TUNER_TYPES) == {*PEFT_TUNERS, *WHOLE_MODEL_TUNERS, "reft"}
    options = {field.name for field in dataclasses.fields(SftJob)}
    for name, kind in PEFT_TUNERS.items():
        config = getattr(peft, kind.config)
        fields = {field.name for field in dataclasses.fields(config)}
        assert {*kind.options, *kind.fixed, *kind.required} <= fields, name
        assert set(kind.options.values()) <= options, name


def test_what_cannot_be_merged_is_named_as_peft_names_it() -> None:
    from peft import PeftType

    assert sum(not merges(kind.value) for kind in PeftType) == 10


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["0-2"], [0, 1, 2]),
        (["-2:"], [4, 5]),
        (["0-1,-1:"], [0, 1, 5]),
        (["4", "0"], [0, 4]),
        (["-1"], [5]),
        ([":2", "::5"], [0, 1, 5]),
        (["1:3"], [1, 2]),
    ],
)
def test_layers_that_are_meant(parts: list[str], expected: list[int]) -> None:
    assert select_layers(parts, 6) == expected


@pytest.mark.parametrize("part", ["6", "0-6", "-7", "6:", "3-2"])
def test_layers_that_the_model_has_not(part: str) -> None:
    with pytest.raises(UserError, match="has no layers"):
        select_layers([part], 6)


@pytest.mark.parametrize("part", ["a", "1-", "1--2", ":::", "1:2:0", "1.5", "last"])
def test_layers_that_mean_nothing(part: str) -> None:
    with pytest.raises(OptionError, match="cannot be"):
        check_layer_spec([part])


@given(st.integers(1, 50), st.data())
def test_a_range_has_both_ends_and_a_slice_is_pythons(count: int, data: Any) -> None:
    low = data.draw(st.integers(0, count - 1))
    high = data.draw(st.integers(low, count - 1))
    assert select_layers([f"{low}-{high}"], count) == list(range(low, high + 1))
    assert select_layers([f"{low}:{high + 1}"], count) == list(range(count))[low : high + 1]


@dataclass
class Config:
    rank: int = 4
    scale: float = 1.0
    both: bool = False
    pattern: Any = None


def test_tuner_args_become_values_of_their_types() -> None:
    given = {"rank": "8", "scale": "2", "both": "true", "pattern": '{"q_proj": 4}'}
    assert read_tuner_args(Config, given, "x") == {
        "rank": 8,
        "scale": 2.0,
        "both": True,
        "pattern": {"q_proj": 4},
    }
    assert [value_of(text) for text in ("1e-3", "none", "[1, 2]", "['a']", "relu")] == [
        0.001,
        None,
        [1, 2],
        ["a"],
        "relu",
    ]


def test_unknown_tuner_args_are_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="'scales'") as error:
        read_tuner_args(Config, {"scales": "1"}, "lokr")
    assert "scale" in error.value.why
    with pytest.raises(OptionError, match="whole number"):
        read_tuner_args(Config, {"rank": "many"}, "lokr")


@pytest.mark.parametrize(
    "options",
    [
        {"tuner_type": "boft", "use_dora": True},
        {"tuner_type": "vera", "init_weights": "pissa"},
        {"tuner_type": "lokr", "lorap_lr_ratio": 16.0},
        {"tuner_type": "lora", "freeze_parameters_ratio": 0.5},
        {"tuner_type": "full", "modules_to_save": ["lm_head"]},
        {"tuner_type": "full", "target_modules": ["q_proj"]},
        {"tuner_type": "reft", "tuner_args": {"r": "1"}},
        {"tuner_type": "freeze"},
        {"tuner_type": "full", "freeze_parameters_ratio": 1.0},
        {"init_weights": "picca"},
        {"target_layers": ["x"]},
        {"tuner_type": "reft", "reft_positions": "some"},
        {"tuner_type": "adalora", "adalora_target_r": 12},
        {"quant_bits": 3, "quant_method": "bnb"},
        {"quant_bits": 4},
        {"tuner_backend": "unsloth", "tuner_type": "lokr"},
        {"tuner_backend": "unsloth", "use_dora": True},
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        check_methods(SftJob(**options))


@pytest.mark.parametrize("tuner_type", [name for name in TUNER_TYPES if name != "freeze"])
def test_defaults_fit_every_tuner(tuner_type: str) -> None:
    check_methods(SftJob(tuner_type=tuner_type))


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"attn_impl": "flash_attention_2"}, "flash-attn"),
        ({"use_liger_kernel": True}, "liger-kernel"),
        ({"tuner_backend": "unsloth"}, "unsloth"),
    ],
)
def test_backends_that_are_missing_are_named(options: dict[str, Any], missing: str) -> None:
    # Without the package, before anything is loaded
    with pytest.raises(UserError, match=missing) as error:
        check_methods(SftJob(**options))
    assert f"%pip install {missing}" in error.value.next_step
    # And without a GPU, whatever is installed
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        check_methods(SftJob(**options), "cpu")


def test_quantisation_without_its_package_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib import util

    found = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else found(name)
    )
    with pytest.raises(UserError, match="bitsandbytes") as error:
        check_methods(SftJob(quant_method="bnb"))
    assert "%pip install" in error.value.next_step


@pytest.mark.parametrize("tuner_type", ["full", "loha", "pissa", "dora"])
def test_tuners_that_cannot_sit_on_few_bits(
    tuner_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_options, "check_quantisation", lambda job: None)
    with pytest.raises(OptionError, match=r"few bits|whole|8 bits"):
        check_methods(SftJob(tuner_type=tuner_type, quant_method="bnb", quant_bits=8), "cpu")


def test_names_of_others_and_yaml() -> None:
    command = COMMANDS["sft"]
    for alias, name in (("bone", "miss"), ("loreft", "reft"), ("qlora", "lora")):
        words = ["--train_type", alias, "--dataset", "x"]
        assert parse(command, words).options.tuner_type == name
    body = "tuner_type: lokr\ntuner_args: {decompose_both: true, decompose_factor: 4}\n"
    options = parse(command, ["--dataset", "x", "--target_layers=-4:"], body).options
    assert options.tuner_args == {"decompose_both": "true", "decompose_factor": "4"}
    assert options.target_layers == ["-4:"]
    words = ["--dataset", "x", "--tuner_type", "reft", "--reft_intervention_type"]
    assert parse(command, [*words, "NoreftIntervention"]).options.reft_intervention_type == "noreft"
