"""Text that is updated in place while something runs, and stays as plain text when it is done."""

import sys
import time

from IPython import get_ipython
from IPython.display import display

from helpers.environment import clock


class LiveText:
    """One output of a notebook cell whose text can be replaced. In a terminal only the final text is printed."""

    def __init__(self):
        self.handle = None

    def show(self, text: str, final: bool = False) -> None:
        """Replace what is shown. Call it once with `final=True` at the end."""
        if get_ipython() is None:
            if final:
                print(text, flush=True)
            elif sys.stderr.isatty():
                print("\r\033[K" + text.splitlines()[-1], end="\r", file=sys.stderr, flush=True)
        elif self.handle is None:
            self.handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self.handle.update({"text/plain": text}, raw=True)


class Progress:
    """Counts towards `total` and describes where it stands: bar, share, rate and time left.

    `update` calls `show(line)` at most four times a second. pooch drives the same object while it downloads.
    """

    def __init__(self, show, unit: str, total: int = 0):
        self.show, self.unit, self.total = show, unit, total
        self.start = self.drawn = time.perf_counter()
        self.done = 0

    def update(self, count: int) -> None:
        """`count` more units are done."""
        self.done += count
        now = time.perf_counter()
        if now - self.drawn > 0.25:
            self.drawn = now
            self.show(self.line())

    def line(self) -> str:
        """For example: █████░░░░░ 50 % · 1,200 images/s · 12 s left."""
        share = min(1.0, self.done / max(self.total, 1))
        rate = self.done / max(time.perf_counter() - self.start, 1e-9)
        left = clock((self.total - self.done) / rate) if rate and share < 1 else "0 s"
        return f"{'█' * round(10 * share):░<10} {share:4.0%} · {rate:,.0f} {self.unit}/s · {left} left"

    def reset(self) -> None:
        """Start counting again from 0."""
        self.done = 0

    def close(self) -> None:
        """Nothing to release; pooch calls it."""
