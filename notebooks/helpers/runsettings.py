"""What a training run is made of, as flat names and values, so that a checkpoint can tell one run from another.

For example `optimizer.lr`, `train.batch_size` or `model.fc.weight`. Whatever decides the result is collected from the
objects themselves: a notebook need not list it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from enum import Enum

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 6  # how deep objects within objects are followed


def run_settings(
    model: nn.Module,
    train_batches: Iterable,
    test_batches: Iterable,
    criterion: Callable,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None,
    precision: torch.dtype,
) -> dict[str, str | int | float | bool | None]:
    """All of a run that has not begun. The number of epochs is left out, since it may be raised to go on."""
    groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    return {
        "model": type(model).__qualname__,
        **model_settings(model),
        "optimizer": type(optimizer).__qualname__,
        **flat(groups[0] if len(groups) == 1 else groups, "optimizer"),
        "scheduler": type(scheduler).__qualname__ if scheduler else "none",
        **flat(scheduler.state_dict() if scheduler else {}, "scheduler"),
        **flat(criterion, "criterion"),
        **data_settings(train_batches, "train"),
        **data_settings(test_batches, "test"),
        "precision": str(precision),
        "seed": torch.initial_seed(),
    }


def model_settings(model: nn.Module) -> dict[str, str]:
    """The layers, the shape of each parameter and whether it trains, and a checksum of all values at the start."""
    layers = {f"model.{name}": repr(layer) for name, layer in model.named_modules() if not list(layer.children())}
    weights = {
        f"model.{name}": f"{tuple(weight.shape)}, {'trained' if weight.requires_grad else 'frozen'}"
        for name, weight in model.named_parameters()
    }
    start = checksum(value for value in model.state_dict().values() if isinstance(value, Tensor))
    return {**layers, **weights, "weights before training": start}


def data_settings(batches: Iterable, part: str) -> dict[str, str | int | float | bool | None]:
    """The batches and their dataset; of a DataLoader what there is of it."""
    known = {name: getattr(batches, name, None) for name in ("batch_size", "shuffle", "transform", "drop_last")}
    dataset = getattr(batches, "dataset", None)
    known |= {"name": getattr(dataset, "name", None), "classes": getattr(dataset, "classes", None)}
    for name in ("images", "labels"):
        tensor = getattr(dataset, name, None)
        if isinstance(tensor, Tensor):
            known |= {f"{name} shape": str(tuple(tensor.shape))}
    if isinstance(getattr(dataset, "labels", None), Tensor):
        known |= {"labels": checksum([dataset.labels])}  # tells one choice of images from another
    elif hasattr(dataset, "__len__"):
        known |= {"size": len(dataset)}
    return flat({"batches": type(batches).__qualname__, **known}, part)


def flat(value: object, key: str, depth: int = DEPTH) -> dict[str, str | int | float | bool | None]:
    """Nested dicts, lists and objects as one dict of plain values; public attributes stand for an object."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return {key: value}
    if isinstance(value, Tensor):
        return {key: f"{tuple(value.shape)} {checksum([value])}"}
    if isinstance(value, dict):
        items = value
    elif isinstance(value, list | tuple):
        items = dict(enumerate(value))
    elif callable(value) and hasattr(value, "__qualname__"):  # a function or a class
        return {key: value.__qualname__}
    else:
        children = dict(value.named_children()) if isinstance(value, nn.Module) else {}
        public = {name: part for name, part in vars(value).items() if name[0] != "_"} if has_vars(value) else {}
        items = {"type": type(value).__qualname__, **public, **children}
        if isinstance(value, Enum) or not has_vars(value):
            return {key: str(value)}
    if depth == 0:
        return {key: re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))}
    return {k: v for name, part in items.items() for k, v in flat(part, f"{key}.{name}", depth - 1).items()}


def has_vars(value: object) -> bool:
    """Whether an object keeps attributes of its own."""
    return hasattr(value, "__dict__")


def checksum(tensors: Iterable[Tensor]) -> str:
    """The first digits of the SHA-256 of all values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]
