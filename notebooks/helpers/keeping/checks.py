"""What is checked before a training run begins: each ValueError says what was expected, what there is, what to do."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from helpers.keeping.messages import first
from helpers.keeping.states import evaluation_mode


def check_run(model: nn.Module, train_batches: Iterable, test_batches: Iterable, optimizer) -> None:
    """Check the optimizer's parameters and the first batch of both sets. Draws random numbers; changes no weights."""
    check_optimizer(model, optimizer)
    for part, batches in {"training": train_batches, "test": test_batches}.items():
        if len(batches) == 0:
            size = f"{len(batches.dataset)} images, batches of {getattr(batches, 'batch_size', '?')}"
            raise ValueError(f"There is no {part} batch ({size}): add images, or make the batches smaller.")
        images, labels = next(iter(batches))
        check_batch(images, labels, part)
        outputs = try_image(model, images[:1], part)
        classes = max(labels.max().item() + 1, len(getattr(batches.dataset, "classes", [])))
        if classes > outputs:
            found = f"The {part} images have {classes} classes, {type(model).__name__} has {outputs} outputs"
            raise ValueError(f"{found}: replace its last layer by one with {classes}, then build the optimizer.")


def check_fresh(optimizer: torch.optim.Optimizer, scheduler) -> None:
    """Raise ValueError where a run is about to begin with an optimizer or a schedule that has already trained."""
    if any(optimizer.state.values()) or (scheduler is not None and scheduler.last_epoch > 0):
        advice = "Go on with that run's history, or start over with a new model, optimizer, scheduler and History()"
        raise ValueError(f"The history is empty, but the optimizer has trained before. {advice}.")


