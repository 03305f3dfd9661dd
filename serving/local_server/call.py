"""Call record of one request, for metrics and access log."""

import dataclasses
import time

_MAX_NAME = 256


@dataclasses.dataclass
class Call:
    """Record of a request in the server. Each stage fills in its fields.

    Seconds are of `time.monotonic`.
    """

    method: str
    entrypoint: str
    """`GRPC` or `REST`, as TF Serving's metrics have it."""
    peer: str = ""
    deadline: float | None = None
    """When its client stops waiting."""
    model: str = ""
    signature: str = ""
    version: int | None = None
    candidates: int | None = None
    """How many rows the answer has."""
    status: str = "OK"
    arrived: float = dataclasses.field(default_factory=time.monotonic)
    started: float | None = None
    """When a worker took it up."""
    ended: float | None = None

    def ask(self, model: str, signature: str = "") -> None:
        """Records the requested model, truncated, because it comes from outside."""
        self.model, self.signature = model[:_MAX_NAME], signature[:_MAX_NAME]

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def queued_seconds(self) -> float:
        """Time in the queue; the whole duration if no worker took the call."""
        return (self.started or self.ended or time.monotonic()) - self.arrived

    @property
    def run_seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0
