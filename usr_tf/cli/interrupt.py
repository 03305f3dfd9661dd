"""Ctrl-C detection, also where a library wraps the interrupt in an error of its own."""

import signal
import sys
import threading
from types import FrameType


class Interrupts:
    """Record of SIGINT in the main thread, for the rest of the process.

    Beam turns a `KeyboardInterrupt` inside a stage into a RuntimeError, and its worker processes report their own end:
    by `seen`, whatever is raised after a Ctrl-C is known to come of it. Threads that fail because of it print nothing.
    A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.seen = False

    def watch(self) -> None:
        """Installs the handler. A process that ignores SIGINT, such as a background job, still ignores it."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._notice)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        threading.excepthook = lambda _: None
        sys.unraisablehook = lambda _: None
        signal.default_int_handler(number, frame)
