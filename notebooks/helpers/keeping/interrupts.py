"""Stop, Ctrl-C and SIGTERM: they end a training run, but never cut a saved state in half."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """From `begin` to `end`, Stop, Ctrl-C and SIGTERM raise KeyboardInterrupt; in other threads this does nothing.

    Those within `held`, and any after the first, wait for its end: a state is never restored or written by half.
    """

    def __init__(self):
        self.holding = self.waiting = False
        self.before = {}

    def begin(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self.before[number] = signal.signal(number, self.receive)

    def end(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def receive(self, number, frame) -> None:
        self.waiting = self.holding
        if not self.holding:
            self.holding = True
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Finish what is inside before an interrupt is raised."""
        self.holding = True
        yield
        self.holding = self.waiting
        if self.waiting:
            raise KeyboardInterrupt
