"""Settings of every test run: the quick profile, no network, and results outside the repository's own."""

import os
from pathlib import Path

os.environ["LECTURE_PROFILE"] = "quick"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each of the processes that pytest-xdist starts, and of their kernels
os.environ["LECTURE_OFFLINE"] = "1"
os.environ["LECTURE_RESULTS"] = str(Path(__file__).parent / "build" / "tests" / "results")


def pytest_collection_modifyitems(items):
    """nbval gives up on a cell that prints nothing for 5 s; training cells may be silent for longer."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 300
