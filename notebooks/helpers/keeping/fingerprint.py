"""What a training run is made of, as names and texts, so that a checkpoint can tell one run from another.

Data, transforms, network and loss are compared by their effect on a first batch, so that an edited function of the
same name is noticed, too. Numbers are kept to the digits that do not depend on device and number of threads.
"""

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from helpers.keeping.states import evaluation_mode, restore, seed_everything, snapshot


def run_settings(model, train_batches, test_batches, criterion, optimizer, scheduler, precision) -> dict[str, str]:
    """All of a run that has not begun. The number of epochs is left out, since it may be raised to go on."""
    before, schedule = snapshot([]), scheduler.state_dict() if scheduler else {}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    weights = {name: "trained" if weight.requires_grad else "frozen" for name, weight in model.named_parameters()}
    settings = {
        "seed": str(torch.initial_seed()),
        "precision": str(precision),
        **{f"model.{name}": repr(layer) for name, layer in model.named_modules() if not list(layer.children())},
        **{f"model.{name}": f"{tuple(model.get_parameter(name).shape)}, {trains}" for name, trains in weights.items()},
        "weights before training": checksum(*model.state_dict().values()),
        "optimizer": type(optimizer).__name__,
        **{f"optimizer.{key}": ", ".join(str(group[key]) for group in groups) for key in groups[0]},
        "scheduler": type(scheduler).__name__,
        **{f"scheduler.{key}": text for key, text in schedule.items() if " at 0x" not in str(text) and key[0] != "_"},
        **data_settings(train_batches, "train", model, criterion),
        **data_settings(test_batches, "test", model, criterion),
    }
    restore([], before)
    return {key: str(value) for key, value in settings.items()}


def data_settings(batches: Iterable, part: str, model: nn.Module, criterion: Callable) -> dict[str, str]:
    """What there is of the batches and their dataset, and what transform, network and loss make of a first batch."""
    known = {name: getattr(batches, name, None) for name in ("batch_size", "shuffle", "drop_last")}
    known |= {name: getattr(batches.dataset, name, None) for name in ("name", "classes", "images", "labels")}
    known["size"] = len(batches.dataset)
    seed_everything(0)
    images, labels = next(iter(batches))
    device = next(model.parameters()).device
    with torch.no_grad(), evaluation_mode(model):
        logits = model(images.to(device))
        answers = torch.linspace(-3, 3, logits.numel(), device=device).reshape(logits.shape)
        loss = criterion(answers, labels.to(device)).item()
    outcome = f"logits {weighted_mean(logits):.3g}; loss of fixed logits {loss:.5g}"
    known["first batch"] = f"{tuple(images.shape)}, {weighted_mean(images):.5g}; {outcome}"
    return {f"{part}.{name}": checksum(it) if isinstance(it, Tensor) else it for name, it in known.items()}


def weighted_mean(values: Tensor) -> float:
    values = values.float().cpu().flatten()  # each place counts differently
    return (values * torch.linspace(0, 2, len(values))).mean().item()


def checksum(*tensors: Tensor) -> str:
    """The first digits of the SHA-256 of all values."""
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()[:12]
