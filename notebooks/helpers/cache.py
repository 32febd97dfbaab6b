"""Decoded images kept as one file, so that the second start of a lecture takes under a second.

The file is only a copy: it is used when the sources are the same as when it was written and its content is intact,
and made again otherwise. It is read with `weights_only=True`, which cannot run code.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch

from helpers.data import ImageSet
from helpers.progress import LiveText

NAME = "decoded.pt"  # the file's name, in the folder of what it is decoded from


def fingerprint(folder: Path, files: Iterable[os.DirEntry | Path], settings: str = "") -> str:
    """SHA-256 of the names, sizes and times of change of the files, and of the settings they are decoded with."""
    parts = [settings]
    for file in files:
        about = file.stat()
        name = os.fspath(file).removeprefix(os.fspath(folder))  # os.path.relpath would take most of a warm start
        parts.append(f"{name} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def content_checksum(content: dict) -> str:
    """SHA-256 of all that a cache file holds."""
    digest = hashlib.sha256()
    for key in sorted(content.keys() - {"checksum"}):
        value = content[key]
        digest.update(f"{key} {tuple(value.shape)}".encode() if torch.is_tensor(value) else f"{key} {value}".encode())
        if torch.is_tensor(value):
            digest.update(value.contiguous().numpy())
    return digest.hexdigest()


def matches(path: Path, sources: str | None) -> bool:
    """Whether the file has the fingerprint `sources`. Reads only its head, and does not check its content."""
    try:
        return path.is_file() and torch.load(path, weights_only=True, mmap=True)["sources"] == sources
    except Exception:  # as in `load`
        return False


def load(path: Path, sources: str) -> tuple[ImageSet, ImageSet] | None:
    """The training and the test set if the file is intact and has the fingerprint `sources`, else None."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True)
        if content["sources"] != sources or content["checksum"] != content_checksum(content):
            return None
        about = content["classes"], content["name"], content["source"]
        return tuple(ImageSet(content[f"{p}_images"], content[f"{p}_labels"], *about) for p in ("train", "test"))
    except Exception:  # a damaged file fails in many ways, and each of them only means: decode again
        return None


def save(path: Path, sources: str, train: ImageSet, test: ImageSet) -> None:
    """Keep both sets with the fingerprint `sources`. Says so in one line where the file cannot be written."""
    content = {"sources": sources, "classes": train.classes, "name": train.name, "source": train.source}
    for part, images in {"train": train, "test": test}.items():
        content |= {f"{part}_images": images.images, f"{part}_labels": images.labels}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # a name of its own for every process
    try:
        try:
            torch.save({**content, "checksum": content_checksum(content)}, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        needed = sum(value.nbytes for value in content.values() if torch.is_tensor(value))
        free = shutil.disk_usage(path.parent).free  # torch's own message for a full disk does not say that it is full
        reason = str(error).splitlines()[0] if free > needed else f"{needed:,} bytes needed, {free:,} free"
        LiveText().show(
            f"{train.name}: the decoded images are not kept, since {path} cannot be written ({reason})."
            " Every start decodes them again.",
            final=True,
        )
