"""Dividing work among forked processes, where the system has them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# Below this many portions the start of a process takes longer than it saves.
_LEAST_PORTIONS = 24


def in_processes(
    work: Callable[[Item], Outcome], portions: Sequence[Item], processes: int
) -> Generator[Outcome]:
    """Yield ``work(portion)`` of every portion, in their order.

    Parameters
    ----------
    work : callable
        What is to be done; its outcomes and errors must be picklable.
    portions : sequence
        The work, divided.
    processes : int
        How many processes may share it.

    Raises
    ------
    Exception
        The first error that `work` raised, and `RuntimeError` when a process died.

    Notes
    -----
    The processes are forks, so neither the portions nor what `work` holds is copied
    to them, and nothing is imported again. Only Linux forks safely here; elsewhere,
    and for little work, it is done in this process.
    """
    if processes < 2 or len(portions) < _LEAST_PORTIONS or sys.platform != "linux":
        yield from map(work, portions)
        return
    context = multiprocessing.get_context("fork")
    pipes, workers = [], []
    try:
        for number in range(processes):
            receiving, sending = context.Pipe(duplex=False)
            pipes.append(receiving)
            share = portions[number::processes]
            worker = context.Process(target=_serve, args=(work, share, sending), daemon=True)
            worker.start()
            workers.append(worker)
            sending.close()
        for number in range(len(portions)):
            yield _receive(pipes[number % processes])
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        for pipe in pipes:
            pipe.close()


def _serve(work: Callable[[Any], Any], portions: Sequence[Any], pipe: Connection) -> None:
    # The threads of a fork's parent are gone, and with them those of the tokenizers library.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for portion in portions:
        try:
            outcome = (True, work(portion))
        except Exception as error:
            outcome = (False, error)
        pipe.send(outcome)
    pipe.close()


def _receive(pipe: Connection) -> Any:
    try:
        fine, outcome = pipe.recv()
    except EOFError:
        raise RuntimeError("a process that prepared data ended unexpectedly") from None
    if not fine:
        raise outcome
    return outcome
