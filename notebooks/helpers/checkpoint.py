"""Checkpoints: a training run on disk after each epoch, so that it can go on when its kernel has died.

A file gets its name only when it is complete, and the file of the epoch before is kept. Most of it is written while
the epoch is tested. How a file is verified stands in `checksummed.py`; what a run consists of is decided by
`training.fit`.
"""

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.checksummed import read_verified, size_of, write_block, write_through

NEEDED = {"epoch", "settings", "history", "states"}


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

    def start_over(self) -> str:
        """What to do, as the end of a sentence."""
        return f"start over with run.checkpoint({self.name!r}).remove()"

    def begin(self, epoch: int, states: list[dict]) -> "Writing":
        """Start to write the file of this epoch, in a thread. The states must not change until `Writing.finish`."""
        return Writing(self, epoch, states)

    def superseded(self, epoch: int) -> list[Path]:
        """The files that are neither of this epoch's predecessor nor of itself."""
        before = max((number for number in self.files() if number < epoch), default=epoch)
        return [path for number, path in self.files().items() if number not in (before, epoch)]

    def clean_up(self, epoch: int) -> None:
        """Keep this epoch and the one before, and nothing that a process left behind which was killed while writing."""
        left = [path for path in self.folder.glob("*.partial") if path.name.startswith(f"{self.name}.")]
        with contextlib.suppress(OSError):  # the next epoch tries again
            for path in self.superseded(epoch) + left:
                path.unlink(missing_ok=True)

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
            if content is not None and not (content.keys() >= NEEDED and content["epoch"] == epoch):
                content, reason = None, "not the checkpoint of this epoch"
            if content is None:
                damaged.append(f"{path.name} is damaged ({reason})")
                continue
            different = differences(content["settings"], settings)
            if different:
                raise CheckpointError(
                    f"The checkpoint {path} was made with other settings: {different}. It is kept, and nothing was"
                    f" trained. Set them back to go on after epoch {epoch}, or {self.start_over()}."
                )
            note = f"{'; '.join(damaged)}: the one before is used." if damaged else ""
            return content, note
        if damaged:
            raise CheckpointError(
                f"No checkpoint of {self.name!r} in {self.folder} can be read: {'; '.join(damaged)}. Nothing was"
                f" trained. Copy them elsewhere if you want to look at them, then {self.start_over()}."
            )
        return None, ""


class Writing:
    """A file on its way to the disk: the states in a thread, and with the rest, in `finish`, its name."""

    def __init__(self, checkpoint: Checkpoint, epoch: int, states: list[dict]):
        self.checkpoint, self.epoch, self.needed = checkpoint, epoch, size_of(states)
        self.path = checkpoint.folder / f"{checkpoint.name}.{epoch:04}.checkpoint"
        self.partial = self.path.with_suffix(f".{os.getpid()}.partial")
        self.file = self.problem = None
        self.thread = threading.Thread(target=self.write, args=(states,))
        self.thread.start()

    def write(self, states: list[dict]) -> None:
        """Write the states, into a file no longer needed if there is one: room that was used before is quicker."""
        try:
            self.checkpoint.folder.mkdir(parents=True, exist_ok=True)
            for path in self.checkpoint.superseded(self.epoch)[:1]:
                path.replace(self.partial)
            self.file = self.partial.open("r+b" if self.partial.exists() else "w+b")
            self.checksum = write_block(self.file, {"epoch": self.epoch, "states": states})
        except (OSError, MemoryError) as error:
            self.problem = error

    def finish(self, rest: dict) -> str:
        """Write the rest, which may hold tensors, numbers, texts, lists and dicts, and give the file its name.

        Returns "", or one line why it could not be written; the file of the epoch before is intact all the same.
        """
        self.thread.join()
        try:
            if self.problem:
                raise self.problem
            write_block(self.file, rest, self.checksum)
            self.file.close()
            self.partial.replace(self.path)  # atomic
            write_through(self.checkpoint.folder)
        except (OSError, MemoryError) as error:
            self.abandon()
            reason = getattr(error, "strerror", None) or str(error) or "no memory left"
            room = f"{self.needed / 1e6:,.1f} MB needed{self.checkpoint.free_space()}"
            return f"The checkpoint of epoch {self.epoch} is not saved: {reason} ({room})."
        self.checkpoint.clean_up(self.epoch)
        return ""

    def abandon(self) -> None:
        """Leave no trace of a file that did not get its name."""
        self.thread.join()
        with contextlib.suppress(OSError):
            if self.file:
                self.file.close()  # may try to write once more
        with contextlib.suppress(OSError):
            self.partial.unlink(missing_ok=True)


def differences(then: Mapping, now: Mapping) -> str:
    """The settings that are not the same, as text; "" if all are."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    shown = [f"{key} was {then.get(key, 'not there')}, now {now.get(key, 'not there')}" for key in keys[:4]]
    return "; ".join(shown) + (f"; and {len(keys) - 4} more" if len(keys) > 4 else "")
