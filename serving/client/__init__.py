"""Clients of TF Serving's API: gRPC, asyncio and REST."""

from serving.client.errors import DeadlineExceeded, NotFound, Overloaded, Refused, ServingError, Unavailable
from serving.client.rankers import AsyncRanker, Ranker, RestRanker

__all__ = [
    "AsyncRanker",
    "DeadlineExceeded",
    "NotFound",
    "Overloaded",
    "Ranker",
    "Refused",
    "RestRanker",
    "ServingError",
    "Unavailable",
]
