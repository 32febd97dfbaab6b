"""Train and evaluate a classifier: one epoch, one evaluation, and a whole run with its history.

Batches are any iterable of (images, labels) with a length: `helpers.data.Batches`, or a `DataLoader`.
Losses are means over samples, accuracies fractions in [0, 1]. The device is the one the model is on. `precision` is
the type of the matrix products in training; without it, `plan.plan_for` decides for the device.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn

from helpers import checks
from helpers.checkpoint import Checkpoint, Writing
from helpers.history import History, Score
from helpers.plan import plan_for
from helpers.progress import LiveText, Progress
from helpers.runsettings import run_settings
from helpers.safety import (
    Interrupts,
    device_lost,
    explain,
    free_memory,
    lost_text,
    out_of_memory,
    random_numbers,
    restore,
    snapshot,
    states_of,
)

CHECK_EVERY = {"cpu": 1}  # batches between two looks at the loss; elsewhere 100, since each look waits for the device


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
    rarely has to wait for Python within the epoch. A last batch of one image is left out where batch norm trains.
    Raises FloatingPointError at the first loss that is NaN or infinite (on a GPU up to 100 batches later).
    """
    device = next(model.parameters()).device
    precision = precision or plan_for(device).precision
    training_mode(model)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    trail = []  # loss and step size of each batch
    for images, labels in checks.without_single(batches, model):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = model(images)  # (B, classes)
            loss = criterion(logits, labels)
        trail.append((loss.detach(), optimizer.param_groups[0]["lr"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        loss_sum += loss.detach() * len(labels)  # a short last batch counts as what it is
        correct += (logits.detach().argmax(dim=1) == labels).sum()
        count += len(labels)
        on_batch(len(labels))
        if len(trail) % CHECK_EVERY.get(device.type, 100) == 0:
            check_finite(loss_sum, trail)
    if count == 0:
        raise ValueError("There was no batch to train on: the data are empty, or were an iterator already used up.")
    check_finite(loss_sum, trail)
    return Score(loss_sum.item() / count, correct.item() / count)


def check_finite(loss_sum: torch.Tensor, trail: list) -> None:
    """Raise FloatingPointError for the first loss that is NaN or infinite. Waits for the device."""
    if math.isfinite(loss_sum.item()):
        return
    for batch, (loss, step_size) in enumerate(trail, 1):
        if batch == len(trail) or not math.isfinite(loss.item()):
            raise FloatingPointError(f"batch {batch}: the loss is {loss.item()} at step size {float(step_size):g}")


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
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*pairs, strict=True))
    broken = logits.isnan().any(dim=1).sum().item()
    if broken:
        raise FloatingPointError(f"test: the logits of {broken} of {len(logits)} images are NaN, which is no answer")
    return logits, labels


def evaluate(model: nn.Module, batches: Iterable, criterion: Callable) -> Score:
    """Loss and accuracy of the model in evaluation mode, over all images at once."""
    logits, labels = predict(model, batches)
    return Score(criterion(logits, labels).item(), (logits.argmax(dim=1) == labels).double().mean().item())


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
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train until `history` holds `epochs` epochs, with an evaluation on the test batches after each.

    The run belongs to its history: called again with the same one, `fit` goes on where it stopped. With a
    `checkpoint` (see `environment.Run.checkpoint`) each finished epoch is also on disk, and an empty history goes on
    from there, to the same bits. Whatever ends an epoch early, an interrupt or an error, takes model, optimizer,
    scheduler and random numbers back to the end of the last finished epoch and is raised again.
    `on_epoch_end` gets the history so far, for example `plots.live_curves()`; after a resume it is called once.
    `verbose=False` shows only what went wrong, for short and for repeated runs.
    """
    live, warning = LiveText(), LiveText()
    show = live.show if verbose else lambda text, final=False: None
    parts = [part for part in (model, optimizer, scheduler) if part is not None]
    precision = precision or plan_for(next(model.parameters()).device).precision
    if len(history) == 0:
        checks.check_fresh(optimizer, scheduler)
        if checkpoint is not None:
            given = (model, train_batches, test_batches, criterion, optimizer, scheduler, precision)
            history.settings = {**run_settings(*given), **checkpoint.settings, "run": checkpoint.name}
            note = resume(parts, history, checkpoint)
            if note:
                warning.show(note, final=True)
            if len(history):
                on_epoch_end(history)
    if len(history) >= epochs:
        how = "Raise `epochs` to go on, or start over with a new model, optimizer and History()"
        if checkpoint is not None:
            how += f" after run.checkpoint({checkpoint.name!r}).remove()"
        show(f"{history.table()}\nComplete: {len(history)} of {epochs} epochs. {how}.", final=True)
        return
    images = len(train_batches.dataset)
    if checks.leaves_single(train_batches) and checks.learns_statistics(model):
        warning.show(f"Of {images:,} images the last batch would hold one: in training it is left out.", final=True)
    bar = Progress(lambda line: show(f"{history.table()}\n{line}"), "images", images * (epochs - len(history)))
    with Interrupts() as interrupts:
        finished, writing, start, trained = None, None, 0.0, 0.0
        try:
            checks.check_run(model, train_batches, test_batches, optimizer)
            finished = snapshot(parts)
            while len(history) < epochs:
                start = trained = time.perf_counter()
                train = train_one_epoch(model, train_batches, criterion, optimizer, scheduler, precision, bar.update)
                trained = time.perf_counter()
                with interrupts.held():
                    states = states_of(parts)  # which the test leaves alone, so that they are written beside it
                    writing = checkpoint and checkpoint.begin(len(history) + 1, states)
                test = evaluate(model, test_batches, criterion)
                with interrupts.held():  # the epoch is finished, in memory and on disk, or it is not
                    history.append(train, test, time.perf_counter() - start, images / (trained - start))
                    finished = {"states": states, **random_numbers()}
                    if writing:
                        finish(writing, history, warning)
                on_epoch_end(history)
        except BaseException as error:
            with interrupts.held():
                if writing:
                    writing.abandon()
                if device_lost(error):
                    raise RuntimeError(lost_text(error, len(history), checkpoint is not None)) from error
                advice = ""
                if out_of_memory(error):
                    free_memory(error, parts)
                    advice = "In the test: make its batches smaller."
                    if trained == start:
                        advice = smaller_batch(model, train_batches, criterion, optimizer, precision)
                if finished is not None:
                    restore(parts, finished)
            if isinstance(error, KeyboardInterrupt):
                note = f"Stopped in epoch {len(history) + 1}: all is back at the end of epoch {len(history)}."
                show(f"{history.table()}\n{note} Run this cell again to go on from there.", final=True)
            explain(error, len(history), advice)
            raise
    show(f"{history.table()}\n{history.summary()}", final=True)


def resume(parts: list, history: History, checkpoint: Checkpoint) -> str:
    """Bring parts and the empty history to where the checkpoint stands, if there is one; a line on what was found."""
    content, note = checkpoint.load(history.settings)
    if content is None:
        return ""
    restore(parts, content)
    for name, values in history.lists().items():
        values.extend(content["history"][name])
    epoch = f"Resumed after epoch {len(history)}, from the checkpoint in {checkpoint.folder.name}."
    return f"{note} {epoch}" if note else epoch


def finish(writing: Writing, history: History, warning: LiveText) -> None:
    """Complete the file of the finished epoch. Where that fails training goes on, and says so."""
    problem = writing.finish({"history": history.lists(), "settings": history.settings, **random_numbers()})
    if problem:
        warning.show(f"{problem} Training goes on, and tries again after the next epoch.", final=True)


def smaller_batch(
    model: nn.Module, batches: Iterable, criterion: Callable, optimizer: torch.optim.Optimizer, precision: torch.dtype
) -> str:
    """Advice on the largest of half, a quarter, … of a batch with which a training step was tried and fits."""
    images, labels = next(iter(batches))
    size = len(images) // 2
    while size:
        try:
            train_one_epoch(model, [(images[:size], labels[:size])], criterion, optimizer, precision=precision)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            free_memory(error, [model])
            size //= 2
        else:
            free_memory(MemoryError(), [model])
            return f"Batches of {size} images fit: start over with new batches, model and optimizer of that size."
    return "Not even one image fits: make the images or the network smaller."


def estimate_seconds(
    model: nn.Module,
    train_batches: Iterable,
    test_batches: Iterable,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    precision: torch.dtype | None = None,
) -> float:
    """Seconds that `fit` will take, from a second of training and one of testing on copies of model and optimizer."""
    model, optimizer = copy.deepcopy((model, optimizer))  # copied together, so that the copies still belong together
    before = snapshot([])

    def seconds_per_pass(run: Callable, batches: Iterable) -> float:
        run(itertools.islice(batches, 2))  # the first batches also pay for setting up
        done, start = 0, time.perf_counter()

        def for_a_second():
            nonlocal done
            for batch in batches:
                yield batch
                done += 1
                if done >= 3 and time.perf_counter() - start > 1:
                    return

        run(for_a_second())
        return (time.perf_counter() - start) / done * len(batches)

    train = seconds_per_pass(
        lambda some: train_one_epoch(model, some, criterion, optimizer, precision=precision), train_batches
    )
    test = seconds_per_pass(lambda some: predict(model, some), test_batches)
    start = time.perf_counter()
    states_of([model, optimizer])
    copying = min(epochs, 2) * (time.perf_counter() - start)  # after two epochs there is memory to use again
    restore([], before)
    return epochs * (train + test) + copying
