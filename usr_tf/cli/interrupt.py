"""Ctrl-C: told apart from other errors, also where a library wraps it in an error of its own."""

import signal
import sys
import threading
from types import FrameType


class Interrupts:
    """Notices SIGINT in the main thread of a program, for the rest of its life.

    Beam turns a `KeyboardInterrupt` inside a stage into a RuntimeError, and its worker processes report their own end:
    by `seen`, whatever is raised after a Ctrl-C is known to come of it. Threads that fail because of it print nothing.
    A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.seen = False

    def watch(self) -> None:
        """Begins. A process that ignores SIGINT, as a shell's background jobs do, goes on ignoring it."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._notice)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.excepthook = lambda _: None
        sys.unraisablehook = lambda _: None
        signal.default_int_handler(number, frame)
