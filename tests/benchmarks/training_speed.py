"""Tokens a second of LoRA training, beside peers, on the same rows in the same batches.

Run ``python tests/benchmarks/training_speed.py [--dtype float32] [--steps 12] [--rounds 3]
[--equal] [--ms_swift PATH_OF_SWIFT]``. Every engine trains SmolLM2-135M on short chats with
rank 8 on all linear layers, 8 rows a step, no dropout, the same order and rate. ``trainer``
is a plain `transformers.Trainer` with peft. Only the tokens of the rows count, not padding.
``--equal`` takes rows of one length, where padding cannot be saved.
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

ROWS_PER_STEP = 8
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
SUBJECTS = "rivers lakes mountains birds trees stars ships clocks bridges songs"
WORDS = "they are old and new and people like to look at them when the sun is out"

# Both print one JSON line: the losses of the steps and the seconds of each.
TRAINER = """
import json, sys, time, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback
from transformers import TrainingArguments
from swift_jupyter.engine.data import Collator, DataOptions, prepare
job = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(job["model"])
data = prepare(DataOptions(dataset=[job["rows"]], dataset_shuffle=False), tokenizer, 8192)
torch.manual_seed(42)
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32,
                                         target_modules="all-linear"))
class Clock(TrainerCallback):
    losses, times = [], []
    def on_step_end(self, args, state, control, **rest):
        self.times.append(time.perf_counter())
    def on_log(self, args, state, control, logs=None, **rest):
        if "loss" in logs:
            self.losses.append(logs["loss"])
class InOrder(Trainer):
    def _get_train_sampler(self, dataset=None):
        return torch.utils.data.SequentialSampler(self.train_dataset)
clock = Clock()
arguments = TrainingArguments(
    output_dir=job["output"], max_steps=job["steps"], per_device_train_batch_size=8,
    learning_rate=1e-4, lr_scheduler_type="constant", logging_steps=1, save_strategy="no",
    report_to=[], disable_tqdm=True, remove_unused_columns=False, use_cpu=True,
    adam_beta2=0.95, weight_decay=0.1)
InOrder(model=model, args=arguments, train_dataset=data.train, callbacks=[clock],
        data_collator=Collator(tokenizer.pad_token_id)).train()
print(json.dumps({"losses": clock.losses, "times": clock.times}))
"""
OURS = """
import json, sys
import swift_jupyter
job = json.loads(sys.argv[1])
run = swift_jupyter.sft(
    model=job["model"], dataset=[job["rows"]], dataset_shuffle=False,
    train_dataloader_shuffle=False, torch_dtype=job["dtype"], lora_rank=8, lora_alpha=32,
    lora_dropout=0.0, learning_rate=1e-4, lr_scheduler_type="constant", max_steps=job["steps"],
    per_device_train_batch_size=8, gradient_accumulation_steps=1, logging_steps=1,
    output_dir=job["output"])
rows = run.history
print(json.dumps({"losses": [row["loss"] for row in rows if "loss" in row],
                  "times": [row["seconds"] for row in rows if "loss" in row]}))
"""


def write_rows(path: Path, count: int, equal: bool) -> None:
    """Write short English chats, of one length in words or of many."""
    chance, subjects, words = random.Random(0), SUBJECTS.split(), WORDS.split()
    with path.open("w", encoding="utf-8") as stream:
        for _row in range(count):
            count_of_words = 16 if equal else chance.randint(4, 48)
            question = f"Tell me about {chance.choice(subjects)}, please."
            answer = " ".join(chance.choices(words, k=count_of_words)).capitalize() + "."
            messages = [
                # Said outright, since engines differ in the default they put here.
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            stream.write(json.dumps({"messages": messages}) + "\n")


def tokens_of(rows: Path, model: Path, steps: int) -> list[int]:
    """Return how many tokens the rows of each step have."""
    from transformers import AutoTokenizer

    from swift_jupyter.engine.data import DataOptions, prepare

    tokenizer = AutoTokenizer.from_pretrained(model)
    data = prepare(DataOptions(dataset=[str(rows)], dataset_shuffle=False), tokenizer, 8192)
    lengths = data.train.lengths()
    return [sum(lengths[i * ROWS_PER_STEP : (i + 1) * ROWS_PER_STEP]) for i in range(steps)]


def run_python(program: str, job: dict[str, object]) -> dict[str, list[float]]:
    """Run one engine in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(job)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    result: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def run_ms_swift(command: str, job: dict[str, object]) -> dict[str, list[float]]:
    """Train with ms-swift's command and read what it logged."""
    options = {
        "model": job["model"],
        "model_type": "llama",
        "template": "chatml",
        "dataset": job["rows"],
        "dataset_shuffle": "false",
        "train_dataloader_shuffle": "false",
        "torch_dtype": job["dtype"],
        "tuner_type": "lora",
        "lora_rank": 8,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "max_steps": job["steps"],
        "per_device_train_batch_size": ROWS_PER_STEP,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": "false",
        "logging_steps": 1,
        "output_dir": job["output"],
        "split_dataset_ratio": 0,
        "save_strategy": "no",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(
        [command, "sft", *words],
        capture_output=True,
        text=True,
        cwd=str(job["output"]),
        check=False,
    )
    logs = sorted(Path(str(job["output"])).glob("**/logging.jsonl"))
    if not logs:
        raise SystemExit(done.stderr[-2000:])
    rows = [json.loads(line) for line in logs[-1].read_text("utf-8").splitlines()]
    rows = [row for row in rows if "loss" in row]
    # It logs seconds per step as an average since the start.
    times = [number * float(row["train_speed(s/it)"]) for number, row in enumerate(rows, 1)]
    return {"losses": [float(row["loss"]) for row in rows], "times": times}


def main() -> None:
    """Print tokens a second, the ratios, and how far the losses differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--ms_swift", metavar="PATH")
    options = parser.parse_args()
    model = pull(resolve("smollm2-demo"), load_settings()).path
    engines = ["ours", "trainer", *(["ms-swift"] if options.ms_swift else [])]
    speeds: dict[str, list[float]] = {name: [] for name in engines}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        rows = Path(name) / "rows.jsonl"
        write_rows(rows, ROWS_PER_STEP * options.steps, options.equal)
        tokens = tokens_of(rows, model, options.steps)
        for number in range(options.rounds):
            for engine in engines:
                output = Path(name) / f"{engine}-{number}"
                output.mkdir()
                job: dict[str, object] = {
                    "model": str(model),
                    "rows": str(rows),
                    "dtype": options.dtype,
                    "steps": options.steps,
                    "output": str(output),
                }
                if engine == "ms-swift":
                    result = run_ms_swift(options.ms_swift, job)
                else:
                    result = run_python(OURS if engine == "ours" else TRAINER, job)
                # The first two steps warm up.
                seconds = result["times"][-1] - result["times"][1]
                speeds[engine].append(sum(tokens[2:]) / seconds)
                losses[engine] = result["losses"]
    ours = statistics.median(speeds["ours"])
    print(f"{options.dtype}, {sum(tokens)} tokens in {options.steps} steps")
    for engine in engines:
        median = statistics.median(speeds[engine])
        difference = max(abs(a - b) for a, b in zip(losses[engine], losses["ours"], strict=False))
        print(
            f"{engine:10} {median:6.0f} tokens/s   ours is {ours / median:.2f} times as fast   "
            f"first loss {losses[engine][0]:.4f}, largest difference {difference:.4f}"
        )


if __name__ == "__main__":
    main()
