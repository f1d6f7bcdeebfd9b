"""The command table: whole, usable, and the same in parser, settings and README."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import swift_jupyter
from swift_jupyter.commands.parsing import parse
from swift_jupyter.commands.table import COMMANDS, Command
from swift_jupyter.display.help import BEGIN, END, command_help, overview, reference_markdown
from swift_jupyter.magics.expansion import expand_words
from swift_jupyter.magics.swift import SwiftMagics
from swift_jupyter.magics.words import split_line
from swift_jupyter.options import option, option_specs
from swift_jupyter.sdk import FUNCTIONS
from swift_jupyter.settings import FIELDS

ROOT = Path(__file__).parents[2]
COMPLETERS = {
    "",
    "model",
    "dataset",
    "path",
    "run",
    "adapter",
    "setting",
    "cached",
    "mirror",
    "source",
}
REGENERATE = "python -m swift_jupyter.display.help README.md README.zh-CN.md"

every_command = pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))


def is_sentence(text: str) -> bool:
    return text[:1] == text[:1].upper() and text.endswith(".") and not text.endswith("..")


@every_command
def test_a_command_can_be_loaded_and_explains_itself(command: Command) -> None:
    specs = option_specs(command.load_options())
    assert list(inspect.signature(command.load_function()).parameters) == ["options", "context"]
    assert inspect.getdoc(command.load_function())
    assert inspect.getdoc(importlib.import_module(command.module_name))
    assert is_sentence(command.summary)
    for spec in specs.values():
        assert is_sentence(spec.help), f"{spec.name}: {spec.help}"
        assert spec.completer in COMPLETERS, spec.name
        assert set(spec.choice_aliases.values()) <= set(spec.choices), spec.name
        if spec.choices and not spec.required and spec.default is not None:
            assert spec.default in spec.choices, spec.name


@every_command
def test_no_name_means_two_options(command: Command) -> None:
    taken = ["out", "json", "help", "config", "o", "h"]
    for spec in option_specs(command.load_options()).values():
        taken += [spec.name, *spec.aliases, *([spec.short] if spec.short else [])]
    assert len(taken) == len(set(taken)), sorted(taken)


@every_command
def test_its_examples_parse(command: Command) -> None:
    assert command.examples
    for example in command.examples:
        first, _newline, body = example.partition("\n")
        prefix, name, *words = split_line(first)
        assert prefix == ("%%swift" if body else "%swift") or prefix == "swift-jupyter"
        assert name == command.name
        variables = {"df": object(), "run": object()}
        parsed = parse(command, expand_words(words, variables), body or None)
        assert parsed.options is not None


@every_command
def test_its_help_page_names_every_option(command: Command) -> None:
    for prefix in ("%swift", "swift-jupyter"):
        page = command_help(command, prefix)
        for spec in option_specs(command.load_options()).values():
            assert spec.flag in page.text() and spec.flag in page.html()
            assert " ".join(spec.help.split()) in " ".join(page.text().split())


def test_the_overview_names_every_command() -> None:
    assert all(f"%swift {name}" in overview("%swift").text() for name in COMMANDS)


def test_every_setting_can_be_configured() -> None:
    traits = SwiftMagics.class_traits(config=True)
    assert set(traits) == set(FIELDS)
    for name, trait in traits.items():
        assert trait.help == FIELDS[name].metadata["help"]
        assert is_sentence(trait.help)


@every_command
def test_every_command_is_a_function_of_the_package(command: Command) -> None:
    # Given that all modules are imported, whose names are attributes of the package too
    command.load_function()
    function = getattr(swift_jupyter, command.function_name)
    assert function is FUNCTIONS[command.function_name]
    assert command.summary in function.__doc__
    names = set(inspect.signature(function).parameters) - {"values"}
    assert names == set(option_specs(command.load_options()))
    assert command.function_name in dir(swift_jupyter)


def test_a_field_without_a_declaration_is_refused() -> None:
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Wrong:
        seed: int = 42

    @dataclasses.dataclass(frozen=True)
    class Odd:
        seed: bytes = option(b"", help="Bytes.")

    with pytest.raises(TypeError, match="seed"):
        option_specs(Wrong)
    with pytest.raises((TypeError, KeyError)):
        option_specs(Odd)


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_has_the_reference(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert f"{BEGIN}\n{reference_markdown()}\n{END}" in text, f"Run: {REGENERATE}"


def test_the_reference_is_written_between_its_markers(tmp_path: Path) -> None:
    # Given a file with text around an old reference, and one without a place for it
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(f"before\n{BEGIN}\nold \\1\n{END}\nafter\n", encoding="utf-8")
    bad.write_text("nothing here\n", encoding="utf-8")

    def regenerate(path: Path) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "swift_jupyter.display.help", str(path)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)

    # When it is written, twice
    assert regenerate(good).returncode == 0
    once = good.read_text(encoding="utf-8")
    assert regenerate(good).returncode == 0
    # Then it is there once, and the rest as it was
    assert good.read_text(encoding="utf-8") == once
    assert once == f"before\n{BEGIN}\n{reference_markdown()}\n{END}\nafter\n"
    # And the other file is refused and untouched
    failed = regenerate(bad)
    assert failed.returncode == 1 and BEGIN in failed.stderr
    assert bad.read_text(encoding="utf-8") == "nothing here\n"


def test_the_reference_is_a_table_that_markdown_understands() -> None:
    rows = [line for line in reference_markdown().splitlines() if line.startswith("| `--")]
    assert len(rows) > 80
    for row in rows:
        assert row.replace("\\|", "").count("|") == 5, row
        assert "<" not in row, row
