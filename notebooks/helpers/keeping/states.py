"""The states of a training run: copies to go back to, of all random numbers, too; modes that are left again."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def snapshot(parts: list, into: dict | None = None) -> dict:
    """Copies on the CPU of the states of model, optimizer, … and all random numbers, in the memory of `into`."""
    states = [part.state_dict() for part in parts]
    before = into["states"] if into else [None] * len(states)
    return {"states": [copied(*pair) for pair in zip(states, before, strict=True)], **random_numbers()}


def copied(value: object, into: object = None) -> object:
    """The same with tensors copied to the CPU and Python's numbers in place of NumPy's, which no safe loader takes."""
    if isinstance(value, torch.Tensor):
        fits = isinstance(into, torch.Tensor) and (into.shape, into.dtype) == (value.shape, value.dtype)
        return into.copy_(value) if fits else value.detach().to("cpu", copy=True)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        same, before = copy.copy(value), into if isinstance(into, dict) else {}  # a state dict keeps notes beside
        same.update({key: copied(part, before.get(key)) for key, part in value.items()})
        return same
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else copy.deepcopy(value)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. A CPU with the same build and threads then gives the same bits; a GPU need not."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_numbers() -> dict:
    """The states of all random number generators but that of MPS."""
    name, keys, *rest = np.random.get_state()
    return {
        "random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
        "numpy_random": [name, keys.tolist(), *rest],
        "python_random": random.getstate(),
    }


def restore(parts: list, saved: dict) -> None:
    """Bring the same parts back to a `snapshot`."""
    for part, state in zip(parts, saved["states"], strict=True):
        part.load_state_dict(copy.deepcopy(state))  # an optimizer would go on with the very tensors
    torch.set_rng_state(saved["random"])
    if saved["cuda_random"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_random"])
    name, keys, *rest = saved["numpy_random"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    random.setstate(saved["python_random"])


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """`model.eval()`, and afterwards, whatever happens, each module back in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, training in modes.items():
            module.training = training
