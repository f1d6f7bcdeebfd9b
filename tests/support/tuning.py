"""Training in this process, without a worker: for tests of what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# What a tuner needs so that it fits a model of width 32.
SMALL: Mapping[str, dict[str, Any]] = {
    "adamss": {"tuner_args": {"r": "8"}},
    "cpt": {"tuner_args": {"cpt_token_ids": "[5, 6, 7]"}},
    "fourierft": {"fourier_n_frequency": 64},
    "freeze": {"target_layers": ["-1:"]},
    "oft": {"tuner_args": {"oft_block_size": "8"}},
    "pvera": {"vera_rank": 16},
    "randlora": {"tuner_args": {"r": "8"}},
    "road": {"tuner_args": {"group_size": "16"}},
    "trainable_tokens": {"tuner_args": {"token_indices": "[5, 6, 40, 41, 42, 101, 110]"}},
    "vera": {"vera_rank": 16},
    "waveft": {"tuner_args": {"n_frequency": "64"}},
}


class ListReporter:
    """Keeps what a job reports."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.notices: list[str] = []

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        pass

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def metrics(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def progress(self, state: Mapping[str, Any], *, last: bool = False) -> None:
        pass

    def checkpoint(self, path: Path, step: int) -> None:
        pass

    def should_stop(self) -> bool:
        return False

    def losses(self, key: str = "loss") -> dict[int, float]:
        return {row["step"]: row[key] for row in self.rows if key in row}


def a_batch(vocabulary: int = 90, padded_left: bool = False) -> dict[str, Any]:
    """Return rows whose last tokens are labelled, two of them padded."""
    import torch

    tokens = torch.randint(3, vocabulary, (4, 12), generator=torch.Generator().manual_seed(3))
    attended = torch.ones_like(tokens)
    labels = torch.full_like(tokens, -100)
    labels[:, 6:11] = tokens[:, 6:11]
    padding = slice(0, 2) if padded_left else slice(11, 12)
    attended[:2, padding] = 0
    return {"input_ids": tokens, "attention_mask": attended, "labels": labels}


def prepare(model: Any, tuner: Any) -> Any:
    """Return the model as the tuner prepares it, always the same."""
    import torch

    torch.manual_seed(1)
    return tuner.prepare(model)


def fit(prepared: Any, tuner: Any, steps: int = 6, rate: float = 0.02) -> None:
    """Train on one batch, again and again."""
    import torch

    from swift_jupyter.engine.training.loss import label_loss

    prepared.train()
    optimizer = torch.optim.AdamW(
        [p for p in prepared.parameters() if p.requires_grad], lr=rate, weight_decay=0.1
    )
    callbacks: Any = tuner.callbacks()
    for callback in callbacks:
        state = SimpleNamespace(max_steps=steps, global_step=0)
        callback.on_train_begin(None, state, None, model=prepared)
    for step in range(steps):
        batch = tuner.inputs(a_batch())
        parts = label_loss(prepared, batch, True, tuner.extra_positions(prepared))
        penalty = tuner.penalty(prepared)
        loss = parts.total / parts.tokens
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        for callback in callbacks:
            state = SimpleNamespace(max_steps=steps, global_step=step)
            callback.on_optimizer_step(None, state, None, model=prepared)
        optimizer.zero_grad()
    prepared.eval()


def loss_of(prepared: Any, tuner: Any) -> float:
    """Return the loss on that batch, without dropout and noise."""
    import torch

    from swift_jupyter.engine.training.loss import label_loss

    prepared.eval()
    with torch.no_grad():
        batch = tuner.inputs(a_batch())
        parts = label_loss(prepared, batch, False, tuner.extra_positions(prepared))
    return float(parts.total / parts.tokens)


def logits(model: Any, batch: dict[str, Any] | None = None, positions: int = 12) -> Any:
    """Return the logits of the last positions, (rows, positions, vocabulary)."""
    import torch

    batch = batch or a_batch()
    with torch.inference_mode():
        found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return found.logits[:, -positions:]
