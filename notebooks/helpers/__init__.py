"""The package of the lectures. Imported before torchvision, it says when torch and torchvision do not match."""

import sys
from importlib.metadata import PackageNotFoundError, version


def check_torchvision() -> None:
    """Raise ImportError with both versions and the fix where torchvision cannot be loaded beside this torch.

    It is tried, since versions do not tell: builds for CPU and for CUDA share a version, and fail beside each other.
    """
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # a RuntimeError, OSError or ImportError, depending on what does not match
        found = [f"{package} {installed(package)}" for package in ("torch", "torchvision")]
        reason = " ".join(str(error).split())
        raise ImportError(
            f"{' and '.join(found)} do not work together ({reason}). Install the pair that requirements.txt names, both"
            " from one index: python -m pip install --force-reinstall -r requirements.txt (CPU only: see README.md)"
        ) from None


def installed(package: str) -> str:
    """The version of a package; with the name of its build, such as +cpu, where it could be loaded."""
    try:
        return getattr(sys.modules.get(package), "__version__", None) or version(package)
    except PackageNotFoundError:
        return "(not installed)"


check_torchvision()
