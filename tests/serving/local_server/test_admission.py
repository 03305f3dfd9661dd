"""Admission control: bounds of running and queued requests, and release after every outcome."""

import asyncio
import threading
import time
import weakref

import pytest
import tensorflow as tf

from serving.local_server.admission import Admission
from serving.local_server.call import Call

SECONDS = 20


class Gate:
    """A job that says when it runs, and runs until it is let go."""

    def __init__(self):
        self.runs = 0
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def __call__(self):
        self.runs += 1
        self.entered.release()
        assert self.leave.acquire(timeout=SECONDS)
        return "done"

    async def wait(self):
        assert await asyncio.to_thread(self.entered.acquire, timeout=SECONDS)


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


def call(deadline=None):
    return Call("Predict", "GRPC", deadline=deadline)


def run(scenario):
    asyncio.run(scenario)


def test_beyond_what_runs_and_waits_a_request_is_refused_at_once():
    async def scenario():
        admission, gate = Admission(workers=1, max_queue=1), Gate()
        first, second = (asyncio.create_task(admission.run(gate, call())) for _ in range(2))
        await gate.wait()
        assert (admission.running, admission.queued) == (1, 1)
        with pytest.raises(tf.errors.ResourceExhaustedError, match="1 requests are running and 1 are waiting"):
            await admission.run(gate, call())

        gate.leave.release(2)
        assert await asyncio.gather(first, second) == ["done", "done"]
        await until(lambda: (admission.running, admission.queued) == (0, 0))
        assert gate.runs == 2
        admission.close()

    run(scenario())


def test_a_caller_who_gives_up_in_the_queue_frees_the_place_and_is_not_run():
    async def scenario():
        admission, gate = Admission(workers=1, max_queue=1), Gate()
        first, second = (asyncio.create_task(admission.run(gate, call())) for _ in range(2))
        await gate.wait()
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await until(lambda: admission.queued == 0)
        third = asyncio.create_task(admission.run(gate, call()))

        gate.leave.release(2)
        assert await asyncio.gather(first, third) == ["done", "done"]
        assert gate.runs == 2
        admission.close()

    run(scenario())


def test_what_a_caller_sent_who_gives_up_in_the_queue_is_let_go():
    async def scenario():
        admission, gate, second = Admission(workers=1, max_queue=1), Gate(), Gate()
        sent = weakref.ref(second)
        first = asyncio.create_task(admission.run(gate, call()))
        await gate.wait()
        waiting = asyncio.create_task(admission.run(second, call()))
        del second
        await until(lambda: admission.queued == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        del waiting
        await until(lambda: sent() is None)  # and not only when a worker comes to it
        gate.leave.release()
        await first
        admission.close()

    run(scenario())


def test_a_caller_who_gives_up_while_running_frees_the_place_when_the_run_ends():
    async def scenario():
        admission, gate = Admission(workers=1, max_queue=0), Gate()
        task = asyncio.create_task(admission.run(gate, call()))
        await gate.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert admission.running == 1  # the worker is at it still
        gate.leave.release()
        await until(lambda: admission.running == 0)
        assert await admission.run(lambda: "next", call()) == "next"
        admission.close()

    run(scenario())


def test_a_request_whose_deadline_passed_in_the_queue_is_not_run():
    async def scenario():
        admission, gate = Admission(workers=1, max_queue=1), Gate()
        first = asyncio.create_task(admission.run(gate, call()))
        await gate.wait()
        late = call(deadline=time.monotonic())
        second = asyncio.create_task(admission.run(gate, late))
        gate.leave.release(2)
        assert await first == "done"
        with pytest.raises(tf.errors.DeadlineExceededError):
            await second
        assert gate.runs == 1
        assert late.queued_seconds > 0
        admission.close()

    run(scenario())


def test_a_job_that_fails_frees_the_place():
    async def scenario():
        admission = Admission(workers=1, max_queue=0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await admission.run(lambda: 1 // 0, call())
            await until(lambda: admission.running == 0)
        admission.close()

    run(scenario())
