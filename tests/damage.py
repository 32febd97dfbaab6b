"""Damage to files, as hypothesis draws it."""

import os
from pathlib import Path

from hypothesis import strategies as st

DAMAGES = {  # what becomes of `data`, given other bytes, a position and an amount
    "truncate": lambda data, other, position, amount: data[:position],
    "empty": lambda data, other, position, amount: b"",
    "flip": lambda data, other, position, amount: (
        data[:position] + bytes([data[position] ^ (1 << amount % 8)]) + data[position + 1 :]
    ),
    "oversize": lambda data, other, position, amount: data + bytes(amount),
    "insert": lambda data, other, position, amount: data[:position] + other[:amount] + data[position:],
    "zeros": lambda data, other, position, amount: (
        data[:position] + bytes(len(data[position : position + amount])) + data[position + amount :]
    ),
    "swap": lambda data, other, position, amount: other,
    "splice": lambda data, other, position, amount: data[:position] + other[position:],
    "remove": lambda data, other, position, amount: None,
}
WHICH = st.integers(0, 11)  # file
ONE = st.tuples(WHICH, st.sampled_from(sorted(DAMAGES)), WHICH, st.floats(0, 1, exclude_max=True), st.integers(1, 5000))
damages = st.lists(ONE, min_size=1, max_size=3)


def damage(paths: list[Path], plan: list, others: list[bytes] = ()) -> None:
    """Damage the files as drawn, with `others` or one another. Times of change move on, as between two lectures."""
    others = others or [path.read_bytes() for path in paths]
    for turn, (which, kind, other, share, amount) in enumerate(plan):
        path = paths[which % len(paths)]
        data = (path.read_bytes() if path.exists() else b"") or b"\0"
        path.unlink(missing_ok=True)
        data = DAMAGES[kind](data, others[other % len(others)], int(share * len(data)), amount)
        if data is not None:
            path.write_bytes(data)
            os.utime(path, (2e9 + turn, 2e9 + turn))
