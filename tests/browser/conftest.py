"""A real JupyterLab server and a real Chromium, cut off from the user's files and the network."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

LABEXTENSION = "swift-jupyter"
PACKAGE = Path(__file__).parents[2] / "swift_jupyter"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START_SECONDS = 60
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass
class Lab:
    """A running JupyterLab.

    Parameters
    ----------
    process : subprocess.Popen
        The server.
    url, token : str
        Its address, with a trailing slash, and what opens it.
    folder : Path
        The folder that holds everything it may write.
    environment : dict
        The environment of the server, and so of its kernels.
    """

    process: subprocess.Popen[bytes]
    url: str
    token: str
    folder: Path
    environment: dict[str, str]

    @property
    def root(self) -> Path:
        """The folder that the file browser shows."""
        return self.folder / "work"

    @property
    def huggingface_cache(self) -> Path:
        """The folder of Hugging Face's ``models--…`` folders."""
        return Path(self.environment["HF_HOME"], "hub")

    @property
    def state(self) -> Path:
        """The package's state folder."""
        return Path(self.environment["XDG_STATE_HOME"], "swift_jupyter")

    def log(self) -> str:
        """What the server has printed."""
        return (self.folder / "server.log").read_text(encoding="utf-8", errors="replace")


@dataclass
class LabPage:
    """JupyterLab in a browser tab, driven as a user would."""

    page: Page
    lab: Lab
    page_errors: list[str] = field(default_factory=list)
    external_requests: list[str] = field(default_factory=list)

    def open(self) -> None:
        """Load JupyterLab with an empty layout and wait until it is ready."""
        self.page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("websocket", lambda socket: self._note(socket.url))
        self.page.goto(f"{self.lab.url}lab?token={self.lab.token}&reset")
        self.page.wait_for_function("window.jupyterapp && window.jupyterapp.restored")
        self.page.evaluate("() => window.jupyterapp.restored.then(() => true)")
        self.wait_for_splash()

    def wait_for_splash(self) -> None:
        """Wait until the start screen, which a change of theme shows too, is gone."""
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def _note(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in LOCAL_HOSTS:
            self.external_requests.append(url)

    def execute(self, command: str, **arguments: Any) -> None:
        """Execute a command of JupyterLab and wait for its end, at most half a minute."""
        self.page.evaluate(
            """([id, args]) => Promise.race([
                window.jupyterapp.commands.execute(id, args).then(() => true),
                new Promise((_, refuse) => setTimeout(refuse, 30000, new Error(`${id} hangs`))),
            ])""",
            [command, arguments],
        )

    def open_notebook(self, *cells: str, name: str = "notebook.ipynb") -> None:
        """Write a notebook with these code cells, open it and wait for its kernel."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, self.lab.root / name)
        self.execute("docmanager:open", path=name)
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.wait_idle()

    def cells(self) -> list[dict[str, Any]]:
        """Return type, source and execution count of the current notebook's cells."""
        cells: list[dict[str, Any]] = self.page.evaluate(
            """() => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells)
                .map(cell => ({
                    type: cell.type,
                    source: cell.sharedModel.source,
                    count: cell.executionCount ?? null,
                }))"""
        )
        return cells

    def run_cell(self, index: int) -> None:
        """Start the cell at `index`; `wait_idle` waits for its end."""
        self.page.evaluate(
            """index => {
                const { content } = window.jupyterapp.shell.currentWidget;
                content.deselectAll();
                content.activeCellIndex = index;
                void window.jupyterapp.commands.execute('notebook:run-cell');
            }""",
            index,
        )

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until the notebook's kernel is up and no cell waits for its turn."""
        self.page.wait_for_function(
            """() => {
                const widget = window.jupyterapp.shell.currentWidget;
                const context = widget && widget.sessionContext;
                const kernel = context && context.session && context.session.kernel;
                return kernel && context.isReady && kernel.status === 'idle' && Array.from(
                    widget.content.model.cells
                ).every(cell => (cell.executionState ?? 'idle') === 'idle');
            }""",
            timeout=seconds * 1000,
        )

    def output(self, index: int) -> Locator:
        """Return the output area of the cell at `index`, without the cell's own source."""
        cell = self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')
        return cell.locator(".jp-OutputArea-output")

    def screenshot(self, name: str) -> Path:
        """Write ``<name>.png`` to ``$SWIFT_JUPYTER_SCREENSHOTS``, or beside the server's files."""
        folder = Path(os.environ.get("SWIFT_JUPYTER_SCREENSHOTS") or self.lab.folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        self.wait_for_splash()
        self.page.screenshot(path=path)
        return path


@pytest.fixture
def jp_asyncio_loop() -> None:
    """Stand in for the server plugin's loop: Playwright runs one in this thread already."""


@pytest.fixture
def jp_server_cleanup() -> None:
    """Stand in for the server plugin's clean-up: the server here is a process of its own."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The machine's own Chromium or Chrome, without a window.

    It ends with the module: Playwright keeps an event loop running in this thread,
    and tests elsewhere need to run their own.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser on PATH; looked for {', '.join(BROWSERS)}")
    arguments = ["--disable-dev-shm-usage"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's sandbox refuses the root user.
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab of this test module's own, with empty caches and no runs."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    folder = tmp_path_factory.mktemp("lab")
    token = secrets.token_hex(16)
    environment = _isolated_environment(folder)
    _write_configuration(folder)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            _command(folder, token), env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        lab = Lab(process, "", token, folder, environment)
        try:
            lab.url = _wait_until_up(lab)
            yield lab
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def lab_page(lab: Lab, chromium: Browser) -> Iterator[LabPage]:
    """JupyterLab in a fresh browser profile; errors and foreign requests fail the test."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(30_000)
        lab_page = LabPage(page, lab)
        lab_page.open()
        yield lab_page
    assert not lab_page.page_errors, f"errors in the page: {lab_page.page_errors}"
    assert not lab_page.external_requests, f"left this machine: {lab_page.external_requests}"


def _isolated_environment(folder: Path) -> dict[str, str]:
    foreign = ("JUPYTER", "SWIFT_JUPYTER_", "HF_", "HUGGINGFACE_", "MODELSCOPE_", "MS_CACHE_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    own = {
        "XDG_CACHE_HOME": "cache",
        "XDG_STATE_HOME": "state",
        "XDG_CONFIG_HOME": "config",
        "MODELSCOPE_CACHE": "modelscope",
        "HF_HOME": "huggingface",
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "jupyter-config",
        "JUPYTER_DATA_DIR": "jupyter-data",
        "JUPYTER_RUNTIME_DIR": "jupyter-runtime",
        "JUPYTERLAB_SETTINGS_DIR": "lab-settings",
        "JUPYTERLAB_WORKSPACES_DIR": "lab-workspaces",
    }
    for variable, name in own.items():
        path = folder / name
        path.mkdir()
        environment[variable] = str(path)
    (folder / "work").mkdir()
    python_path = [str(PACKAGE.parent), environment.get("PYTHONPATH", "")]
    if not _is_installed():
        environment["PYTHONPATH"] = os.pathsep.join(part for part in python_path if part)
    environment["LANG"] = environment["LC_ALL"] = "C.UTF-8"
    environment.pop("LANGUAGE", None)
    return environment


def _write_configuration(folder: Path) -> None:
    """Keep the news pop-up away and, for a tree that is not installed, enable its parts."""
    notification = folder / "lab-settings/@jupyterlab/apputils-extension"
    notification.mkdir(parents=True)
    (notification / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    if _is_installed():
        return
    if not (PACKAGE / "labextension" / "package.json").exists():
        pytest.skip("the sidebar is not built: npm ci && npm run build:prod in labextension/")
    extensions = folder / "jupyter-data" / "labextensions"
    extensions.mkdir()
    shutil.copytree(PACKAGE / "labextension", extensions / LABEXTENSION)
    shutil.copy(
        PACKAGE.parent / "labextension" / "install.json", extensions / LABEXTENSION / "install.json"
    )
    enabled = folder / "jupyter-config" / "jupyter_server_config.d"
    enabled.mkdir()
    shutil.copy(PACKAGE.parent / "labextension/jupyter-config/swift_jupyter.json", enabled)


def _is_installed() -> bool:
    return Path(sys.prefix, "share/jupyter/labextensions", LABEXTENSION, "package.json").exists()


def _command(folder: Path, token: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=8890",
        "--ServerApp.port_retries=200",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder / 'work'}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=",
    ]


def _wait_until_up(lab: Lab) -> str:
    """Return the URL, which the server writes down when it has found a free port."""
    runtime = Path(lab.environment["JUPYTER_RUNTIME_DIR"], f"jpserver-{lab.process.pid}.json")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and lab.process.poll() is None:
        try:
            url: str = json.loads(runtime.read_text())["url"]
            request = urllib.request.Request(
                f"{url}api/status", headers={"Authorization": f"token {lab.token}"}
            )
            with urllib.request.urlopen(request, timeout=5):
                return url
        except (OSError, ValueError, urllib.error.URLError):
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{lab.log()}")
