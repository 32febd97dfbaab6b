"""A file that can be trusted: blocks of what `torch.save` writes, each followed by its length and a checksum.

It is read only when every checksum is right, and then with `weights_only=True`, which cannot run code. The checksum
is the CRC-32 of all blocks so far, a third of the work of SHA-256: it finds damage, not malice, but neither would
SHA-256, since anybody can work it out.
"""

import copy
import io
import os
import pickle
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch.utils.serialization import config

END = struct.Struct("<QI")  # of a block: its length in bytes, and the checksum


class Summing:
    """A file open for writing that also works out the checksum of what is written."""

    def __init__(self, file: BinaryIO, checksum: int):
        self.file, self.checksum, self.problem = file, checksum, None

    def write(self, data: bytes) -> int:
        """Called by `torch.save`, which may hide an error of ours behind one of its own."""
        self.checksum = zlib.crc32(data, self.checksum)
        try:
            return self.file.write(data)
        except OSError as error:
            self.problem = error
            raise

    def flush(self) -> None:
        """Called by `torch.save` at its end."""
        self.file.flush()


def write_block(file: BinaryIO, content: dict, before: int = 0) -> int:
    """Write a block to the disk itself, as the end of the file; its checksum, which is `before` of the next block.

    `file` is open for writing and reading. `content` may hold tensors, numbers, texts, lists and dicts.
    Raises OSError where there is no room, or no way back.
    """
    start, summing = file.tell(), Summing(file, before)
    try:
        with config.patch("save.compute_crc32", False):  # torch's own checksums would only cost time
            torch.save(plain(content), summing)
    except (RuntimeError, pickle.PicklingError, AttributeError, TypeError) as error:  # the last three: pickle's
        raise summing.problem or OSError(0, f"torch cannot store it, {str(error).splitlines()[0]}") from None
    file.write(END.pack(file.tell() - start, summing.checksum))
    file.truncate()
    file.seek(start)
    unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if unsafe:
        raise OSError(0, f"it holds {', '.join(unsafe)}, which could not be read back safely")
    file.seek(0, os.SEEK_END)
    os.fsync(file.fileno())  # else a power cut after the renaming could leave an empty file
    return summing.checksum


def write_through(folder: Path) -> None:
    """Make sure that a renaming is on the disk itself, where the system can do that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_verified(path: Path) -> tuple[dict | None, str]:
    """The content of all blocks of a file together, on the CPU, or None and the reason."""
    try:
        data = memoryview(path.read_bytes())
        blocks, end = [], len(data)
        while end:
            stop = end - END.size
            length, checksum = END.unpack(data[max(stop, 0) : end])
            blocks.insert(0, (stop - length, stop, checksum))
            end = blocks[0][0]
            if end < 0:
                return None, f"{len(data):,} bytes, not what was written"
        computed = 0
        for start, stop, checksum in blocks:
            computed = zlib.crc32(data[start:stop], computed)
            if computed != checksum:
                return None, f"{len(data):,} bytes, wrong checksum"
        content = {}
        for start, stop, _ in blocks:
            content |= torch.load(io.BytesIO(data[start:stop]), weights_only=True, map_location="cpu")
    except OSError as error:
        return None, error.strerror or str(error)
    except Exception as error:  # torch.load fails in many ways on a file that was never a checkpoint
        return None, f"not loaded: {type(error).__name__}"
    return content, ""


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
