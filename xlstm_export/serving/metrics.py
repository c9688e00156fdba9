"""What the service counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "xlstm_requests", "Requests by path and status.", ("path", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "xlstm_request_seconds", "From a request to the end of its answer.", ("path",),
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.first_token_seconds = Histogram(
            "xlstm_first_token_seconds", "From a request to its first token.",
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.step_seconds = Histogram(
            "xlstm_step_seconds", "One step of all rows, and a piece of a prompt.",
            registry=registry, buckets=_SECONDS,
        )  # fmt: skip
        self.tokens = Counter("xlstm_tokens", "Tokens made.", registry=registry)
        self.prompt_tokens = Counter("xlstm_prompt_tokens", "Prompt tokens.", registry=registry)
        self.series = Counter("xlstm_series", "Series forecast.", registry=registry)
        self.rows = Gauge("xlstm_rows", "Continuations in the batch.", registry=registry)
        self.waiting = Gauge(
            "xlstm_waiting", "Continuations or forecasts that wait.", registry=registry
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
