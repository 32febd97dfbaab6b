"""Files that are written whole or not at all, and results of long work, kept for the next run."""

import errno
import hashlib
import os
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

ABANDONED = 3600  # seconds; what is being written grows every few seconds, so the process of such a file was killed


@contextmanager
def replacing(path: Path, needed: int = 0) -> Iterator[Path]:
    """A temporary path of this call alone, moved to `path` when the block ends well, else removed. Raises OSError."""
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


def fingerprint(folder: Path, files: list[Path], settings: str) -> str:
    """SHA-256 of the names, sizes and times of change of the files, and of the settings they are decoded with."""
    about = [(str(file).removeprefix(str(folder)), file.stat()) for file in files]
    text = settings + "".join(f"\n{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in about)
    return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path, key: str) -> object:
    """What was kept under `key`, or None where the file is missing, damaged, or holds something else."""
    with suppress(Exception):  # a damaged file fails in many ways, and each of them only means: not this one
        if zipfile.ZipFile(path).testzip() is None:  # CRC-32, which torch does not look at
            kept = torch.load(path, weights_only=True)
            return kept["content"] if kept["key"] == key else None
    return None


def save(path: Path, key: str, content: object, needed: int) -> str:
    """Keep tensors, numbers, texts, lists and dicts of `needed` bytes. Returns why they cannot be kept, or ""."""
    try:
        with replacing(path, needed) as partial:
            torch.save({"key": key, "content": content}, partial)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        return getattr(error, "strerror", None) or " ".join(str(error).split())
    return ""
