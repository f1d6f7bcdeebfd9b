"""The clients that are compared: how each is started, followed and judged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from fault_content import sha256_of

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("ours", "modelscope", "huggingface", "aria2")
_TICKS = os.sysconf("SC_CLK_TCK")
_POLL_SECONDS = 0.02


@dataclass
class Job:
    """What is to be pulled, and by what way."""

    repo_id: str
    sha256: Mapping[str, str]
    urls: tuple[str, ...]
    folder: Path
    connections: int = 16
    include: tuple[str, ...] = ()
    source: str = "modelscope"
    timeout: float = 150.0


@dataclass
class Outcome:
    """How one pull ended.

    `seconds` is the call alone, without the interpreter's start and imports; `cpu` counts all
    processes from their start, `rss_mb` is the peak of the one that moves the bytes.
    """

    verdict: str
    seconds: float
    cpu: float = 0.0
    rss_mb: float = 0.0
    beyond_mb: float = 0.0
    message: str = ""
    extra: dict[str, float] = field(default_factory=dict)


def available(peer: str) -> bool:
    """Tell whether a peer is installed."""
    return peer != "aria2" or shutil.which("aria2c") is not None


@contextlib.contextmanager
def fresh_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder that is removed afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(peer: str, job: Job, watch: Callable[[Running], None] | None = None) -> Outcome:
    """Pull once.

    Parameters
    ----------
    peer : str
        One of `PEERS`.
    job : Job
        What, from where, to where.
    watch : callable, optional
        Called again and again while the process runs; it may kill it.
    """
    running = Running(peer, job)
    deadline = time.monotonic() + job.timeout
    while running.poll() is None:
        if watch is not None:
            watch(running)
        if time.monotonic() > deadline:
            running.kill()
            running.hangs = True
        time.sleep(_POLL_SECONDS)
    return running.outcome()


class Running:
    """A client at work."""

    def __init__(self, peer: str, job: Job) -> None:
        self.peer = peer
        self.job = job
        self.hangs = False
        self._cpu: dict[int, float] = {}
        self._rss: dict[int, float] = {}
        self._total_cpu = 0.0
        self._code: int | None = None
        # Closed by `outcome`.
        self._out = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._started = time.perf_counter()
        self._ended = self._started
        self._process = subprocess.Popen(
            command(peer, job),
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env=environment(peer, job),
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Look at all its processes; the exit code once it has ended."""
        if self._code is None:
            for pid in _tree(self._process.pid):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    self._cpu[pid], peak = _usage(pid)
                    # A process that is ending tells no peak any more.
                    self._rss[pid] = max(peak, self._rss.get(pid, 0.0))
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._ended = time.perf_counter()
                self._code = self._process.returncode = os.waitstatus_to_exitcode(status)
                self._total_cpu = usage.ru_utime + usage.ru_stime
        return self._code

    def kill(self) -> None:
        """Kill it and all its children at once."""
        for pid in _tree(self._process.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def outcome(self) -> Outcome:
        """Judge what it left."""
        self._out.seek(0)
        text = self._out.read()
        self._out.close()
        result = _last_json(text)
        seconds = result.get("seconds", self._ended - self._started)
        verdict, bad = judge(self.job, self._code == 0)
        if self.hangs:
            verdict = "hangs"
        message = str(result.get("error") or ("" if self._code == 0 else text.strip()[-200:]))
        return Outcome(
            verdict,
            float(seconds),
            max(self._total_cpu, sum(self._cpu.values())),
            self._moving_rss(),
            message=" ".join([message, *bad])[:400],
        )

    def _moving_rss(self) -> float:
        """Return the peak of the process that moves bytes: our child, else the client itself."""
        children = {pid: rss for pid, rss in self._rss.items() if pid != self._process.pid}
        return max((children or self._rss).values(), default=0.0)


def command(peer: str, job: Job) -> list[str]:
    """Return what starts a client."""
    if peer == "aria2":
        return [*_aria2(job)]
    settings = {
        "repo_id": job.repo_id,
        "folder": str(job.folder),
        "connections": job.connections,
        "include": job.include,
        "source": job.source if len(job.urls) == 1 else "auto",
    }
    client = Path(__file__).with_name("pull_client.py")
    return [sys.executable, str(client), peer, json.dumps(settings)]


def environment(peer: str, job: Job) -> dict[str, str]:
    """Return variables that lead both hubs' clients to the servers and to fresh caches."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(job.folder / "home"),
        "PYTHONPATH": str(ROOT),
        "LANGUAGE": "en",
        "NO_PROXY": "*",
        "MODELSCOPE_ENDPOINT": job.urls[0],
        # A peer has one source; ours takes the second hub for its second one.
        "HF_ENDPOINT": job.urls[-1] if peer == "ours" else job.urls[0],
        "MODELSCOPE_CACHE": str(job.folder / "modelscope"),
        "HF_HOME": str(job.folder / "huggingface"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MODELSCOPE_LOG_LEVEL": "40",
        "OMP_NUM_THREADS": "1",
    }


def _aria2(job: Job) -> Iterator[str]:
    """The list of files is given to it: it knows no hub."""
    job.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for path, sha256 in job.sha256.items():
        address = f"{job.urls[0]}/api/v1/models/{job.repo_id}/repo?Revision=master&FilePath="
        lines += [address + quote(path, safe=""), f"  out={path}", f"  checksum=sha-256={sha256}"]
    entries = job.folder / "aria2.txt"
    entries.write_text("\n".join(lines) + "\n")
    files = min(len(job.sha256), job.connections)
    each = job.connections // files
    yield from ("aria2c", f"-j{files}", f"-x{each}", f"-s{each}", "-k1M")
    yield from (
        "-c",
        "--quiet",
        "--retry-wait=1",
        "--console-log-level=error",
        "--allow-overwrite=true",
    )
    yield from ("-d", str(job.folder / "aria2"), "-i", str(entries))


def judge(job: Job, succeeded: bool) -> tuple[str, list[str]]:
    """Compare all that stands under a final name with the truth.

    Returns
    -------
    verdict : str
        ``right``, ``error``, or something worse.
    bad : list of str
        The files that are wrong.
    """
    wanted = {Path(path).name: sha256 for path, sha256 in job.sha256.items()}
    hashes: dict[tuple[int, int], str] = {}
    right: set[str] = set()
    bad: list[str] = []
    for path in job.folder.rglob("*"):
        if not path.is_file():
            continue
        expected = wanted.get(path.name)
        if expected is None and re.fullmatch(r"[0-9a-f]{64}", path.name):
            expected = path.name if path.name in wanted.values() else None
        if expected is None:
            continue
        status = path.stat()
        key = status.st_dev, status.st_ino
        if key not in hashes:
            hashes[key] = sha256_of(path)
        if hashes[key] == expected:
            right.add(expected)
        else:
            bad.append(str(path.relative_to(job.folder)))
    if not succeeded:
        return ("error, bad file left" if bad else "error"), bad
    complete = right >= set(wanted.values()) and not bad
    return ("right" if complete else "SILENTLY WRONG"), bad


def _last_json(text: str) -> dict[str, object]:
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                return dict(json.loads(line))
    return {}


def _tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


def _usage(pid: int) -> tuple[float, float]:
    """Return CPU seconds and peak resident MB of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(match[1]) / 1024 if match else 0.0
