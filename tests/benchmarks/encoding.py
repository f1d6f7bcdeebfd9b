"""Rows a second from a file of conversations to token ids and labels, beside peers.

Run ``python tests/benchmarks/encoding.py [--rows 20000] [--rounds 3] [--ms_swift PYTHON]``.
``map`` is what TRL does with such rows: the chat template through `datasets.map`, without
labels for the answers alone. ms-swift runs in an environment of its own, whose Python is
given. All use as many processes as there are cores, and none has a cache; the last line is
our own second start, which has one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.hub.pull import pull
from swift_jupyter.settings import load_settings

TEXT = "the quick brown fox jumps over a lazy dog and talks about training language models"

OURS = """
import sys, time
from pathlib import Path
from transformers import AutoTokenizer
from swift_jupyter.engine.data import DataOptions, prepare
from swift_jupyter.settings import Settings
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
started = time.perf_counter()
data = prepare(DataOptions(dataset=[sys.argv[1]]), tokenizer, 8192, processes=int(sys.argv[3]),
               settings=Settings(cache_dir=sys.argv[4]))
print(len(data.train), time.perf_counter() - started)
"""
MAP = """
import sys, time
from datasets import load_dataset
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
started = time.perf_counter()
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[4])
rows = rows.map(lambda row: tokenizer.apply_chat_template(row["messages"], tokenize=True,
                return_dict=True), num_proc=int(sys.argv[3]), remove_columns=["messages"])
print(len(rows), time.perf_counter() - started)
"""
MS_SWIFT = """
import sys, time
from swift import get_processor, get_template
from swift.dataset import EncodePreprocessor, load_dataset
template = get_template(
    get_processor(sys.argv[2], model_type="llama", download_model=False), template_type="chatml"
)
template.set_mode("train")
started = time.perf_counter()
rows, _ = load_dataset([sys.argv[1]], num_proc=int(sys.argv[3]))
rows = EncodePreprocessor(template=template)(rows, num_proc=int(sys.argv[3]))
print(len(rows), time.perf_counter() - started)
"""


def write_rows(path: Path, count: int) -> None:
    """Write conversations of one to three questions."""
    chance, words = random.Random(0), TEXT.split()

    def text(most: int) -> str:
        return " ".join(chance.choices(words, k=chance.randint(5, most)))

    with path.open("w", encoding="utf-8") as stream:
        for _row in range(count):
            messages = []
            for _turn in range(chance.randint(1, 3)):
                messages.append({"role": "user", "content": text(40)})
                messages.append({"role": "assistant", "content": text(80)})
            stream.write(json.dumps({"messages": messages}) + "\n")


def seconds(python: str, program: str, rows: Path, model: Path, cache: Path) -> float:
    """Run one program in a fresh process; return what it measured."""
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    arguments = [str(rows), str(model), str(os.cpu_count() or 1), str(cache)]
    done = subprocess.run(
        [python, "-c", program, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return float(done.stdout.strip().splitlines()[-1].split()[1])


def main() -> None:
    """Print rows a second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ms_swift", metavar="PYTHON")
    options = parser.parse_args()
    model = pull(resolve("smollm2-demo"), load_settings()).path
    programs = {"swift_jupyter": (sys.executable, OURS), "map": (sys.executable, MAP)}
    if options.ms_swift:
        programs["ms-swift"] = (options.ms_swift, MS_SWIFT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows.jsonl"
        write_rows(rows, options.rows)
        found: dict[str, list[float]] = {key: [] for key in programs}
        for number in range(options.rounds):
            for key, (python, program) in programs.items():
                cache = folder / f"{key}-{number}"
                found[key].append(seconds(python, program, rows, model, cache))
        ours = statistics.median(found["swift_jupyter"])
        for key, values in found.items():
            median = statistics.median(values)
            print(
                f"{key:14} {options.rows / median:8.0f} rows/s  {median:6.2f} s  "
                f"{median / ours:.2f} times our time"
            )
        again = seconds(sys.executable, OURS, rows, model, folder / "swift_jupyter-0")
        print(f"second start   {again:.2f} s")


if __name__ == "__main__":
    main()
