"""Small things that several tests need."""

from pathlib import Path

import pytest
import torch
from common import noise
from torch import nn

from helpers.data import ImageSet


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty data folder, without network."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LECTURE_DATA", str(folder))
    monkeypatch.setenv("LECTURE_OFFLINE", "1")
    monkeypatch.delenv("LECTURE_IMAGES", raising=False)
    return folder


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
    return noise(25, 1, 32)
