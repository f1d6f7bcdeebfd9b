"""``quickstart``: the first teaching notebook, opened or run headless."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Facts, duration_text
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option

_NOTEBOOK = "01_quickstart.ipynb"
_EXECUTED = "01_quickstart-executed.ipynb"


@dataclass(frozen=True, kw_only=True)
class QuickstartOptions:
    """The options of ``quickstart``."""

    run: bool = option(False, help="Run the notebook here, without a browser.")
    output_dir: str = option(
        "swift-quickstart", help="The folder for the notebook and its outputs.", completer="path"
    )
    timeout: int = option(3600, help="The longest time for one cell, in seconds.")


def run(options: QuickstartOptions, context: Context) -> Facts:
    """Copy the notebook and open or run it.

    Raises
    ------
    UserError
        When a cell fails, or JupyterLab is not installed.
    """
    check_positive(options, "timeout")
    folder = Path(options.output_dir).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            _("The folder {path} cannot be made.", path=folder), error.strerror or str(error)
        ) from None
    if options.run:
        return _run_headless(folder / _EXECUTED, options.timeout, context)
    notebook = folder / _NOTEBOOK
    if not notebook.exists():  # Else it may hold the user's own changes.
        shutil.copyfile(notebook_source(), notebook)
    return _open(notebook)


def notebook_source() -> Path:
    """Return the teaching notebook: beside the package's modules, or in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (folder / _NOTEBOOK).is_file():
            return folder / _NOTEBOOK
    raise UserError(
        _("The quickstart notebook is missing from the installation."),
        next_step="pip install --force-reinstall swift_jupyter",
    )


def _open(notebook: Path) -> Facts:
    import importlib.util

    if importlib.util.find_spec("jupyterlab") is None:
        raise UserError(
            _("JupyterLab is not installed."),
            next_step='pip install "swift_jupyter[lab]"',
        )
    facts = Facts(_("The notebook"), {_("file"): str(notebook)}, {"notebook": notebook})
    if "ipykernel" in sys.modules:
        return facts  # JupyterLab is open already; a second one would block this cell.
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    code = subprocess.call([sys.executable, "-m", "jupyterlab", *root, str(notebook)])
    if code:
        raise UserError(_("JupyterLab ended with code {code}.", code=code))
    return facts


def _run_headless(notebook: Path, timeout: int, context: Context) -> Facts:
    import nbformat
    from nbclient.exceptions import CellExecutionError

    document = nbformat.read(notebook_source(), as_version=4)
    client = _client(document, notebook, timeout, context)
    started = time.monotonic()
    try:
        client.execute()
    except CellExecutionError as error:
        raise UserError(
            _("A cell of the quickstart failed."),
            f"{error.ename}: {error.evalue}",
            _("The notebook so far: {path}", path=notebook),
        ) from None
    finally:
        nbformat.write(document, notebook)
    page = _write_html(document, notebook)
    facts = {
        _("notebook"): str(notebook),
        _("page"): str(page),
        _("time"): duration_text(time.monotonic() - started),
    }
    return Facts(_("The quickstart ran through."), facts, {"notebook": notebook, "html": page})


def _client(document: Any, notebook: Path, timeout: int, context: Context) -> Any:
    """Return an nbclient that tells about each code cell when it ends."""
    from nbclient import NotebookClient

    numbers = [i for i, cell in enumerate(document.cells) if cell.cell_type == "code"]
    times: dict[int, float] = {}

    def start(cell: Any, cell_index: int) -> None:
        times[cell_index] = time.monotonic()

    def end(cell: Any, cell_index: int, **_reply: Any) -> None:
        if cell_index not in times:
            return
        context.frontend.notice(
            _(
                "cell {number}/{count}  {time}  {source}",
                number=numbers.index(cell_index) + 1,
                count=len(numbers),
                time=duration_text(time.monotonic() - times[cell_index]).rjust(11),
                source=cell.source.splitlines()[0][:70] if cell.source else "",
            )
        )

    return NotebookClient(
        document,
        timeout=timeout,
        kernel_manager_class=_this_python(),
        resources={"metadata": {"path": str(notebook.parent)}},
        on_cell_execute=start,
        on_cell_executed=end,
    )


def _this_python() -> type:
    """Return a kernel manager that starts the Python that runs here.

    A kernel named python3 may be registered for another environment, in which this
    package is not installed.
    """
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from traitlets import default

    class OnlyThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            return KernelSpec(argv=make_ipkernel_cmd(), display_name="Python 3", language="python")

    class ThisKernel(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _only_this_python(self) -> KernelSpecManager:
            return OnlyThisPython(parent=self)

    return ThisKernel


def _write_html(document: Any, notebook: Path) -> Path:
    from nbconvert import HTMLExporter

    page, _resources = HTMLExporter().from_notebook_node(document)
    path = notebook.with_suffix(".html")
    path.write_text(page, encoding="utf-8")
    return path
