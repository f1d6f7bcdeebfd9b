"""What happened since the last log: kept in the checkpoint, so that a resumed run
logs the very numbers that an undisturbed one does."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from swift_jupyter.files import write_json_atomically

FILE_NAME = "meter.json"


@dataclass
class Meter:
    """Sums since the last log, and the time and tokens of the whole run.

    Attributes
    ----------
    loss : float
        The sum of the steps' losses, in nats per token.
    steps : int
        How many steps `loss` sums up.
    labelled, correct : int
        Labelled tokens, and those predicted right.
    total_tokens : int
        Tokens of the whole run, padding apart.
    seconds : float
        Training time of earlier workers of the same run.
    """

    loss: float = 0.0
    steps: int = 0
    labelled: int = 0
    correct: int = 0
    total_tokens: int = 0
    seconds: float = 0.0

    def reset(self) -> None:
        """Start the next log."""
        self.loss, self.steps, self.labelled, self.correct = 0.0, 0, 0, 0

    def save(self, folder: Path, seconds: float) -> None:
        """Write the sums into a checkpoint; `seconds` is the run's time so far."""
        values = dataclasses.asdict(dataclasses.replace(self, seconds=seconds))
        write_json_atomically(folder / FILE_NAME, values)

    @classmethod
    def load(cls, folder: Path | None) -> Meter:
        """Read the sums of a checkpoint; a checkpoint of another tool has none."""
        if folder is None or not (folder / FILE_NAME).is_file():
            return cls()
        stored = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        known = [f.name for f in dataclasses.fields(cls)]
        return cls(**{name: stored[name] for name in known if name in stored})
