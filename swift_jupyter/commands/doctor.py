"""``doctor``: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.results import Table
from swift_jupyter.hub.cache.scan import cache_roots
from swift_jupyter.hub.snapshot import size_text
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option

if TYPE_CHECKING:
    from swift_jupyter.hub.mirrors.probe import ProbeResult

_LOW_DISK = 5e9


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """The options of ``doctor``."""

    timeout: float = option(3.0, help="Seconds to wait for the hubs and mirrors.")
    offline: bool = option(False, help="Do not ask the hubs.")


@dataclass(frozen=True)
class _Check:
    name: str
    state: str
    found: str
    remedy: str = ""


def run(options: DoctorOptions, context: Context) -> Table:
    """Check everything and list it.

    Raises
    ------
    OptionError
        When `options.timeout` is not positive.
    """
    check_positive(options, "timeout")
    checks = [_python(), *_requirements(), _device(), _memory(), *_disks(context), _lab()]
    if not options.offline:
        checks.extend(_hubs(context, options.timeout))
    rows = [vars(check) for check in checks]
    bad = [check for check in checks if check.state != _("good")]
    note = _("{count} things want attention.", count=len(bad)) if bad else _("Everything is there.")
    return Table(("name", "state", "found", "remedy"), rows, note=note)


def _python() -> _Check:
    return _Check("python", _("good"), f"{platform.python_version()} {sys.executable}")


def _requirements() -> list[_Check]:
    """Compare the installed versions with what the package asks for."""
    from packaging.requirements import Requirement

    try:
        requirements = metadata.requires("swift_jupyter") or []
    except metadata.PackageNotFoundError:
        requirements = []  # A checkout that was not installed.
    checks = []
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is not None:
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            checks.append(_Check(wanted.name, _("missing"), "", f'pip install "{wanted}"'))
            continue
        fits = wanted.specifier.contains(version, prereleases=True)
        state = _("good") if fits else _("wrong version")
        checks.append(
            _Check(wanted.name, state, version, "" if fits else f'pip install "{wanted}"')
        )
    return checks


def _device() -> _Check:
    if importlib.util.find_spec("torch") is None:
        return _Check(_("device"), _("missing"), "", "pip install torch")
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return _Check(_("device"), _("good"), f"{torch.cuda.device_count()} x {', '.join(names)}")
    if torch.backends.mps.is_available():
        return _Check(_("device"), _("good"), "Apple MPS")
    threads = torch.get_num_threads()
    return _Check(_("device"), _("good"), _("CPU, {count} threads", count=threads))


def _memory() -> _Check:
    memory = psutil.virtual_memory()
    found = _(
        "{free} free of {total}", free=size_text(memory.available), total=size_text(memory.total)
    )
    return _Check(_("memory"), _("good"), found)


def _disks(context: Context) -> list[_Check]:
    folders = {str(root): root for root in cache_roots(context.settings)}
    folders[context.settings.output_root] = context.settings.output_path
    return [_disk(name, folder) for name, folder in folders.items()]


def _disk(name: str, folder: Path) -> _Check:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    state, remedy = _("good"), ""
    if free < _LOW_DISK:
        state, remedy = _("nearly full"), "%swift cache"
    return _Check(name, state, _("{free} free", free=size_text(free)), remedy)


def _lab() -> _Check:
    try:
        version = metadata.version("jupyterlab")
    except metadata.PackageNotFoundError:
        return _Check("jupyterlab", _("missing"), "", 'pip install "swift_jupyter[lab]"')
    return _Check("jupyterlab", _("good"), version)


def _hubs(context: Context, timeout: float) -> list[_Check]:
    """Ask every address that a pull would ask, all at once."""
    from swift_jupyter.hub.mirrors.health import StoredHealth
    from swift_jupyter.hub.mirrors.overview import all_mirrors, endpoints_of
    from swift_jupyter.hub.mirrors.probe import probe

    mirrors = all_mirrors(context.settings, os.environ)
    endpoints = endpoints_of(mirrors, context.settings, os.environ)
    health = StoredHealth.of(context.settings)
    results = probe(endpoints, os.environ, health, seconds=timeout)
    health.flush()
    reachable = any(result.state != "failed" for result in results)
    return [_hub(result, reachable) for result in results]


def _hub(result: ProbeResult, another: bool) -> _Check:
    name = f"{result.endpoint.name} ({result.endpoint.hub})"
    if result.state != "failed":
        found = f"{result.latency * 1000:.0f} ms" if result.latency is not None else result.error
        if result.bytes_per_second:
            found += f", {size_text(result.bytes_per_second)}/s"
        return _Check(name, _("good"), found)
    remedy = (
        _("The others stand in. More: %swift mirrors report {name}", name=result.endpoint.name)
        if another
        else _("Work offline with what is cached, or name one you can reach: %swift mirrors --help")
    )
    return _Check(name, _("not reachable"), result.error, remedy)
