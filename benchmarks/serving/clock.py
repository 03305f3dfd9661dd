"""Closed-loop clock: latency and throughput of a call under several clients."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WARM_UP, LEAST = 10, 30
"""Calls that are not timed, and timed ones at the least."""


def measure(call: Callable[[], object], candidates: int, clients: int, seconds: float) -> dict[str, Any]:
    """Measures a call under closed-loop clients.

    Returns:
      `p50_ms`, `p99_ms`, `calls`, and `candidates_per_second` of all clients together.
    """
    for _ in range(WARM_UP):
        call()
    found: list[list[float]] = [[] for _ in range(clients)]
    start = time.perf_counter()

    def client(latencies: list[float]) -> None:
        while (now := time.perf_counter()) < start + seconds or len(latencies) < LEAST:
            call()
            latencies.append(time.perf_counter() - now)

    threads = [threading.Thread(target=client, args=(latencies,)) for latencies in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    latencies = 1e3 * np.concatenate(found)
    return {
        "candidates": candidates,
        "clients": clients,
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "candidates_per_second": len(latencies) * candidates / took,
        "calls": len(latencies),
    }
