"""What keeps a training run whole: states to go back to, interrupts that wait, checkpoints, errors in plain words.

`training.fit` trains within `Kept`: whatever ends an epoch early takes the run back to the end of the one before.
"""

import gc
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from helpers.keeping import checks, store
from helpers.keeping.fingerprint import run_settings
from helpers.keeping.interrupts import Interrupts
from helpers.keeping.messages import LiveText, Progress, say
from helpers.keeping.states import restore, snapshot

PAUSE = 30  # seconds of training between two checkpoints, so that short epochs do not spend their time saving, …
SHARE = 50  # … and at least this many times what the last one took: saving costs less than 2 %
SLOW = 1.8  # times the fastest epoch: more than the noise of a quiet machine


class Kept:
    """One run of `training.fit`: `given` are its model, both batches, criterion, optimizer and scheduler."""

    def __init__(self, given: tuple, step, history, epochs: int, checkpoint=None, verbose=True):
        self.given = given
        self.model, self.train_batches, self.test_batches, self.criterion, self.optimizer, self.scheduler = given
        self.step, self.history, self.epochs, self.checkpoint = step, history, epochs, checkpoint
        self.parts = [part for part in (self.model, self.optimizer, self.scheduler, step.scaler) if part is not None]
        show = LiveText().show if verbose else lambda text, final: None
        self.show_table = lambda line, final=False: show(f"{history.table()}\n{line}", final)
        self.interrupts, self.images = Interrupts(), len(self.train_batches.dataset)
        self.finished = self.lock = None  # the states at the end of the last finished epoch; who may write
        self.saved, self.saved_at, self.took = len(history), time.perf_counter(), 0.0  # the newest checkpoint
        self.part, self.fastest = "", 0.0

    @contextmanager
    def running(self) -> Iterator["Kept"]:
        """What is inside trains whole epochs, or is taken back."""
        try:
            self.begin()
            yield self
            self.show_table(self.history.summary() if self.finished else self.how_to_go_on(), final=True)
        except BaseException as error:
            with self.interrupts.held():
                self.take_back(error)
            raise
        finally:
            self.interrupts.end()
            if self.lock:
                self.lock.release()

    def begin(self) -> None:
        """Go on from a checkpoint, and check what would fail later."""
        if self.checkpoint:
            self.take_lock()
        if len(self.history) == 0:
            checks.check_fresh(self.optimizer, self.scheduler)
            if self.checkpoint:
                self.resume()
        if len(self.history) < self.epochs:
            self.prepare()

    def take_lock(self) -> None:
        """Two kernels of one lecture must not write the same files: the second one trains without."""
        self.lock = store.locked(self.checkpoint.lock_file())
        if self.lock is None:
            other = f"Another kernel is training {self.checkpoint.name!r}: this one trains without checkpoints"
            say(f"{other}. If there is no other, delete {self.checkpoint.lock_file()} and run again.")
            self.checkpoint = None

    def resume(self) -> None:
        about = {"run": self.checkpoint.name, **self.checkpoint.settings}
        self.history.settings = run_settings(*self.given, self.step.precision) | {k: str(v) for k, v in about.items()}
        content, note = self.checkpoint.load(self.history.settings)
        if content is None:
            return
        restore(self.parts, content)
        for name, values in self.history.lists().items():
            values.extend(content["history"][name])
        self.saved = len(self.history)
        if content["threads"] != torch.get_num_threads():  # other threads, other rounding
            torch.set_num_threads(content["threads"])
            note += f" Now {content['threads']} CPU threads, as the run began."
        say(f"{note} Resumed after epoch {self.saved}, from the checkpoint in {self.checkpoint.folder.name}.".strip())

    def prepare(self) -> None:
        before, left = snapshot([]), self.epochs - len(self.history)
        checks.check_run(self.model, self.train_batches, self.test_batches, self.optimizer)
        checks.check_schedule(self.scheduler, len(self.train_batches), left)
        restore([], before)
        if checks.leaves_single(self.train_batches, self.model):
            say(f"Of {self.images:,} images the last batch would hold one: in training it is left out.")
        self.bar = Progress(self.show_table, "images", self.images * left)
        self.finished = snapshot(self.parts)
        self.interrupts.begin()

    def watch(self, batches: Iterable, part: str) -> Iterator:
        """The batches of one part of an epoch, "training" or "test", counted as they are done."""
        self.part = part
        for images, labels in batches:
            yield images, labels
            if part == "training":
                self.bar.update(len(labels))

    def commit(self, train, test, trained: float, seconds: float) -> None:
        """Finish an epoch with its scores. Of all its `seconds`, `trained` were spent in training."""
        with self.interrupts.held():  # the epoch is finished, in memory and on disk, or it is not
            self.history.append(train, test, seconds, self.images / trained)
            self.finished = snapshot(self.parts, into=self.finished)
            waited = time.perf_counter() - self.saved_at
            if waited > max(PAUSE, SHARE * self.took) or len(self.history) == self.epochs:
                self.save()
        if seconds > max(SLOW * self.fastest, 1) and self.fastest:
            slow = f"Epoch {len(self.history)} took {seconds / self.fastest:.1f} times as long as the fastest"
            say(f"{slow}: this machine is busy. Close other programs, or stop, restart the kernel and run again.")
            self.fastest = seconds  # said again only where it gets much worse
        self.fastest = min(self.fastest or seconds, seconds)

    def save(self) -> None:
        """Write a checkpoint of the last finished epoch. Where that fails training goes on, and says so."""
        epoch, start = len(self.history), time.perf_counter()
        if self.checkpoint is None or self.saved == epoch:
            return
        about = {"history": self.history.lists(), "settings": self.history.settings, "threads": torch.get_num_threads()}
        problem = self.checkpoint.save({"epoch": epoch, **about, **self.finished})
        if problem:
            say(f"{problem} Training goes on, and tries again later.")
        self.saved = self.saved if problem else epoch
        self.saved_at = time.perf_counter()
        self.took = self.saved_at - start

    def how_to_go_on(self) -> str:
        after = f" after run.checkpoint({self.checkpoint.name!r}).remove()" if self.checkpoint else ""
        afresh = f"start afresh with a new model, optimizer and History(){after}"
        return f"Complete: {len(self.history)} of {self.epochs} epochs. Raise `epochs` to go on, or {afresh}."

    def take_back(self, error: BaseException) -> None:
        """Go back to the end of the last finished epoch, and raise the error in plain words where there are better."""
        epoch, back = len(self.history) + 1, f"all is back at the end of epoch {len(self.history)}."
        if checks.device_lost(error):
            self.save()  # the copies are on the CPU
            on_disk = f"goes on after epoch {self.saved}, which is on disk" if self.saved else "begins anew"
            advice = f"Restart the kernel and run all cells: the run {on_disk if self.checkpoint else 'begins anew'}"
            reported = f"the GPU reported {str(error).splitlines()[0]!r}, often for a label without an output"
            raise RuntimeError(f"Epoch {epoch}: {reported}. {advice}.") from error
        advice = self.advice_on_memory(error) if checks.out_of_memory(error) else ""
        if self.finished is not None:
            restore(self.parts, self.finished)
            self.save()
        if isinstance(error, KeyboardInterrupt) and self.finished:
            self.show_table(f"Stopped in epoch {epoch}: {back} Run this cell again to go on from there.", final=True)
        if advice:
            text = f"Epoch {epoch}: out of memory; it is free again, and {back} {advice}"
            raise torch.OutOfMemoryError(text) from None
        if isinstance(error, FloatingPointError):
            text = f"Epoch {epoch}, {error}; {back} Lower the learning rate, or look for broken images."
            raise FloatingPointError(text) from None

    def advice_on_memory(self, error: BaseException) -> str:
        """Free what the failed step holds, then find the largest of half, a quarter, … of a batch that fits."""
        free_memory(error, self.model)
        if self.part == "test":
            return "In the test: make its batches smaller."
        size = getattr(self.train_batches, "batch_size", None) or 0 if self.part else 0
        while size := size // 2:
            try:
                images, labels = (part[:size].to(self.step.device) for part in next(iter(self.train_batches)))
                self.step(self.model, images, labels, self.criterion, self.optimizer)
                return f"Batches of {size} images fit: start over with new batches, model and optimizer of that size."
            except (RuntimeError, MemoryError) as again:
                free_memory(again, self.model)
            finally:
                free_memory(MemoryError(), self.model)
        return "Make the batches, the images or the network smaller."


def free_memory(error: BaseException, model: torch.nn.Module) -> None:
    """Let go of what a failed step still holds: its variables, gradients, and memory that torch keeps for later."""
    traceback.clear_frames(error.__traceback__)
    model.zero_grad()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
