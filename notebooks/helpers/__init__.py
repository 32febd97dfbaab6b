"""The package of the lectures. Import it before torch: it settles how CPU threads wait, and checks torchvision."""

import os
import sys
from importlib import metadata

# Threads that share an operation wait for each other in a loop, for milliseconds, in which another program could run.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # a tenth of the default: alone as fast, and then they sleep

try:
    import torchvision  # noqa: F401
except Exception as error:  # of several kinds. It is tried, since builds for CPU and for CUDA share a version
    versions = [getattr(sys.modules.get("torch"), "__version__", "(not installed)")]  # with the build, such as +cpu
    versions += [package.version for package in metadata.distributions(name="torchvision")][:1]
    found = "torch {} and torchvision {}".format(*versions, "(not installed)")
    raise ImportError(
        f"{found} do not work together ({' '.join(str(error).split())}). Install a pair that requirements.txt allows,"
        " both from one index: python -m pip install --force-reinstall -r requirements.txt (or see docs/commands.md)"
    ) from None
