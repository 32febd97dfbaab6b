"""Files on disk: checked by checksum, and written so that no half of one is ever used and nobody is in the way."""

import errno
import gzip
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.progress import LiveText

LARGEST = 2**26  # bytes that a .gz may unpack to; MNIST's largest file has 47 MB
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, over the quota, over the limit for one file


class DataError(OSError):
    """A dataset cannot be had. The message says which file, why, and what to do next."""


@contextmanager
def writing(dataset: str, folder: Path, lock: str) -> Iterator[None]:
    """Make the folder and let in one process at a time: of several notebooks one downloads, the others then find it.

    Whoever waits longer than a second says for whom. Raises DataError where the folder cannot be written.
    """
    guard, holder = FileLock(folder / lock), folder / f"{lock}.holder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            guard.acquire(timeout=1)
        except Timeout:
            LiveText().show(f"{dataset}: waiting for {describe_holder(folder, holder)}.", final=True)
            guard.acquire()
        try:
            with suppress(OSError):  # only a courtesy to those who wait
                holder.write_text(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")
            yield
        finally:
            holder.unlink(missing_ok=True)
            guard.release()
    except DataError:
        raise
    except OSError as error:
        advice = "Free some space or set LECTURE_DATA to a folder that can be written, or that has the data"
        raise DataError(f"{dataset}: {folder} cannot be written ({error.strerror or error}). {advice}.") from error


def describe_holder(folder: Path, holder: Path) -> str:
    """For people: who writes into the folder, since when, and which file."""
    who = "another process"
    with suppress(OSError):  # it may be gone at this moment
        who = holder.read_text() or who
    files = sorted(path.name.removesuffix(".partial") for path in folder.glob("*.partial"))
    return f"{who}, which prepares {', '.join(files) or 'the files'} in {folder}"


@contextmanager
def space_for(size: int, folder: Path) -> Iterator[None]:
    """Where what is written inside does not fit on the disk, raise a DataError that names needed and free space."""
    try:
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(folder).free
        advice = "Free some space, or set LECTURE_DATA to a folder that has more, and run again"
        numbers = f"{size:,} bytes needed, {free:,} free"
        raise DataError(f"{folder} has no space ({numbers}: {error.strerror}). {advice}.") from error


def verified(path: Path, checksum: str, algorithm: Callable = hashlib.sha256) -> bool:
    """Whether the file exists and has this checksum. Raises DataError where it exists but cannot be read."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == checksum
    except OSError as error:
        advice = "Make it readable, or set LECTURE_DATA to another folder"
        raise DataError(f"{path} cannot be read ({error.strerror}). {advice}.") from error


def unpack(packed: Path, path: Path, checksum: str) -> bool:
    """Unpack a .gz file to `path` if the content has this SHA-256; say whether it had."""
    try:
        with gzip.open(packed) as file:
            content = file.read(LARGEST + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    if hashlib.sha256(content).hexdigest() != checksum:
        return False
    write_whole(path, content)
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it under its name."""
    partial = path.with_name(path.name + ".partial")
    try:
        with space_for(len(content), path.parent):
            partial.write_bytes(content)
        partial.replace(path)  # atomic
    finally:
        partial.unlink(missing_ok=True)
