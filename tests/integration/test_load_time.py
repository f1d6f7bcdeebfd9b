"""Loading the extension is light: it imports none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shells import isolated_environment

ROOT = Path(__file__).parents[2]
HEAVY = {
    "accelerate",
    "datasets",
    "huggingface_hub",
    "ipywidgets",
    "matplotlib",
    "modelscope",
    "modelscope_hub",
    "nbclient",
    "numpy",
    "pandas",
    "peft",
    "torch",
    "transformers",
    "yaml",
}
SHELL = (
    "from IPython.core.interactiveshell import InteractiveShell\n"
    "shell = InteractiveShell.instance()\n"
)


@pytest.mark.parametrize(
    "code",
    [
        "import swift_jupyter",
        f"{SHELL}shell.run_cell('%load_ext swift_jupyter').raise_error()\n"
        "assert shell.find_line_magic('swift')",
        # Still light: the overview, help and completion, which also people without a GPU use.
        f"{SHELL}shell.run_cell('%load_ext swift_jupyter').raise_error()\n"
        "shell.run_cell('%swift').raise_error()\n"
        "shell.run_cell('%swift sft --help').raise_error()\n"
        "shell.complete('', '%swift sft --lo', 15)",
        "from swift_jupyter.cli import main\nassert main(['sft', '--help']) == 0",
        "import swift_jupyter\nswift_jupyter.sft, dir(swift_jupyter)",
    ],
    ids=["import", "load_ext", "help", "cli", "functions"],
)
def test_nothing_heavy_is_imported(tmp_path: Path, code: str) -> None:
    report = "\nimport sys\nprint('\\nMODULES', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        env={**isolated_environment(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.rpartition("MODULES ")[2].split())
    assert "swift_jupyter" in modules
    assert modules & HEAVY == set()
