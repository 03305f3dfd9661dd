"""Ctrl-C in its own process, also when a library wraps it."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import dataclasses, signal, sys, threading
from usr_tf.cli.program import VERBS, main

def fail_in_a_thread():
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()

def run(*_):
    {body}

VERBS["train"] = dataclasses.replace(VERBS["train"], run=run, extras=(), tensorflow=False)
sys.argv = ["usr-tf", "train", "--data", "my data"]
sys.exit(main())
"""
WRAPPED = """
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt as error:
        fail_in_a_thread()
        raise RuntimeError("a worker ended") from error
"""
TWICE = """
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
"""
GOES_ON = "interrupted; to go on: usr-tf train --data 'my data'\n"


def program(body: str, handler: str = "default_int_handler") -> tuple[int, str, str]:
    """Status, output and errors of `usr-tf train` whose work is `body`, in a process that handles SIGINT so."""
    text = f"import signal; signal.signal(signal.SIGINT, signal.{handler})\n" + PROGRAM.format(body=body.strip())
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("body", ["signal.raise_signal(signal.SIGINT)", WRAPPED])
def test_an_interruption_is_one_line_also_where_a_library_wraps_it(body):
    assert program(body) == (130, "", GOES_ON)


def test_a_second_one_ends_the_process_at_once():
    assert program(TWICE) == (-signal.SIGINT, "", "")


def test_a_process_that_ignores_it_goes_on():
    assert program("signal.raise_signal(signal.SIGINT); print('done')", "SIG_IGN") == (0, "done\n", "")
