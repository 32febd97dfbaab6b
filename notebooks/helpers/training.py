"""Train and evaluate a classifier: one epoch, one evaluation, and a whole run with its history.

Batches are any iterable of (images, labels) with a length: `helpers.data.Batches`, or a `DataLoader`.
Losses are means over samples, accuracies fractions in [0, 1]. The device is the one the model is on. `precision` is
the type of the matrix products in training; without it, `plan.plan_for` decides for the device.
"""

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from helpers.environment import clock
from helpers.plan import plan_for
from helpers.progress import LiveText, Progress


class Score(NamedTuple):
    """How a model did on a set of images."""

    loss: float  # mean over the images
    accuracy: float  # fraction in [0, 1]


def train_one_epoch(
    model: nn.Module,
    batches: Iterable,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    precision: torch.dtype | None = None,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Score:
    """One pass over the batches with one optimizer step for each. `criterion` gives the mean loss of a batch.

    A `scheduler` is stepped after every batch. `on_batch` is told how many images a finished step had.
    The score is gathered while the weights change, and stays on the device until the end, so that a GPU
    never has to wait for Python within the epoch.
    """
    device = next(model.parameters()).device
    precision = precision or plan_for(device).precision
    training_mode(model)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = model(images)  # (B, classes)
            loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        loss_sum += loss.detach() * len(labels)  # a short last batch counts as what it is
        correct += (logits.detach().argmax(dim=1) == labels).sum()
        count += len(labels)
        on_batch(len(labels))
    if count == 0:
        raise ValueError("There was no batch to train on: the data are empty, or were an iterator already used up.")
    return Score(loss_sum.item() / count, correct.item() / count)


def training_mode(model: nn.Module) -> None:
    """Put the model in training mode, and the batch norm whose own weights are all frozen back in evaluation mode.

    In training mode batch norm follows the batches even where `requires_grad` is False: a network meant to stay as it
    is would drift. Keras treats `trainable = False` of its batch normalisation in the same way.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if getattr(module, "running_mean", None) is not None and own and not any(p.requires_grad for p in own):
            module.eval()


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, classes) and labels (N,) of all images, on the CPU. Leaves weights and running statistics alone."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    pairs = [(model(images.to(device)).float(), labels.to(device)) for images, labels in batches]
    model.train(was_training)
    if not pairs:
        raise ValueError("There was no batch to evaluate: the data are empty, or were an iterator already used up.")
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def evaluate(model: nn.Module, batches: Iterable, criterion: Callable) -> Score:
    """Loss and accuracy of the model in evaluation mode, over all images at once."""
    logits, labels = predict(model, batches)
    return Score(criterion(logits, labels).item(), (logits.argmax(dim=1) == labels).double().mean().item())


@dataclass
class History:
    """What happened in each finished epoch of one run. Every list has one entry an epoch."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # training and test of the epoch together
    images_per_second: list[float] = field(default_factory=list)  # in training

    def append(self, train: Score, test: Score, seconds: float, images_per_second: float) -> None:
        """Add one finished epoch."""
        self.train_loss.append(train.loss)
        self.train_accuracy.append(train.accuracy)
        self.test_loss.append(test.loss)
        self.test_accuracy.append(test.accuracy)
        self.seconds.append(seconds)
        self.images_per_second.append(images_per_second)

    def __len__(self) -> int:
        return len(self.seconds)

    def table(self) -> str:
        """One line an epoch."""
        lines = ["epoch   train loss  accuracy    test loss  accuracy      time"]
        for i in range(len(self)):
            lines.append(
                f"{i + 1:5}   {self.train_loss[i]:10.4f}  {self.train_accuracy[i]:8.2%}"
                f"   {self.test_loss[i]:10.4f}  {self.test_accuracy[i]:8.2%}   {self.seconds[i]:5.1f} s"
            )
        return "\n".join(lines)

    def summary(self) -> str:
        """Epochs, time and speed of the run."""
        speed = statistics.median(self.images_per_second)
        return f"{len(self)} epochs in {clock(sum(self.seconds))} · {speed:,.0f} training images/s"


def fit(
    model: nn.Module,
    train_batches: Iterable,
    test_batches: Iterable,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    history: History,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    precision: torch.dtype | None = None,
    on_epoch_end: Callable[[History], None] = lambda history: None,
    verbose: bool = True,
) -> None:
    """Train until `history` holds `epochs` epochs, with an evaluation on the test batches after each.

    The run belongs to its history: called again with the same one, `fit` goes on where it stopped. When it is
    interrupted, model, optimizer, scheduler and random numbers go back to the end of the last finished epoch, and
    the interrupt is raised again. `on_epoch_end` gets the history so far, for example `plots.live_curves()`.
    `verbose=False` shows nothing, for short and for repeated runs.
    """
    live = LiveText()
    show = live.show if verbose else lambda text, final=False: None
    if len(history) >= epochs:
        show(
            f"Complete: {len(history)} of {epochs} epochs. Raise `epochs` to go on, or start over with a new model.",
            True,
        )
        return
    parts = [part for part in (model, optimizer, scheduler) if part is not None]
    images = len(train_batches.dataset)
    bar = Progress(lambda line: show(f"{history.table()}\n{line}"), "images", images * (epochs - len(history)))
    while len(history) < epochs:
        finished = snapshot(parts)
        start = time.perf_counter()
        try:
            train = train_one_epoch(model, train_batches, criterion, optimizer, scheduler, precision, bar.update)
            trained = time.perf_counter()
            test = evaluate(model, test_batches, criterion)
        except KeyboardInterrupt:
            restore(parts, finished)
            note = f"Stopped in epoch {len(history) + 1}: all is back at the end of epoch {len(history)}."
            show(f"{history.table()}\n{note} Run this cell again to go on from there.", final=True)
            raise
        history.append(train, test, time.perf_counter() - start, images / (trained - start))
        on_epoch_end(history)
    show(f"{history.table()}\n{history.summary()}", final=True)


def snapshot(parts: list) -> dict:
    """Copies of the states of model, optimizer and scheduler, and of torch's random numbers."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    return {"states": states, "random": torch.get_rng_state(), "cuda_random": cuda}


def restore(parts: list, saved: dict) -> None:
    """Bring the same parts back to a `snapshot`."""
    for part, state in zip(parts, saved["states"], strict=True):
        part.load_state_dict(copy.deepcopy(state))
    torch.set_rng_state(saved["random"])
    if saved["cuda_random"] is not None:
        torch.cuda.set_rng_state_all(saved["cuda_random"])


def estimate_seconds(
    model: nn.Module,
    train_batches: Iterable,
    test_batches: Iterable,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    precision: torch.dtype | None = None,
) -> float:
    """Seconds that `fit` will take, from a few batches timed on copies of model and optimizer."""
    model, optimizer = copy.deepcopy((model, optimizer))  # copied together, so that the copies still belong together
    before = snapshot([])

    def seconds_per_pass(run: Callable, batches: Iterable, timed: int) -> float:
        run(itertools.islice(batches, 3))  # the first batches also pay for setting up
        start = time.perf_counter()
        run(itertools.islice(batches, timed))
        return (time.perf_counter() - start) / min(timed, len(batches)) * len(batches)

    train = seconds_per_pass(
        lambda some: train_one_epoch(model, some, criterion, optimizer, precision=precision), train_batches, 20
    )
    test = seconds_per_pass(lambda some: predict(model, some), test_batches, 3)
    restore([], before)
    return epochs * (train + test)