def check_schedule(scheduler, batches: int, epochs: int) -> None:
    """Raise ValueError for a schedule that was meant for epochs: here it is stepped after each of the batches."""
    rates = learning_rates(scheduler, batches * epochs) if scheduler else [1.0] * batches * epochs
    late, steady = max(rates[len(rates) // 2 :], default=0), len(set(rates[batches:])) == 1
    many = len(rates) >= 10  # in fewer steps a good schedule, too, looks like that
    rises = sum(a >= b < c for a, b, c in zip(rates, rates[1:], rates[2:], strict=False))
    problems = {
        f"ends after {len(rates)} of {batches * epochs} steps": len(rates) < batches * epochs,
        f"falls to {late:.1g} by halfway": many and (late < 1e-3 * max(rates) or (steady and late < 0.2 * max(rates))),
        f"falls and rises {rises} times": many and batches > 1 and rises > epochs,
    }
    for problem in [text for text, found in problems.items() if found][:1]:
        stepped = f"{type(scheduler).__name__} is stepped after every batch, {batches} times an epoch"
        raise ValueError(f"{stepped}: the learning rate {problem}. Give its numbers in batches, not in epochs.")


def learning_rates(scheduler, steps: int) -> list[float]:
    """The learning rates of the first group in the coming steps; fewer where the schedule ends before."""
    optimizer, rates = scheduler.optimizer, []
    groups = [{**group, "params": []} for group in optimizer.param_groups]
    stand_in = SimpleNamespace(param_groups=groups, step=optimizer.step, _opt_called=True)
    twin = copy.deepcopy(scheduler, {id(optimizer): stand_in})  # the copy moves the rates of the stand-in
    with suppress(ValueError, TypeError):  # OneCycleLR was stepped too often; ReduceLROnPlateau wants a loss
        for _ in range(steps):
            rates.append(float(groups[0]["lr"]))
            twin.step()
    return rates


def check_batch(images: torch.Tensor, labels: torch.Tensor, part: str) -> None:
    """Images must be floats, labels class numbers from 0, one for each image."""
    if not images.is_floating_point():
        advice = "end the transform with v2.ToDtype(torch.float32, scale=True)"
        raise ValueError(f"The {part} batches hold {images.dtype}, a network takes floats: {advice}.")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        found = f"got {labels.dtype} of shape {tuple(labels.shape)}: convert them to class numbers"
        raise ValueError(f"The {part} labels must be torch.int64 of shape ({len(images)},), one an image; {found}.")
    if labels.min() < 0:
        raise ValueError(f"A {part} label is {labels.min().item()}: class numbers start at 0, correct the labels.")


def try_image(model: nn.Module, image: torch.Tensor, part: str) -> int:
    """Send one image, (1, C, H, W), through the model in evaluation mode; the number of logits that come out."""
    name, shape = type(model).__name__, tuple(image.shape[1:])
    try:
        with torch.no_grad(), evaluation_mode(model):
            logits = model(image.to(next(model.parameters()).device))
    except (RuntimeError, ValueError, IndexError) as error:
        if out_of_memory(error) or device_lost(error):
            raise
        reason = why_not(model, shape, error)
        raise ValueError(f"{name} cannot take {part} images of shape {shape}: {reason}") from error
    if logits.ndim != 2:
        advice = "End it with Flatten and Linear"
        raise ValueError(f"{name} must give logits of shape (B, classes); got {tuple(logits.shape)}. {advice}.")
    return logits.shape[1]


def why_not(model: nn.Module, shape: tuple[int, ...], error: Exception) -> str:
    """Why an image does not go through the model, and what to do."""
    layer = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    if layer is None or layer.in_channels == shape[0]:
        return f"{str(error).splitlines()[0].rstrip('.')}. Resize the images in the transform, or change the network."
    advice = "Replace that layer before the optimizer is built, or convert the images (images.expand(-1, 3, -1, -1))"
    return f"its first convolution takes {layer.in_channels} channels. {advice}."


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the computer, had no memory left."""
    words = "out of memory", "can't allocate memory", "not enough memory"
    said = isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    return said or isinstance(error, MemoryError)


def device_lost(error: BaseException) -> bool:
    """Whether CUDA reported an error after which nothing on the GPU works in this process."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error) and not out_of_memory(error)


def frozen_norm(module: nn.Module) -> bool:
    """Whether this is batch norm whose own weights are all frozen, so that its statistics should stand still, too."""
    own = list(module.parameters(recurse=False))
    follows = isinstance(module, _BatchNorm) and module.running_mean is not None
    return follows and bool(own) and not any(weight.requires_grad for weight in own)


def learns_statistics(model: nn.Module) -> bool:
    """Whether the model has batch norm that follows the batches in training: it cannot learn from a single image."""
    return any(isinstance(module, _BatchNorm) and not frozen_norm(module) for module in model.modules())


def without_single(batches: Iterable, model: nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches, without a last one of a single image that batch norm would learn from. ValueError for no batch."""
    largest, learns = 0, learns_statistics(model)
    for images, labels in batches:
        if not (learns and len(labels) == 1 < largest):
            yield images, labels
        largest = max(largest, len(labels))
    if largest == 0:
        raise ValueError("There was no batch: the data are empty, or were an iterator that is already used up.")


def leaves_single(batches: Iterable, model: nn.Module) -> bool:
    """Whether `without_single` will leave out the last batch of a pass."""
    size = getattr(batches, "batch_size", None) or 1
    single = size > 1 and len(batches.dataset) % size == 1 and len(batches) * size > len(batches.dataset)
    return single and learns_statistics(model)


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError unless the optimizer holds each trainable parameter once, in any group, and nothing else."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}  # tied weights appear once
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    foreign = [str(tuple(parameter.shape)) for parameter in held if id(parameter) not in names]
    own = Counter(names[id(parameter)] for parameter in held if id(parameter) in names)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    absent = [name for name in trainable if name not in own]
    for found, problem, advice in [
        (foreign, "holds {} tensors that are not the model's", "Build it after the head was replaced"),
        (absent, "lacks {} trainable parameters", "freeze(...) them or give them to the optimizer"),
        (own.keys() - trainable, "holds {} frozen parameters", "Build it after freeze(...), from what is trained"),
        ([name for name in own if own[name] > 1], "holds {} parameters more than once", "Put each into one group only"),
    ]:
        if found:
            lacks = f" and lacks {first(absent)}" if absent and found is not absent else ""
            problem = f"{problem.format(len(found))} ({first(sorted(found))}){lacks}"
            raise ValueError(f"The optimizer {problem}. {advice}.")
