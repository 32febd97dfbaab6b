"""Train and evaluate a classifier: one step, one epoch, one evaluation, and a whole run with its history.

Batches are any iterable of (images, labels) with a length: `helpers.data.Batches`, or a `DataLoader`.
Losses are means over samples, accuracies fractions in [0, 1]. The device is the one the model is on.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn

from helpers.keeping.checks import frozen_norm, without_single
from helpers.keeping.guard import Kept
from helpers.keeping.history import History, Score
from helpers.keeping.states import evaluation_mode, restore, snapshot
from helpers.recording import Recorded


class Step:
    """One step of gradient descent on one batch, in mixed precision where asked; the loss must be a number."""

    def __init__(self, device: torch.device, precision: torch.dtype = torch.float32):
        self.device, self.precision = device, precision
        # float16 reaches down to 6e-8 only: the loss is multiplied, so that small gradients are not lost.
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=precision == torch.float16)
        self.every = 1 if device.type == "cpu" else 100  # steps between two looks: a GPU would wait for each
        self.new, self.batch = [], 0  # losses and learning rates not looked at yet; batches of this epoch that were
        recorded = device.type == "cuda" and precision != torch.float32  # float32 stays exactly what the text says
        self.passes = Recorded(self.both_ways) if recorded else self.both_ways

    def __call__(self, model, images, labels, criterion, optimizer) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, a mean over the batch, and the logits (B, classes), both without gradients."""
        optimizer.zero_grad()
        loss, logits = self.passes(model, images, labels, criterion)
        self.new.append((loss, optimizer.param_groups[0]["lr"]))
        if len(self.new) == self.every:
            self.look()
        self.scaler.step(optimizer)
        self.scaler.update()
        return loss, logits

    def both_ways(self, model, images, labels, criterion) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward, and backward for the gradients."""
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = model(images)
            loss = criterion(logits, labels)
        self.scaler.scale(loss).backward()
        return loss.detach(), logits.detach()

    def look(self, end_of_epoch: bool = False) -> None:
        """Raise FloatingPointError for the first new loss that is NaN or infinite. Waits for the device."""
        new, self.new = self.new, []
        for loss, rate in new:
            self.batch += 1
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"batch {self.batch}: the loss is {loss.item()} at learning rate {rate:g}")
        self.batch = 0 if end_of_epoch else self.batch


def train_one_epoch(
    model: nn.Module, batches: Iterable, criterion: Callable, optimizer, scheduler=None, step: Step | None = None
) -> Score:
    """One pass over the batches with one optimizer step for each. `criterion` gives the mean loss of a batch.

    A learning-rate `scheduler` is stepped after every batch. Without a `step` all is float32. The score is gathered
    while the weights change. A last batch of one image is left out where batch norm trains. Raises FloatingPointError
    for a loss that is no number (on a GPU up to 100 batches later), ValueError where there is no batch.
    """
    device = next(model.parameters()).device
    training_step = step or Step(device)
    training_mode(model)
    loss_sum, correct, seen = 0.0, 0, 0
    for images, labels in without_single(batches, model):
        images, labels = images.to(device), labels.to(device)
        loss, logits = training_step(model, images, labels, criterion, optimizer)
        if scheduler is not None:
            scheduler.step()
        loss_sum += loss * len(labels)  # a short last batch counts as what it is
        correct += (logits.argmax(dim=1) == labels).sum()
        seen += len(labels)
    training_step.look(end_of_epoch=True)
    return Score(loss_sum.item() / seen, correct.item() / seen)


def training_mode(model: nn.Module) -> None:
    """`model.train()`, but for batch norm whose own weights are all frozen: that stays in evaluation mode.

    In training mode it follows the batches even where `requires_grad` is False, and a frozen network would drift.
    """
    model.train()
    for module in model.modules():
        if frozen_norm(module):
            module.eval()


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable, criterion: Callable) -> Score:
    """Loss and accuracy of the model in evaluation mode, over all images at once. Changes nothing in the model."""
    device = next(model.parameters()).device
    logits, labels = predict(model, batches)
    loss = criterion(logits.to(device), labels.to(device))
    accuracy = (logits.argmax(dim=1) == labels).double().mean()
    return Score(loss.item(), accuracy.item())


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, classes) and labels (N,) of all images, on the CPU. Leaves weights and running statistics alone."""
    device = next(model.parameters()).device
    with evaluation_mode(model):
        pairs = [(model(images.to(device)).float(), labels.to(device)) for images, labels in batches]
    if not pairs:
        raise ValueError("There was no batch to evaluate: the data are empty, or were an iterator already used up.")
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*pairs, strict=True))
    if broken := logits.isnan().any(dim=1).sum().item():
        raise FloatingPointError(f"test: the logits of {broken} of {len(logits)} images are NaN, which is no answer")
    return logits, labels


def fit(model: nn.Module, train_batches: Iterable, test_batches: Iterable, criterion: Callable,
        optimizer: torch.optim.Optimizer, epochs: int, history: History, scheduler=None,
        precision: torch.dtype = torch.float32, on_epoch_end: Callable[[History], None] = lambda history: None,
        verbose: bool = True, checkpoint=None) -> None:  # fmt: skip
    """Train until `history` holds `epochs` epochs, with an evaluation on the test batches after each.

    The run belongs to its history: called again with the same one, `fit` goes on where it stopped. With a
    `checkpoint` (see `environment.Run.checkpoint`) it is also on disk, and an empty history goes on from there, on a
    CPU to the same bits. Whatever ends an epoch early, an interrupt or an error, takes model, optimizer, scheduler and
    random numbers back to the end of the last finished epoch and is raised again.
    `on_epoch_end` gets the history so far, after a resume, too. `verbose=False` shows only what went wrong.
    """
    step, before = Step(next(model.parameters()).device, precision), len(history)
    given = model, train_batches, test_batches, criterion, optimizer, scheduler
    with Kept(given, step, history, epochs, checkpoint, verbose).running() as kept:
        if len(history) > before:
            on_epoch_end(history)
        while len(history) < epochs:
            start = time.perf_counter()
            train = train_one_epoch(model, kept.watch(train_batches, "training"), criterion, optimizer, scheduler, step)
            trained = time.perf_counter() - start
            test = evaluate(model, kept.watch(test_batches, "test"), criterion)
            kept.commit(train, test, trained, time.perf_counter() - start)
            on_epoch_end(history)


def estimate_seconds(
    model, train_batches, test_batches, criterion, optimizer, epochs, precision=torch.float32
) -> float:
    """Seconds that `fit` will take, from a second of training and one of testing on copies of model and optimizer."""
    model, optimizer = copy.deepcopy((model, optimizer))  # copied together, so that the copies still belong together
    step, before = Step(next(model.parameters()).device, precision), snapshot([])
    train = seconds_a_pass(lambda some: train_one_epoch(model, some, criterion, optimizer, step=step), train_batches)
    test = seconds_a_pass(lambda some: predict(model, some), test_batches)
    restore([], before)
    return epochs * (train + test)


def seconds_a_pass(run: Callable, batches: Iterable) -> float:
    """Seconds for all batches, from at least three of them and about a second of them."""
    start = time.perf_counter()
    run(itertools.islice(batches, 2))  # the first batches also pay for setting up
    some = min(len(batches), max(3, round(2 / (time.perf_counter() - start))))
    start = time.perf_counter()
    run(itertools.islice(batches, some))
    return (time.perf_counter() - start) / some * len(batches)
