"""One file that can be trusted: what `torch.save` writes, followed by the SHA-256 of that.

It is read only when the checksum is right, and then with `weights_only=True`, which cannot run code. A checksum finds
damage, not malice: anybody can work it out.
"""

import copy
import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch.utils.serialization import config

CHECKSUM_BYTES = 32


class Digesting:
    """A file open for writing that also works out the SHA-256 of what is written."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Called by `torch.save`."""
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        """Called by `torch.save` at its end."""
        self.file.flush()


def write_verifiable(file: BinaryIO, content: dict) -> None:
    """Write content and checksum to the disk itself. Raises OSError where there is no room, or no way back.

    `content` may hold tensors, numbers, texts, lists and dicts.
    """
    digesting = Digesting(file)
    try:
        with config.patch("save.compute_crc32", False):  # torch's own checksums would only cost time
            torch.save(plain(content), digesting)
    except (RuntimeError, pickle.PicklingError, AttributeError, TypeError) as error:  # the last three: pickle's
        raise OSError(0, f"torch cannot store it, {str(error).splitlines()[0]}") from None
    file.write(digesting.digest.digest())
    file.flush()
    unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(file.name)
    if unsafe:
        raise OSError(0, f"it holds {', '.join(unsafe)}, which could not be read back safely")
    os.fsync(file.fileno())  # else a power cut after the renaming could leave an empty file


def write_through(folder: Path) -> None:
    """Make sure that a renaming is on the disk itself, where the system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_verified(path: Path) -> tuple[dict | None, str]:
    """The content of a file, on the CPU, or None and the reason."""
    try:
        data = path.read_bytes()
        stored, data = data[-CHECKSUM_BYTES:], data[:-CHECKSUM_BYTES]
        if hashlib.sha256(data).digest() != stored:
            return None, f"{len(data) + len(stored):,} bytes, wrong SHA-256"
        content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except OSError as error:
        return None, error.strerror or str(error)
    except Exception as error:  # torch.load fails in many ways on a file that was never a checkpoint
        return None, f"not loaded: {type(error).__name__}"
    return (content, "") if isinstance(content, dict) else (None, "no dict")


def plain(value: object) -> object:
    """The same with Python's numbers in place of NumPy's, which `weights_only=True` would refuse to load."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        same = copy.copy(value)  # keeps what a state dict notes beside its entries
        same.clear()
        same.update({plain(key): plain(part) for key, part in value.items()})
        return same
    if type(value) in (list, tuple):
        return type(value)(plain(part) for part in value)
    return value


def size_of(value: object) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return sum(size_of(part) for part in parts)
