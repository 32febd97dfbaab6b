"""The one reader of the environment variables LECTURE_…: switches, folders, and names to choose from."""

import os
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[3]  # of the repository
ON, OFF = ["1", "true", "yes", "on"], ["0", "false", "no", "off"]


def switch(name: str) -> bool:
    """Whether a switch is on, in any usual spelling. Raises ValueError for anything else."""
    return choice(name, ON + OFF, "off") in ON


def folder(name: str, default: Path | str) -> Path:
    """The whole path of a folder, with ~ expanded; a relative default lies in the repository. Nothing is created."""
    value = os.environ.get(name, "").strip()
    return Path(value).expanduser().absolute() if value else ROOT / default


def choice(name: str, known: Iterable[str], default: str) -> str:
    """One of the names that are known, in small letters. Raises ValueError, which lists them."""
    value = os.environ.get(name, "").strip() or default
    if value.lower() not in known:
        raise ValueError(f"{name}={value!r} is not known. Set it to one of: {', '.join(known)}.")
    return value.lower()
