"""Checkpoints: a training run on disk, so that it can go on when its kernel has died.

A file is written under another name and renamed when it is complete; the one before is kept. See `keeping.store`.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helpers.keeping import store

NEEDED = {"epoch", "settings", "history", "states"}


class CheckpointError(RuntimeError):
    """A run cannot go on from its checkpoint. The message says why, and what to do next."""


@dataclass(frozen=True)
class Checkpoint:
    """The files of one training run in `folder`. `settings` are compared beside those of the run itself."""

    folder: Path
    name: str  # of the run, for example "improved"
    settings: Mapping[str, str | int | float]

    def files(self) -> dict[int, Path]:
        """The files there are, by epoch, newest first."""
        pattern = re.compile(re.escape(self.name) + r"\.(\d+)\.checkpoint")
        names = sorted(os.listdir(self.folder), reverse=True) if self.folder.is_dir() else []
        return {int(match[1]): self.folder / match[0] for match in map(pattern.fullmatch, names) if match}

    def remove(self) -> None:
        """Delete the files of this run, to start afresh; those that another kernel is writing stay."""
        lock = store.locked(self.lock_file()) if self.folder.is_dir() else None
        if lock is not None:
            self.tidy(keep=())
            lock.release()
            self.lock_file().unlink(missing_ok=True)

    def tidy(self, keep: tuple[int, ...]) -> None:
        """Delete all files but those of these epochs, and what killed processes left."""
        left = [path for path in self.folder.glob("*.partial") if path.name.startswith(f"{self.name}.")]
        for path in left + [path for epoch, path in self.files().items() if epoch not in keep]:
            path.unlink(missing_ok=True)

    def lock_file(self) -> Path:
        return self.folder / f"{self.name}.lock"

    def save(self, content: dict) -> str:
        """Write the states of an epoch. Returns "", or why it cannot; older files stay intact."""
        epoch = content["epoch"]
        if reason := store.write(self.folder / f"{self.name}.{epoch:04}.checkpoint", content):
            return f"The checkpoint of epoch {epoch} is not saved in {self.folder}: {reason}."
        with suppress(OSError):  # what cannot be deleted stays
            self.tidy(keep=(epoch, max((other for other in self.files() if other < epoch), default=epoch)))
        return ""

    def load(self, settings: dict) -> tuple[dict | None, str]:
        """The newest intact content, or None where there is no file; and one line about damaged files, or "".

        Raises CheckpointError where no file is intact, or where its settings are not `settings`.
        """
        damaged, afresh = [], f"start afresh with run.checkpoint({self.name!r}).remove()"
        for epoch, path in self.files().items():
            content, reason = store.read(path)
            if content is None or not (content.keys() >= NEEDED and content["epoch"] == epoch):
                damaged.append(f"{path.name} is damaged ({reason or 'not the checkpoint of this epoch'})")
            elif different := differences(content["settings"], settings):
                advice = f"Nothing was trained. Set them back to go on after epoch {epoch}, or {afresh}"
                raise CheckpointError(f"The checkpoint {path} was made with other settings: {different}. {advice}.")
            else:
                return content, f"{'; '.join(damaged)}: the one before is used." if damaged else ""
        if damaged:
            found = f"No checkpoint of {self.name!r} in {self.folder} can be read: {'; '.join(damaged)}"
            advice = f"Nothing was trained. Keep copies if you want to look at them, then {afresh}"
            raise CheckpointError(f"{found}. {advice}.")
        return None, ""


def differences(then: Mapping, now: Mapping) -> str:
    """The settings that are not the same, as text; "" if all are."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    shown = [f"{key} was {then.get(key, 'not there')[:100]}, now {now.get(key, 'not there')[:100]}" for key in keys[:4]]
    return "; ".join(shown) + (f"; and {len(keys) - 4} more" if len(keys) > 4 else "")
