"""Pulls by our client and by its peers, fast and through faults, in one table.

Run: ``python tests/benchmarks/pull.py``; ``--rows capped,small``, ``--peers ours,aria2``,
``--rounds 3`` and ``--json FILE`` choose. The peers are unmodified and run in processes of
their own with fresh caches; ``aria2`` takes part where ``aria2c`` is installed. Disks that are
full need root.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from fault_server import FaultServer
from pull_peers import PEERS, Outcome, available, fresh_folder
from pull_rows import ROWS, Row, Stage


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen rows and print them."""
    options = _parse(arguments)
    rows = [row for row in ROWS if row.name in options.rows]
    measured: dict[str, dict[str, list[Outcome]]] = {}
    print("| |", " | ".join(("target", *options.peers)), "|")
    print("|---" * (2 + len(options.peers)) + "|", flush=True)
    with FaultServer() as server, fresh_folder(options.folder) as folder:
        stage = Stage(server, folder)
        for row in rows:
            measured[row.name] = measure(stage, row, options.peers, options.rounds or row.rounds)
            print(line(row, measured[row.name]), flush=True)
    for row in rows:
        for peer, outcomes in measured[row.name].items():
            if outcomes and (message := outcomes[-1].message):
                print(f"{row.name}, {peer}: {' '.join(message.split())[:200]}")
    if options.json:
        content = {
            name: {
                peer: [asdict(outcome) for outcome in outcomes] for peer, outcomes in row.items()
            }
            for name, row in measured.items()
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure(stage: Stage, row: Row, peers: Sequence[str], rounds: int) -> dict[str, list[Outcome]]:
    """Measure one row; the peers take turns, so that all have the same weather."""
    outcomes: dict[str, list[Outcome]] = {peer: [] for peer in peers}
    for _round in range(rounds):
        for peer in peers:
            if peer == "aria2" and row.needs_hub:
                continue
            stage.calm()
            outcomes[peer].append(row.measure(stage, peer))
    return outcomes


def line(row: Row, outcomes: dict[str, list[Outcome]]) -> str:
    """Return one row of the table."""
    ours = outcomes.get("ours")
    base = _median(ours) if ours else None
    cells = [_cell(row, found, base, peer) for peer, found in outcomes.items()]
    return f"| {row.title} | " + " | ".join((row.target, *cells)) + " |"


def _cell(row: Row, outcomes: list[Outcome], base: float | None, peer: str) -> str:
    if not outcomes:
        return "-"
    verdicts = sorted({outcome.verdict for outcome in outcomes})
    seconds = _median(outcomes)
    text = f"{' / '.join(verdicts)} {seconds:.{2 if seconds > 0.1 else 3}f} s"
    if base and peer != "ours" and verdicts == ["right"]:
        text += f" (x{seconds / base:.1f})"
    if row.shows_cost:
        cpu = statistics.median(outcome.cpu for outcome in outcomes)
        rss = statistics.median(outcome.rss_mb for outcome in outcomes)
        text += f", {cpu:.1f} CPU s, {rss:.0f} MB"
    beyond = statistics.median(outcome.beyond_mb for outcome in outcomes)
    if round(beyond) > 0:
        text += f" +{beyond:.0f} MB"
    last = outcomes[-1].extra
    if "fetched_again_percent" in last:
        text += f", {last['fetched_again_percent']:.0f} % again"
    if "kept_mb" in last:
        text += f", {last['kept_mb']:.0f} MB kept"
    return text


def _median(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(outcome.seconds for outcome in outcomes)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", type=_names(names), default=names, help=",".join(names))
    parser.add_argument("--peers", type=_names(PEERS), default=[p for p in PEERS if available(p)])
    parser.add_argument("--rounds", type=int, default=0, help="instead of each row's own number")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/pull-benchmark"))
    return parser.parse_args(arguments)


def _names(known: Sequence[str]):  # type: ignore[no-untyped-def]
    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
        return [name for name in known if name in chosen]

    return parse


if __name__ == "__main__":
    main()
