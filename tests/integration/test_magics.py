"""The magic in a real shell: what a person types, sees and gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from shells import isolated_shell
from tiny_models import build_tiny_model

import swift_jupyter
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.magics.swift import SwiftMagics


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    with isolated_shell(tmp_path, monkeypatch) as shell:
        shell.run_cell("%load_ext swift_jupyter")
        yield shell


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def run(shell: InteractiveShell, cell: str) -> Any:
    """Run a cell and return what it displayed as its result."""
    return shell.run_cell(cell).result


def magics_of(shell: InteractiveShell) -> list[SwiftMagics]:
    return [known for known in shell.configurables if isinstance(known, SwiftMagics)]


# Overview and help


def test_the_magic_alone_gives_an_overview(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(shell, "%swift")
    printed = capsys.readouterr().out
    assert "%swift sft" in printed and "%%swift infer --model smollm2-demo" in printed
    assert "<table>" in result.html()
    assert run(shell, "%swift help").text() == result.text()


@pytest.mark.parametrize("line", ["%swift sft --help", "%swift help sft"])
def test_help_explains_a_command(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    run(shell, line)
    printed = capsys.readouterr().out
    assert "--lora_rank" in printed and "--out, -o" in printed


def test_question_mark_explains_the_magic(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%swift?")
    printed = capsys.readouterr().out
    assert "download, infer, sft" in printed and "--out NAME" in printed


# Errors


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%swift sfft", "Did you mean sft?"),
        ("%swift sft --lora_rnak 8", "--lora_rank"),
        ("%%swift sft\nlora_rank: 8\nlora_alhpa: 8", "Line 3: sft has no option 'lora_alhpa'."),
        ("%swift sft --model x --dataset $nothing", "There is no variable 'nothing'."),
        ("%swift sft", "sft needs a model."),
        ("%swift sft --model smollm2-demo", "sft needs a data set."),
        ("%swift sft --model ./absent --dataset self-cognition#5", "./absent"),
        ("%swift sft --model smollm2-demo --dataset d --lora_rank 0", "lora_rank must be above 0"),
        ("%swift sft --model smollm2-demo --dataset absent.jsonl", "absent.jsonl"),
        ("%swift infer", "infer needs a prompt."),
        ("%swift infer Hello", "infer needs a model."),
        ("%swift infer --model nosuchmodel --temperature -1 Hello", "temperature"),
        ("%swift infer --model nosuchmodel Hello", "No model is called 'nosuchmodel'."),
        ("%swift merge absent", "There is no adapter in absent."),
        ("%swift runs attach", "There is no run to attach."),
        ("%swift runs show sft-0000", "There is no run 'sft-0000'."),
        ("%swift runs logs --lines 0", "lines must be above 0"),
        ("%swift cache rm", "cache rm needs a name."),
        ("%swift cache rm x", "'x' is not in the cache."),
        ("%swift config set hbu x", "There is no setting 'hbu'."),
        ("%swift config set hub x", "It is one of modelscope, huggingface."),
        ("%swift config set hub", "config set needs a name"),
        ("%swift download --dataset x", "'x' is not the id of a data set."),
        ("%swift models --limit 0", "limit must be above 0"),
        ("%swift models --json", "NAME.to_dict()"),
        ("%%swift models\nbody", "takes no cell body"),
    ],
)
def test_what_a_person_can_mend_fails_the_cell_in_three_lines(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], cell: str, words: str
) -> None:
    capsys.readouterr()
    # When the cell runs, it fails
    with pytest.raises(UserError):
        shell.run_cell(cell)
    # And says why, without a traceback
    printed, other = capsys.readouterr()
    assert words in printed
    assert "Traceback" not in printed and "swift_jupyter/" not in printed and other == ""
    assert 1 <= len(printed.strip().splitlines()) <= 3


def test_short_errors_can_be_switched_off(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%config SwiftMagics.short_errors = False")
    capsys.readouterr()
    with pytest.raises(RuntimeError, match="Did you mean sft"):
        shell.run_cell("%swift sfft")
    assert "Traceback" in capsys.readouterr().out


def test_a_bug_keeps_its_traceback(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("swift_jupyter.commands.models.search", broken)
    with pytest.raises(ZeroDivisionError):
        shell.run_cell("%swift models qwen")
    assert "Traceback" in capsys.readouterr().out


# Results


def test_a_result_can_be_assigned_and_kept(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    # When a result goes to a name, it is not displayed
    shell.run_cell("r = %swift models qwen2.5-0.5b")
    shell.run_cell("%swift models qwen2.5-0.5b --out kept")
    assert capsys.readouterr().out == ""
    # And the name has it
    for name in ("r", "kept"):
        result = shell.user_ns[name]
        assert any("Qwen2.5-0.5B" in row["name"] for row in result)
    assert len(shell.user_ns["kept"].to_pandas()) == len(shell.user_ns["r"])
    # When it ends the cell, it is displayed once
    run(shell, "%swift models qwen2.5-0.5b")
    printed = capsys.readouterr().out
    assert printed.count("Qwen/Qwen2.5-0.5B-Instruct ") == 1


def test_lines_see_the_variables_where_they_stand(shell: InteractiveShell) -> None:
    shell.run_cell(
        "def search(word):\n"
        "    result = %swift models $word --limit {1 + 1}\n"
        "    return result\n"
        "found = search('qwen2.5')"
    )
    assert len(shell.user_ns["found"]) == 2


def test_an_answer_is_displayed_once_and_again_from_the_next_cell_on(
    shell: InteractiveShell, tiny_model: Path
) -> None:
    shell.run_cell("%config SwiftMagics.display = 'html'")
    line = f"%swift infer --model {tiny_model} --max_new_tokens 3 --temperature 0 Hello"

    def answers(cell: str) -> set[str]:
        with capture_output() as captured:
            shell.run_cell(cell)
        # A shell without a kernel writes its prompt before it asks what to display.
        assert captured.stdout.strip() in ("", "Out[0]:")
        bars = ("loading into memory", "done", "failed")
        return {
            (output.transient or {}).get("display_id", str(index))
            for index, output in enumerate(captured.outputs)
            if not any(f" · {word}" in output.data["text/plain"] for word in bars)
        }

    # When a model answers in the last line of a cell, or into a name
    assert len(answers(line)) == 1
    assert len(answers(f"r = {line}")) == 1
    # Then the name is displayed by itself, as often as wanted
    with capture_output() as captured:
        shell.run_cell("from IPython.display import display\ndisplay(r)\ndisplay(r)")
    text = shell.user_ns["r"].text()
    assert [output.data["text/plain"] for output in captured.outputs] == [text, text]
    # And it can be asked again, as the prompt of a cell and from its own conversation
    shell.run_cell(f"%%swift infer --model {tiny_model} --max_new_tokens 2 --history $r -o s\nAnd?")
    roles = [message["role"] for message in shell.user_ns["s"].messages]
    assert roles == ["user", "assistant", "user", "assistant"]
    # And the functions of the package share its memory and return the same
    said = swift_jupyter.infer("Hello", model=str(tiny_model), max_new_tokens=3, temperature=0)
    assert said.text() == text and not said.shown
    assert run(shell, "%swift unload").unloaded


# Settings


def config_file(root: Path) -> Path:
    return root / "xdg_config_home" / "swift_jupyter" / "config.json"


def settings_shown(shell: InteractiveShell) -> dict[str, tuple[Any, str]]:
    table = shell.run_line_magic("swift", "config")
    return {row["name"]: (row["value"], row["from"]) for row in table}


def test_config_is_in_force_at_once_and_names_its_origin(
    shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings_shown(shell)["default_model"] == ("", "default")
    # Given the same setting in the file, the environment and %config, each wins over the last
    shell.run_cell("%swift config set default_model in-file")
    assert json.loads(config_file(tmp_path).read_text()) == {"default_model": "in-file"}
    assert settings_shown(shell)["default_model"] == ("in-file", str(config_file(tmp_path)))
    monkeypatch.setenv("SWIFT_JUPYTER_DEFAULT_MODEL", "in-environment")
    assert settings_shown(shell)["default_model"][0] == "in-environment"
    shell.run_cell("%config SwiftMagics.default_model = 'in-notebook'")
    assert settings_shown(shell)["default_model"] == ("in-notebook", "%config")
    # And the command that uses it sees it, as does the function
    for cell in ("%swift infer Hello", "import swift_jupyter\nswift_jupyter.infer('Hello')"):
        with pytest.raises(UserError, match="in-notebook"):
            shell.run_cell(cell)
    # And it goes away again
    shell.run_cell("%swift config unset default_model")
    assert json.loads(config_file(tmp_path).read_text()) == {}


def test_a_wrong_value_is_refused_where_it_is_given(
    shell: InteractiveShell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shell.run_cell("%config SwiftMagics.hub = 'nowhere'")
    assert "any of ['modelscope', 'huggingface']" in caplog.text
    assert settings_shown(shell)["hub"] == ("modelscope", "default")
    monkeypatch.setenv("SWIFT_JUPYTER_HUB", "nowhere")
    with pytest.raises(UserError, match="SWIFT_JUPYTER_HUB"):
        shell.run_cell("%swift config")
    monkeypatch.setenv("SWIFT_JUPYTER_HUB", "")
    assert settings_shown(shell)["hub"] == ("modelscope", "default")


def test_the_function_sees_a_setting_stored_by_the_function(shell: InteractiveShell) -> None:
    swift_jupyter.config("set", "default_model", "stored-one")
    with pytest.raises(UserError, match="stored-one"):
        swift_jupyter.infer("Hello")


# Loading


def test_loading_twice_registers_once(shell: InteractiveShell) -> None:
    shell.run_cell("%load_ext swift_jupyter")
    shell.run_cell("%reload_ext swift_jupyter")
    assert len(magics_of(shell)) == 1
    assert len(shell.Completer.custom_matchers) == 1
    run(shell, "%swift")


def test_unloading_leaves_nothing_and_loading_works_again(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("%config SwiftMagics.default_model = 'x'")
    shell.run_cell("%unload_ext swift_jupyter")
    assert magics_of(shell) == [] and shell.Completer.custom_matchers == []
    assert "SwiftMagics" not in shell.magics_manager.registry
    assert shell.find_line_magic("swift") is None and shell.find_cell_magic("swift") is None
    shell.run_cell("%load_ext swift_jupyter")
    assert len(magics_of(shell)) == 1
    run(shell, "%swift")


def test_a_broken_settings_file_is_named_and_does_not_take_the_magic_away(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given a shell that loads the extension with a broken file
    shell.run_cell("%unload_ext swift_jupyter")
    config_file(tmp_path).parent.mkdir(parents=True)
    config_file(tmp_path).write_text("{", encoding="utf-8")
    shell.run_cell("%load_ext swift_jupyter")
    # Then it says so
    assert str(config_file(tmp_path)) in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot be read"):
        shell.run_cell("%swift models qwen")
    # And works when it is mended
    config_file(tmp_path).unlink()
    assert len(run(shell, "%swift models qwen")) > 0


def test_functions_take_what_the_magic_takes(shell: InteractiveShell) -> None:
    assert len(swift_jupyter.models("qwen2.5 0.5b", limit=2)) == 2
    with pytest.raises(OptionError, match="models has no option 'limt'"):
        swift_jupyter.models("qwen", limt=2)
    with pytest.raises(OptionError, match="fewer values"):
        swift_jupyter.models("qwen", 2)
    assert swift_jupyter.manage_runs().to_dict()["rows"] == []
    with pytest.raises(AttributeError, match="nothing"):
        _ = swift_jupyter.nothing
