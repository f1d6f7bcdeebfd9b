"""Seconds from the command to the first logged step, beside ms-swift's on the same data.

Run ``python tests/benchmarks/first_step.py [--peer PATH_OF_SWIFT] [--rounds 3]``. The
peer is ms-swift's ``swift`` command, installed in an environment of its own; without it
only our own time is printed. Both train the demo model on the same rows with rank 8.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.hub.pull import pull
from swift_jupyter.settings import load_settings

LIMIT_SECONDS = 300


def write_rows(folder: Path) -> Path:
    """Write two hundred short conversations."""
    path = folder / "rows.jsonl"
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "system", "content": "You are a helpful assistant."},
                    {"role": "user", "content": f"Which number comes after {number}?"},
                    {"role": "assistant", "content": f"After {number} comes {number + 1}."},
                ]
            }
        )
        for number in range(200)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def seconds_to_first_row(command: list[str], output: Path, environment: dict[str, str]) -> float:
    """Start a training, wait for the first row of its `logging.jsonl`, and end it."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        while time.monotonic() - started < LIMIT_SECONDS:
            if any(path.stat().st_size for path in output.glob("**/logging.jsonl")):
                return time.monotonic() - started
            time.sleep(0.05)
        raise SystemExit(f"no step within {LIMIT_SECONDS} s: {' '.join(command)}")
    finally:
        process.send_signal(2)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    """Measure in turn and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="ms-swift's `swift` command")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = pull(resolve("smollm2-demo"), load_settings()).path
    times: dict[str, list[float]] = {"swift_jupyter": [], "ms-swift": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder)
        common = ["--model", str(model), "--dataset", str(rows), "--lora_rank", "8"]
        for number in range(arguments.rounds):
            ours = folder / f"ours-{number}"
            command = [sys.executable, "-m", "swift_jupyter", "sft", *common]
            environment = {**os.environ, "SWIFT_JUPYTER_STATE_DIR": str(folder / "state")}
            times["swift_jupyter"].append(
                seconds_to_first_row([*command, "--output_dir", str(ours)], ours, environment)
            )
            if arguments.peer:
                theirs = folder / f"theirs-{number}"
                command = [arguments.peer, "sft", *common, "--model_type", "llama"]
                command += ["--template", "chatml", "--torch_dtype", "float32"]
                command += ["--check_model", "false", "--report_to", "none", "--fp16", "false"]
                times["ms-swift"].append(
                    seconds_to_first_row(
                        [*command, "--output_dir", str(theirs)], theirs, dict(os.environ)
                    )
                )
    medians = {name: statistics.median(values) for name, values in times.items() if values}
    for name, median in medians.items():
        print(f"{name}: median {median:.1f} s of {[round(value, 1) for value in times[name]]}")
    if len(medians) == 2:
        print(f"ratio: {medians['swift_jupyter'] / medians['ms-swift']:.2f}")


if __name__ == "__main__":
    main()
