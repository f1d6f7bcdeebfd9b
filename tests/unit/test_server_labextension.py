"""How the sidebar gets into the package: its versions, its lock, its build hook."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from swift_jupyter.version import __version__

ROOT = Path(__file__).parents[2]
LABEXTENSION = ROOT / "labextension"


@pytest.fixture
def hook_module() -> ModuleType:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    spec = importlib.util.spec_from_file_location("hatch_build", LABEXTENSION / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_hook(module: ModuleType, root: Path) -> Any:
    """Make the hook for a tree at `root`, as hatchling does."""
    return module.LabextensionHook(str(root), {}, None, None, str(root), "wheel")


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, *programs: str) -> Path:
    """Make PATH hold only `programs`, each of which notes how it was called."""
    folder.mkdir()
    notes = folder / "notes"
    for name in programs:
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "{notes}"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return notes


def test_versions_agree() -> None:
    for name in ("package.json", "package-lock.json"):
        assert json.loads((LABEXTENSION / name).read_text())["version"] == __version__


def test_lock_names_no_registry() -> None:
    packages = json.loads((LABEXTENSION / "package-lock.json").read_text())["packages"]
    assert len(packages) > 100
    assert [name for name, entry in packages.items() if "resolved" in entry] == []


def test_texts_of_the_settings_are_translated_in_our_domain() -> None:
    schema = json.loads((LABEXTENSION / "schema" / "plugin.json").read_text())
    assert schema["jupyter.lab.internationalization"] == {"domain": "swift_jupyter"}


def test_a_built_sidebar_needs_no_node(
    hook_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a tree with the built sidebar, as in an sdist, and a machine without Node
    built = tmp_path / "tree" / "swift_jupyter" / "labextension"
    built.mkdir(parents=True)
    (built / "package.json").write_text("{}")
    put_on_path(tmp_path / "bin", monkeypatch)
    hook = make_hook(hook_module, tmp_path / "tree")
    # When it is built, then nothing is needed and nothing is run
    assert hook.dependencies() == []
    hook.initialize("standard", {})


def test_node_is_brought_in_only_where_it_is_missing(
    hook_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = make_hook(hook_module, tmp_path)

    put_on_path(tmp_path / "with", monkeypatch, "node", "npm")
    assert [name for name in hook.dependencies() if "nodejs" in name] == []

    put_on_path(tmp_path / "without", monkeypatch, "node")
    assert len([name for name in hook.dependencies() if "nodejs" in name]) == 1


@pytest.mark.parametrize(("version", "script"), [("standard", "build:prod"), ("editable", "build")])
def test_npm_installs_from_the_lock_then_builds(
    hook_module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    script: str,
) -> None:
    (tmp_path / "labextension").mkdir()
    notes = put_on_path(tmp_path / "bin", monkeypatch, "npm")
    make_hook(hook_module, tmp_path).initialize(version, {})
    assert notes.read_text().splitlines() == ["npm ci --omit=dev", f"npm run {script}"]


def test_a_failed_build_names_the_command(
    hook_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labextension").mkdir()
    put_on_path(tmp_path / "bin", monkeypatch)
    program = tmp_path / "bin" / "npm"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"'npm ci --omit=dev'.*status 7"):
        make_hook(hook_module, tmp_path).initialize("standard", {})
