"""Admission control: limits of running and queued requests; excess requests are refused at once."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import tensorflow as tf

from serving.local_server.call import Call
from serving.local_server.status import exhausted

T = TypeVar("T")


class Admission:
    """Worker threads with a bounded queue.

    Args:
      workers: requests that run at a time.
      max_queue: requests that may wait for a worker.
    """

    def __init__(self, workers: int, max_queue: int):
        self.workers = workers
        self.max_queue = max_queue
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="predict")
        self._lock = threading.Lock()
        self._admitted = 0

    @property
    def running(self) -> int:
        return min(self._admitted, self.workers)

    @property
    def queued(self) -> int:
        return max(self._admitted - self.workers, 0)

    async def run(self, job: Callable[[], T], call: Call) -> T:
        """Runs `job` in its turn, unless its caller has gone or its deadline has passed by then.

        Raises:
          tf.errors.ResourceExhaustedError: the queue is full.
          tf.errors.DeadlineExceededError: the deadline passed in the queue.
        """
        with self._lock:
            if self._admitted >= self.workers + self.max_queue:
                raise exhausted(f"{self.workers} requests are running and {self.max_queue} are waiting")
            self._admitted += 1

        waiting = [job]  # a cancelled future stays in the pool's queue; the request that it was for must not

        def take_up() -> T:
            call.started = time.monotonic()
            if call.expired:
                raise tf.errors.DeadlineExceededError(None, None, "Deadline Exceeded")
            return waiting.pop()()

        def leave(_: Future[T]) -> None:
            waiting.clear()
            with self._lock:
                self._admitted -= 1

        future = self._pool.submit(take_up)
        # Called when it has run, or when it is cancelled in the queue: the slot is free then, and no sooner.
        future.add_done_callback(leave)
        return await asyncio.wrap_future(future)  # a cancelled caller cancels the future, if no worker has it yet

    def close(self) -> None:
        """Clears the queue. Running jobs finish in the background."""
        self._pool.shutdown(wait=False, cancel_futures=True)
