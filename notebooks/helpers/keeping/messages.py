"""Text that is updated in place while something runs, and stays as plain text when it is done."""

import sys
import time

from IPython import get_ipython
from IPython.display import display


class LiveText:
    """One output of a notebook cell whose text can be replaced. In a terminal only the final text is printed."""

    def __init__(self):
        self.handle = None

    def show(self, text: str, final: bool = False) -> None:
        if get_ipython() is None:
            if final:
                print(text, flush=True)
            elif sys.stderr.isatty():
                print("\r\033[K" + text.splitlines()[-1], end="\r", file=sys.stderr, flush=True)
        elif self.handle is None:
            self.handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self.handle.update({"text/plain": text}, raw=True)


def say(text: str) -> None:
    """One line that stays."""
    LiveText().show(text, final=True)


class Progress:
    """Counts towards `total` and calls `show(line)`, at most four times a second: bar, share, rate and time left."""

    def __init__(self, show, unit: str, total: int = 0):
        self.show, self.unit, self.total, self.done = show, unit, total, 0
        self.start = self.drawn = time.perf_counter()

    def update(self, count: int) -> None:
        self.done += count
        if time.perf_counter() - self.drawn > 0.25:
            self.drawn = time.perf_counter()
            self.show(self.line())

    def line(self) -> str:
        """For example: █████░░░░░ 50 % · 1,200 images/s · 12 s left."""
        share = min(1.0, self.done / max(self.total, 1))
        rate = self.done / max(time.perf_counter() - self.start, 1e-9)
        left = clock((self.total - self.done) / rate) if rate and share < 1 else "0 s"
        return f"{'█' * round(10 * share):░<10} {share:4.0%} · {rate:,.0f} {self.unit}/s · {left} left"


def clock(seconds: float) -> str:
    """A time for people: 42 s, 3 min 05 s, 1 h 02 min."""
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def first(texts: list[str], count: int = 3) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(texts[:count]) + (f" and {len(texts) - count} more" if len(texts) > count else "")
