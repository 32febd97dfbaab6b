"""Small things that several tests need."""

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import helpers
from helpers.data import ImageSet

FOLDER = Path(helpers.__file__).parents[1]
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def python(code: str, *arguments: str, before=(), path: Path = FOLDER) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter, started by the command `before`, with `path` first among its modules."""
    command, environ = [*before, sys.executable, "-c", code, *arguments], {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, cwd=FOLDER, env=environ, capture_output=True, text=True)


def as_floats(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255


def noise(count: int, channels: int, side: int, classes: int = 10) -> ImageSet:
    """Images of noise with random labels, always the same."""
    numbers = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, channels, side, side), generator=numbers, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,), generator=numbers)
    return ImageSet(images, labels, [str(i) for i in range(classes)], "noise", "torch.randint")


def sgd(model: nn.Module, lr: float = 0.01) -> torch.optim.SGD:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=0.9)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def same(first, second) -> bool:
    """Whether two networks, or what `weights` gave, agree to the bit."""
    first, second = (one.state_dict() if isinstance(one, nn.Module) else one for one in (first, second))
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@contextmanager
def refused(kind: type[Exception], match: str, model: nn.Module | None = None) -> Iterator:
    """What is inside must raise this error with a message of one line, and leave the model's weights as they were."""
    before = weights(model) if model else None
    with pytest.raises(kind, match=match) as error:
        yield error
    assert "\n" not in str(error.value) and (model is None or same(model, before))
