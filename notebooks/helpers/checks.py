"""What is checked once, before a training run begins: do data, network and optimizer fit together?

Each error is a ValueError of one line that names what was expected, what there is, and what to change.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from helpers import safety
from helpers.surgery import check_optimizer


def check_run(
    model: nn.Module, train_batches: Iterable, test_batches: Iterable, optimizer: torch.optim.Optimizer
) -> None:
    """Check the optimizer's parameters and the first batch of both sets. Leaves random numbers and weights alone."""
    check_optimizer(model, optimizer)
    before = safety.snapshot([])
    for part, batches in {"training": train_batches, "test": test_batches}.items():
        images, labels = first_batch(batches, part)
        check_batch(images, labels, part)
        outputs = try_image(model, images[:1], part)
        classes = max(labels.max().item() + 1, len(getattr(batches.dataset, "classes", [])))
        if classes > outputs:
            raise ValueError(
                f"The {part} images have {classes} classes, {type(model).__name__} has {outputs} outputs:"
                f" replace its last layer by one with {classes} outputs, before the optimizer is built."
            )
    safety.restore([], before)


def check_fresh(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler | None) -> None:
    """Raise ValueError where a run is about to begin with an optimizer or a schedule that has already trained."""
    if any(optimizer.state.values()) or (scheduler is not None and scheduler.last_epoch > 0):
        raise ValueError(
            "The history is empty, but the optimizer has trained before: this would train on, under a new name. Go on"
            " with the history of that run, or start over with a new model, optimizer, scheduler and History()."
        )


def first_batch(batches: Iterable, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The first batch of a set. Raises ValueError where there is none."""
    if len(batches) == 0:
        size = f"{len(batches.dataset)} images, batches of {getattr(batches, 'batch_size', '?')}"
        raise ValueError(f"There is no {part} batch ({size}): add images, or make the batches smaller.")
    return next(iter(batches))


def check_batch(images: torch.Tensor, labels: torch.Tensor, part: str) -> None:
    """Images must be floats, labels class numbers from 0, one for each image."""
    if not images.is_floating_point():
        raise ValueError(
            f"The {part} batches hold {images.dtype}, a network takes floats: end the transform with"
            " v2.ToDtype(torch.float32, scale=True)."
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"The {part} labels must be torch.int64 of shape ({len(images)},), one for each image; got {labels.dtype}"
            f" of shape {tuple(labels.shape)}: convert them to class numbers."
        )
    if labels.min() < 0:
        raise ValueError(f"A {part} label is {labels.min().item()}: class numbers start at 0, correct the labels.")


def try_image(model: nn.Module, image: torch.Tensor, part: str) -> int:
    """Send one image, (1, C, H, W), through the model in evaluation mode; the number of logits that come out."""
    name, shape = type(model).__name__, tuple(image.shape[1:])
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            logits = model.eval()(image.to(next(model.parameters()).device))
    except (RuntimeError, ValueError, IndexError) as error:
        if safety.out_of_memory(error) or safety.device_lost(error):
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        advice = "Resize the images in the transform, or change the network"
        layer = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
        if layer is not None and layer.in_channels != shape[0]:
            reason = f"its first convolution takes {layer.in_channels} channels"
            advice = "Replace that layer before the optimizer is built, or convert the images"
            if shape[0] == 1:
                advice += ", for example with images.expand(-1, 3, -1, -1)"
        raise ValueError(f"{name} cannot take {part} images of shape {shape}: {reason}. {advice}.") from error
    finally:
        for module, training in modes.items():
            module.training = training
    if logits.ndim != 2:
        found = tuple(logits.shape)
        raise ValueError(f"{name} must give logits of shape (B, classes); got {found}. End it with Flatten and Linear.")
    return logits.shape[1]


def learns_statistics(model: nn.Module) -> bool:
    """Whether the model has batch norm that trains: it cannot learn from a single image."""
    return any(module.training and hasattr(module, "running_mean") for module in model.modules())


def without_single(batches: Iterable, model: nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches, without a short last one of a single image where batch norm would have to learn from it."""
    size = None
    for images, labels in batches:
        size = size or len(labels)
        if len(labels) == 1 < size and learns_statistics(model):
            return
        yield images, labels


def leaves_single(batches: Iterable) -> bool:
    """Whether the last batch of a pass is short and has one image."""
    size = getattr(batches, "batch_size", None) or 1
    return size > 1 and len(batches.dataset) % size == 1 and len(batches) * size > len(batches.dataset)
