"""What asks a command to end: Ctrl-C, SIGTERM and, where there is one, SIGHUP; a second one does not wait."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from toyscore.cli.errors import StoppedError


class Stop:
    """The first signal that asked for the end, 0 before; the second ends the process at once: the same one by itself, another one when
    Python next looks."""

    def __init__(self, then: Callable[[int], None] = lambda number: None) -> None:
        self.signum, self._then = 0, then

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals until the end of the block; those that the process was started to ignore (nohup), or
        that another library handles, are let be."""
        first = threading.current_thread() is threading.main_thread()  # signals come to no other
        numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])] * first
        before = {n: signal.signal(n, self._take) for n in numbers if signal.getsignal(n) not in (signal.SIG_IGN, None)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.signum:
            os._exit(128 + number)
        self.signum = number
        signal.signal(number, signal.SIG_DFL)  # the same again ends even a call that is not Python's
        self._then(number)


def stopped(number: int) -> None:
    """End what is going on; files that were being written are taken back on the way out."""
    raise StoppedError(number, "stopped")
