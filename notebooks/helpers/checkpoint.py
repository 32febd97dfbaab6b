"""Checkpoints: a training run on disk after each epoch, so that it can go on when its kernel has died.

A file holds what `torch.save` writes, followed by the SHA-256 of that. It gets its name only when it is complete, and
the file of the epoch before is kept. It is read only when the checksum is right, and then with `weights_only=True`,
which cannot run code. What a run consists of is decided by `training.fit`, not here.
"""

import copy
import hashlib
import io
import os
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

CHECKSUM_BYTES = 32


class CheckpointError(RuntimeError):
    """A run cannot go on from its checkpoint. The message says why, and what to do next."""


def checkpoint_folder(lecture: str) -> Path:
    """The lecture's folder in LECTURE_CHECKPOINTS, or in `build/checkpoints` of the repository."""
    root = os.environ.get("LECTURE_CHECKPOINTS") or Path(__file__).parents[2] / "build" / "checkpoints"
    return Path(root) / lecture


def remove_all(folder: Path) -> None:
    """Delete every checkpoint in the folder, and the folder if nothing else is in it."""
    for path in [*folder.glob("*.checkpoint"), *folder.glob("*.partial")]:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@dataclass(frozen=True)
class Checkpoint:
    """The files of one training run in `folder`. `settings` are compared beside those that `training.fit` collects."""

    folder: Path
    name: str  # of the run, for example "improved"
    settings: Mapping[str, str | int | float]

    def files(self) -> dict[int, Path]:
        """The files there are, by epoch, newest first."""
        pattern = re.compile(re.escape(self.name) + r"\.(\d+)\.checkpoint")
        names = sorted(os.listdir(self.folder), reverse=True) if self.folder.is_dir() else []
        return {int(match[1]): self.folder / match[0] for match in map(pattern.fullmatch, names) if match}

    def remove(self) -> None:
        """Delete the files of this run, to start over."""
        for path in self.files().values():
            path.unlink(missing_ok=True)

    def save(self, epoch: int, content: dict) -> str:
        """Write the file of this epoch and keep the one before. Returns "", or one line why it could not be written.

        `content` may hold tensors, numbers, texts, lists and dicts. The older files stay intact when this fails.
        """
        path = self.folder / f"{self.name}.{epoch:04}.checkpoint"
        partial = path.with_suffix(f".{os.getpid()}.partial")
        try:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as file:
                    write_with_checksum(file, {"epoch": epoch, **content})
                unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(partial)
                if unsafe:
                    raise OSError(0, f"it holds {', '.join(unsafe)}, which could not be read back safely")
                partial.replace(path)  # atomic
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            needed = f"{size_of(content) / 1e6:,.1f} MB needed"
            return f"The checkpoint of epoch {epoch} is not saved: {error.strerror} ({needed}{self.free_space()})."
        earlier = max((number for number in self.files() if number < epoch), default=epoch)
        for number, other in self.files().items():
            if number not in (epoch, earlier):
                other.unlink(missing_ok=True)
        for left_behind in self.folder.glob("*.partial"):  # by a process that was killed while it wrote
            if left_behind.name.startswith(f"{self.name}."):
                left_behind.unlink(missing_ok=True)
        return ""

    def free_space(self) -> str:
        """The free space where the files are, as the rest of a sentence."""
        place = next((folder for folder in [self.folder, *self.folder.parents] if folder.is_dir()), Path())
        return f", {shutil.disk_usage(place).free / 1e6:,.1f} MB free in {place}"

    def load(self, settings: dict) -> tuple[dict | None, str]:
        """The newest intact content, or None where there is no file; and one line about damaged files, or "".

        Raises CheckpointError where no file is intact, or where its settings are not `settings`.
        """
        damaged = []
        for epoch, path in self.files().items():
            content, reason = read_verified(path)
            if content is None or content.get("epoch") != epoch:
                damaged.append(f"{path.name} is damaged ({reason or 'it is of another epoch'})")
                continue
            different = differences(content["settings"], settings)
            if different:
                raise CheckpointError(
                    f"The checkpoint {path} was made with other settings: {different}. It is kept, and nothing was"
                    f" trained. Set them back to go on after epoch {epoch}, or delete it to start over."
                )
            note = f"{'; '.join(damaged)}: the one before is used." if damaged else ""
            return content, note
        if damaged:
            raise CheckpointError(
                f"No checkpoint of {self.name!r} in {self.folder} can be read: {'; '.join(damaged)}. Nothing was"
                " trained. Delete them to start over."
            )
        return None, ""


class Digesting:
    """A file open for writing that also works out the SHA-256 of what is written."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.error = file, hashlib.sha256(), None

    def write(self, data: bytes) -> int:
        """Called by `torch.save`, which turns an OSError into words of its own; so it is noted here."""
        self.digest.update(data)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Called by `torch.save` at its end."""
        self.file.flush()


def write_with_checksum(file: BinaryIO, content: dict) -> None:
    """Write content and checksum to the disk itself. Raises OSError where there is no room."""
    digesting = Digesting(file)
    try:
        torch.save(plain(content), digesting)
    except (RuntimeError, pickle.PicklingError, AttributeError, TypeError) as error:  # the last three: pickle's
        raise digesting.error or OSError(0, f"torch cannot store it, {str(error).splitlines()[0]}") from None
    file.write(digesting.digest.digest())
    file.flush()
    os.fsync(file.fileno())  # else a power cut after the renaming could leave an empty file


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
    return (content, "") if isinstance(content, dict) and "settings" in content else (None, "not a checkpoint")


def differences(then: Mapping, now: Mapping) -> str:
    """The settings that are not the same, as text; "" if all are."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    shown = [f"{key} was {then.get(key, 'not there')}, now {now.get(key, 'not there')}" for key in keys[:4]]
    return "; ".join(shown) + (f"; and {len(keys) - 4} more" if len(keys) > 4 else "")


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
