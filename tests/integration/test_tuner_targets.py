"""Where adapters sit, what is frozen, and how single tuners keep their promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import build_adapter, build_tiny_model
from transformers import AutoModelForCausalLM
from tuning import fit, logits, prepare

from swift_jupyter.engine.export.merge import merge
from swift_jupyter.engine.inference.adapter_stack import AdapterStack
from swift_jupyter.engine.inference.adapters import load_adapter, locate_adapter
from swift_jupyter.engine.models.architecture import count_parameters
from swift_jupyter.engine.training.job import SftJob
from swift_jupyter.engine.training.tuners.rates import split_by_rate
from swift_jupyter.engine.training.tuners.registry import build_tuner
from swift_jupyter.engine.training.tuners.targets import common_divisor
from swift_jupyter.errors import UserError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("targets") / "model", layers=4)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def prepared(folder: Path, **options: Any) -> Any:
    return prepare(load(folder), build_tuner(SftJob(**options), total_steps=6))


def trained_modules(model: Any) -> set[str]:
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    prefix = "base_model.model.model.layers."
    return {name.removeprefix(prefix).partition(".lora_")[0] for name in names}


LINEAR = {
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
}


def in_layers(layers: list[int], names: set[str]) -> set[str]:
    return {f"{layer}.{name}" for layer in layers for name in names}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, in_layers([0, 1, 2, 3], LINEAR)),
        ({"target_layers": ["0-1"]}, in_layers([0, 1], LINEAR)),
        ({"target_layers": ["0", "-1:"]}, in_layers([0, 3], LINEAR)),
        ({"target_modules": ["q_proj"]}, in_layers([0, 1, 2, 3], {"self_attn.q_proj"})),
        (
            {"target_modules": ["q_proj", "down_proj"], "target_layers": ["2"]},
            in_layers([2], {"self_attn.q_proj", "mlp.down_proj"}),
        ),
        (
            {"target_regex": r".*\.[13]\.self_attn\.(q|v)_proj"},
            in_layers([1, 3], {"self_attn.q_proj", "self_attn.v_proj"}),
        ),
        (
            {"target_regex": r".*\.self_attn\.k_proj", "target_layers": ["1:3"]},
            in_layers([1, 2], {"self_attn.k_proj"}),
        ),
    ],
)
@pytest.mark.parametrize("tuner_type", ["lora", "lokr"])
def test_adapter_sits_where_it_is_told(
    tuner_type: str, options: dict[str, Any], expected: set[str], base: Path, tmp_path: Path
) -> None:
    tuner = build_tuner(SftJob(tuner_type=tuner_type, lora_dropout=0.0, **options))
    model = prepare(load(base), tuner)
    found = {name.partition(".lokr_")[0] for name in trained_modules(model)}
    assert found == expected
    # And sits there again when it is loaded
    fit(model, tuner)
    tuner.save(model, tmp_path, None)
    again = load_adapter(load(base), locate_adapter(str(tmp_path)), "x", "base")
    assert (logits(again) - logits(model)).abs().max() < 1e-6


def test_ia3_scales_inputs_of_feed_forward_layers_in_some_layers_too(
    base: Path, tmp_path: Path
) -> None:
    tuner = build_tuner(SftJob(tuner_type="ia3", target_layers=["1-2"]))
    model = prepare(load(base), tuner)
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
    assert len(shapes) == 6
    assert {shape for name, shape in shapes.items() if "down_proj" in name} == {(1, 64)}
    fit(model, tuner, rate=0.1)
    tuner.save(model, tmp_path, None)
    again = load_adapter(load(base), locate_adapter(str(tmp_path)), "x", "base")
    assert (logits(again) - logits(model)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("options", "what", "hint"),
    [
        ({"target_modules": ["q_porj"]}, "no module 'q_porj'", "q_proj"),
        ({"target_regex": "q_proj"}, "No module fits", "self_attn.q_proj"),
        ({"target_regex": "("}, "not a regular expression", ""),
        ({"target_layers": ["4"]}, "no layers 4", "from 0 to 3"),
        ({"tuner_type": "prompt_tuning", "target_layers": ["0"]}, "no target modules", ""),
        ({"modules_to_save": ["lm_heat"]}, "no module 'lm_heat'", "lm_head"),
        ({"tuner_type": "full", "freeze_parameters": ["layers"]}, "No parameter fits", "model."),
        ({"tuner_type": "full", "freeze_parameters": ["model"]}, "No parameter is left", ""),
        ({"tuner_type": "boft", "boft_block_size": 7}, "cannot be applied", "7"),
    ],
)
def test_what_fits_nothing_is_named(
    options: dict[str, Any], what: str, hint: str, base: Path
) -> None:
    with pytest.raises(UserError, match=what) as error:
        prepared(base, **options)
    assert hint in "\n".join(error.value.lines)


def frozen(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def test_freezing_by_layers_share_name_and_pattern(base: Path) -> None:
    def freeze(**options: Any) -> set[str]:
        return frozen(prepared(base, tuner_type="freeze", **options))

    every = {name for name, _p in load(base).named_parameters()}
    layer = {name for name in every if ".layers.3." in name}
    # By layers: all but the last
    assert freeze(target_layers=["-1:"]) == every - layer
    # By names, and trainable ones win
    embedding = "model.embed_tokens.weight"
    assert freeze(freeze_parameters=["model.embed"]) == {embedding}
    assert freeze(freeze_parameters=["model."], trainable_parameters=["model.layers.3"]) == (
        every - layer
    )
    # By patterns
    assert freeze(freeze_parameters_regex=r"mlp|embed|norm") == {
        name for name in every if any(word in name for word in ("mlp", "embed", "norm"))
    }
    # By share: from the input on, never more than the share
    model = load(base)
    total = sum(p.numel() for p in model.parameters())
    for ratio in (0.3, 0.6, 0.9):
        first = freeze(freeze_parameters_ratio=ratio)
        size = sum(p.numel() for name, p in model.named_parameters() if name in first)
        assert embedding in first
        assert 0 < size <= ratio * total
        names = [name for name, _p in model.named_parameters()]
        assert first == set(names[: len(first)])


@pytest.mark.parametrize("option", ["modules_to_save", "target_modules"])
@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_stay_tied_through_saving_and_merging(
    option: str, module: str, tied: bool, tmp_path: Path
) -> None:
    # Given a model whose embedding is its output layer, or not
    folder = build_tiny_model(tmp_path / "model", tied=tied)
    names = [module] if option == "modules_to_save" else ["all-linear", module]
    tuner = build_tuner(SftJob(lora_dropout=0.0, **{option: names}))
    # When one of the two is trained whole, or with LoRA
    model = prepare(load(folder), tuner)
    fit(model, tuner)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(module in name or tied for name in trained)
    # Then what is saved says the same on a fresh base
    checkpoint = tmp_path / "checkpoint-1"
    checkpoint.mkdir()
    tuner.save(model, checkpoint, None)
    again = load_adapter(load(folder), locate_adapter(str(checkpoint)), "x", "base")
    assert (logits(again) - logits(model)).abs().max() < 1e-5
    # And so does a merged model, read from the disk
    merged = merge(locate_adapter(str(checkpoint)), folder, tmp_path / "merged")
    assert merged.largest_difference < 1e-4
    whole = load(merged.path)
    assert (logits(whole) - logits(model)).abs().max() < 1e-4
    # And both have moved in a tied model, only the named one in another
    start = load(folder)
    for get in ("get_input_embeddings", "get_output_embeddings"):
        moved = not torch.equal(getattr(whole, get)().weight, getattr(start, get)().weight)
        assert moved == (tied or (get == "get_input_embeddings") == (module == "embed_tokens"))


def test_tuners_that_would_part_tied_weights_say_so(base: Path) -> None:
    with pytest.raises(UserError, match="cannot train embed_tokens") as error:
        prepared(base, tuner_type="lokr", modules_to_save=["embed_tokens"])
    assert "lora" in error.value.next_step


@pytest.mark.parametrize(
    ("init", "options"),
    [
        ("pissa", {}),
        ("pissa", {"use_rslora": True}),
        ("pissa_niter_4", {"use_dora": True}),
        ("olora", {}),
        ("olora", {"use_rslora": True}),
    ],
)
def test_adapters_that_began_by_changing_the_base_belong_to_the_unchanged_one(
    init: str, options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    # Given LoRA that begins with the main directions of the weights
    tuner = build_tuner(SftJob(init_weights=init, lora_rank=4, lora_dropout=0.0, **options))
    model = prepare(load(base), tuner)
    changed = [p for n, p in model.named_parameters() if "base_layer" in n]
    own = dict(load(base).named_parameters())
    assert not torch.equal(changed[0], own["model.layers.0.self_attn.q_proj.weight"])
    # At the start the model says what the base says
    assert (logits(model) - logits(load(base))).abs().max() < 1e-4
    fit(model, tuner)
    # When it is saved
    tuner.save(model, tmp_path, None)
    # Then it is plain LoRA of twice the rank, and two of them fit on one base
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["init_lora_weights"] is True
    assert config["r"] == 8
    other = build_adapter(tmp_path / "other", base)
    stack = AdapterStack(load(base), "base")
    stack.add(locate_adapter(f"other={other}"))
    stack.add(locate_adapter(f"mine={tmp_path}"))
    with stack.only("mine"):
        assert (logits(stack.model) - logits(model)).abs().max() < 1e-4
    with stack.only(""):
        assert torch.equal(logits(stack.model), logits(load(base)))


def test_adapters_of_others_that_change_the_base_leave_it_when_they_go(
    base: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    # Given a PiSSA adapter that peft saved as it is
    config = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights="pissa"
    )
    model = get_peft_model(load(base), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(1.5)
    model.eval().save_pretrained(tmp_path)
    bare = logits(load(base))
    # Then it answers as it did, and the base is the base before and after
    stack = AdapterStack(load(base), "base")
    stack.add(locate_adapter(f"foreign={tmp_path}"))
    stack.add(locate_adapter(f"plain={build_adapter(tmp_path / 'plain', base)}"))
    for _time in range(2):
        with stack.only("foreign"):
            assert (logits(stack.model) - logits(model)).abs().max() < 1e-4
        with stack.only(""):
            assert torch.equal(logits(stack.model), bare)
        with stack.only("plain"):
            assert (logits(stack.model) - logits(model)).abs().max() > 0.01


def test_adapters_of_different_kinds_take_turns(base: Path, tmp_path: Path) -> None:
    # Given adapters of four kinds
    stack, expected = AdapterStack(load(base), "base"), {}
    for name in ("lora", "boft", "reft", "prompt_tuning"):
        tuner = build_tuner(SftJob(tuner_type=name, num_virtual_tokens=4, lora_dropout=0.0))
        model = prepare(load(base), tuner)
        fit(model, tuner, rate=0.1)
        (tmp_path / name).mkdir()
        tuner.save(model, tmp_path / name, None)
        expected[name] = logits(model)
        stack.add(locate_adapter(f"{name}={tmp_path / name}"))
    expected[""] = logits(load(base))
    # Then each answers as itself, in any order
    for name in ("boft", "", "lora", "reft", "prompt_tuning", "", "lora", "boft", "reft", ""):
        with stack.only(name):
            assert (logits(stack.model) - expected[name]).abs().max() < 1e-5, name


def test_lora_plus_trains_b_faster(base: Path) -> None:
    # Given LoRA+ and an optimizer with two groups
    tuner = build_tuner(SftJob(tuner_type="lora+", lorap_lr_ratio=8.0))
    model = prepare(load(base), tuner)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    halves = [list(trained.values())[::2], list(trained.values())[1::2]]
    optimizer = torch.optim.AdamW(
        [
            {"params": half, "weight_decay": decay}
            for half, decay in zip(halves, (0.1, 0.0), strict=True)
        ],
        lr=1e-3,
    )
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    # When it is split
    split_by_rate(optimizer, model, tuner.rates(model))
    # Then every B has eight times the rate, all else stays, and nothing is lost
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(groups) == len(trained)
    for name, parameter in trained.items():
        group = groups[id(parameter)]
        assert group["lr"] == (8e-3 if "lora_B" in name else 1e-3)
        assert group["weight_decay"] == decays[id(parameter)]


def test_adalora_ends_with_the_ranks_it_was_told(base: Path, tmp_path: Path) -> None:
    # Given a budget of two ranks a matrix, from four
    tuner = build_tuner(
        SftJob(tuner_type="adalora", adalora_init_r=4, adalora_target_r=2), total_steps=8
    )
    model = prepare(load(base), tuner)
    # When it is trained to the end
    fit(model, tuner, steps=8)
    tuner.save(model, tmp_path, None)
    # Then the budget is met on the whole, not matrix by matrix
    ranks = [
        tensor.shape[0]
        for name, tensor in load_file(tmp_path / "adapter_model.safetensors").items()
        if "lora_E" in name
    ]
    assert len(ranks) == 28
    assert sum(ranks) == 2 * 28
    assert len(set(ranks)) > 1
    # And the matrices are nearer to orthogonal ones than without the penalty
    free = build_tuner(
        SftJob(tuner_type="adalora", adalora_init_r=4, adalora_target_r=2,
               adalora_orth_reg_weight=0.0), total_steps=8,
    )  # fmt: skip
    loose = prepare(load(base), free)
    fit(loose, free, steps=8)
    assert free.penalty(loose) is None
    loose.peft_config["default"].orth_reg_weight = 0.5
    assert float(tuner.penalty(model)) < float(tuner.penalty(loose))


def test_adapter_of_a_shallower_model_is_refused(base: Path, tmp_path: Path) -> None:
    # Given an adapter of a model of the same width with fewer layers
    shallow = build_tiny_model(tmp_path / "shallow", layers=2)
    adapter = build_adapter(tmp_path / "adapter", shallow)
    # Then it does not pass for one of the deeper model
    with pytest.raises(UserError, match="does not fit deep") as error:
        load_adapter(load(base), locate_adapter(str(adapter)), "x", "deep")
    assert "number of layers" in error.value.why
    # Also when only its args.json knows
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(str(shallow), "elsewhere"))
    (adapter / "args.json").write_text(json.dumps({"base_architecture": {"num_hidden_layers": 2}}))
    with pytest.raises(UserError, match="does not fit deep"):
        load_adapter(load(base), locate_adapter(str(adapter)), "x", "deep")


@pytest.mark.parametrize("limit", [256, 7])
def test_sizes_of_blocks_divide_every_width(limit: int, tmp_path: Path) -> None:
    model = load(build_tiny_model(tmp_path / "model", hidden=48))  # Widths of 24, 48 and 96.
    found = common_divisor(model, limit)
    widths = {size for name, p in model.named_parameters() if "proj" in name for size in p.shape}
    assert len(widths) > 1
    assert found == max(n for n in range(1, limit + 1) if all(size % n == 0 for size in widths))


def test_few_bits_are_counted_as_numbers() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    layer = bitsandbytes.nn.Linear4bit(64, 128, bias=False).to("cpu")
    assert layer.weight.numel() < 64 * 128
    assert count_parameters(layer)[1] == 64 * 128
