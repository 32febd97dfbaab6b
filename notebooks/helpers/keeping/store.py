"""Files that are written whole or not at all, by one process at a time, and read only with every checksum right."""

import errno
import os
import pickle
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch.utils._pytree import tree_leaves

ABANDONED = 3600  # seconds; what is being written grows every few seconds, so the process of such a file was killed


def locked(path: Path, timeout: float = 0) -> FileLock | None:
    """The right to write what this lock file guards; None where another process has it for `timeout` seconds."""
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
    except Timeout:
        return None
    except (NotImplementedError, OSError):  # no locks there, or no such folder: what is written next will say so
        pass
    return lock


@contextmanager
def replacing(path: Path, needed: int = 0) -> Iterator[Path]:
    """A temporary path of this call alone, moved to `path` when the block ends well, else removed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.name}.*.partial"):
        with suppress(OSError):  # another process may have been faster
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()
    if (free := shutil.disk_usage(path.parent).free) < needed:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes needed, {free:,} free: {os.strerror(errno.ENOSPC)}")
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)  # atomic
    finally:
        partial.unlink(missing_ok=True)


def write(path: Path, content: dict) -> str:
    """Write tensors, numbers, texts, lists, dicts. Returns "", or why it cannot; what was at `path` then stays."""
    needed = sum(leaf.nbytes for leaf in tree_leaves(content) if isinstance(leaf, torch.Tensor))
    try:
        with replacing(path, needed) as partial:
            with partial.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())  # else a power cut after the renaming could leave an empty file
            if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(partial):
                raise TypeError(f"it holds {', '.join(unsafe)}, which could not be read back safely")
    except (OSError, RuntimeError, MemoryError, pickle.PicklingError, AttributeError, TypeError) as error:
        return (getattr(error, "strerror", None) or str(error) or "no memory left").splitlines()[0]
    return ""


def read(path: Path) -> tuple[dict | None, str]:
    """What was written, on the CPU, or None and the reason. With `weights_only=True`, which cannot run code."""
    try:
        with zipfile.ZipFile(path) as archive:  # what torch.save writes: each part has its CRC-32
            if archive.testzip() is not None:
                return None, f"{path.stat().st_size:,} bytes, wrong checksum"
        content = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        return None, error.strerror or str(error)
    except Exception as error:  # a damaged file fails in many ways
        return None, f"not loaded: {type(error).__name__}"
    return (content, "") if isinstance(content, dict) else (None, "not written by a lecture")
