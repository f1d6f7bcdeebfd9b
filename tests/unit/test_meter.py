"""Sums that survive a resume."""

from __future__ import annotations

import json
from pathlib import Path

from swift_jupyter.engine.training.meter import FILE_NAME, Meter


def test_sums_come_back_with_the_time_so_far(tmp_path: Path) -> None:
    meter = Meter(loss=2.5, steps=2, labelled=7, correct=3, total_tokens=90, seconds=1.0)
    meter.save(tmp_path, seconds=11.5)
    loaded = Meter.load(tmp_path)
    assert loaded == Meter(loss=2.5, steps=2, labelled=7, correct=3, total_tokens=90, seconds=11.5)
    assert meter.seconds == 1.0


def test_reset_keeps_what_belongs_to_the_whole_run() -> None:
    meter = Meter(loss=2.5, steps=2, labelled=7, correct=3, total_tokens=90, seconds=4.0)
    meter.reset()
    assert meter == Meter(total_tokens=90, seconds=4.0)


def test_checkpoint_of_another_tool_or_version_is_read(tmp_path: Path) -> None:
    assert Meter.load(None) == Meter()
    assert Meter.load(tmp_path) == Meter()
    (tmp_path / FILE_NAME).write_text(json.dumps({"loss": 1.0, "tokens": 5, "new": "x"}))
    assert Meter.load(tmp_path) == Meter(loss=1.0)
