"""Small things that several tests need."""

import pytest
import torch
from torch import nn

from helpers.data import ImageSet


@pytest.fixture
def lenet() -> nn.Module:
    """LeNet as one Sequential, seeded. Input (B, 1, 32, 32)."""
    torch.manual_seed(0)
    return nn.Sequential(
        *[nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()],
        *[nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)],
    )


@pytest.fixture
def noise_set() -> ImageSet:
    """25 images of noise, (25, 1, 32, 32), with random labels: batches of 10 leave a short last one."""
    numbers = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (25, 1, 32, 32), generator=numbers, dtype=torch.uint8)
    labels = torch.randint(0, 10, (25,), generator=numbers)
    return ImageSet(images, labels, [str(digit) for digit in range(10)], "noise", "torch.randint")
