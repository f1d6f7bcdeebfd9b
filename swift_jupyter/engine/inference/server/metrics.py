"""What the server counts, in Prometheus' form."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from swift_jupyter.engine.inference.batching.engine import BatchEngine

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_PREFIX = "swift_jupyter_"


class Metrics:
    """Counts requests and times; asks the engine for the rest.

    Parameters
    ----------
    engine : BatchEngine
        Knows how many answers go on.
    """

    def __init__(self, engine: BatchEngine) -> None:
        self._engine = engine
        self.started = time.time()
        self._registry = CollectorRegistry()
        self.requests = Counter(
            f"{_PREFIX}requests",
            "Requests by endpoint and status.",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self.first_token = Histogram(
            f"{_PREFIX}time_to_first_token_seconds",
            "From the request to the first piece of its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.seconds = Histogram(
            f"{_PREFIX}request_seconds",
            "From the request to the end of its answer.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def collect(self) -> Iterator[Any]:
        """Yield what the engine knows; called by the registry."""
        engine, counts = self._engine, self._engine.counts
        for name, text, gauge in (
            ("requests_running", "Answers that go on.", engine.running),
            ("requests_waiting", "Requests that wait.", engine.waiting),
            ("key_value_bytes", "Memory of keys and values.", engine.held_bytes),
        ):
            yield GaugeMetricFamily(_PREFIX + name, text, gauge)
        for name, text, count in (
            ("prompt_tokens", "Tokens of prompts.", counts.prompt_tokens),
            ("prompt_tokens_shared", "Those that were known already.", counts.shared_tokens),
            ("generated_tokens", "Tokens of answers.", counts.new_tokens),
            ("steps", "Forward passes.", counts.steps),
            ("preemptions", "Answers begun again for want of memory.", counts.preempted),
        ):
            yield CounterMetricFamily(_PREFIX + name, text, count)

    def text(self) -> bytes:
        """Return everything."""
        return bytes(generate_latest(self._registry))
