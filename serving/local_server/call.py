"""What is known of one request by the time that it ends, for the metrics and the access log."""

import dataclasses
import time

_MAX_NAME = 256


@dataclasses.dataclass
class Call:
    """A request on its way through the server. Each stage fills in what it learns.

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
        """Notes what was asked for: from outside, and so of any length."""
        self.model, self.signature = model[:_MAX_NAME], signature[:_MAX_NAME]

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def queued_seconds(self) -> float:
        """How long it waited for a worker; all of its time when none took it up."""
        return (self.started or self.ended or time.monotonic()) - self.arrived

    @property
    def run_seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0
