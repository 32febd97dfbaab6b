"""What a row of the benchmark works on: data, networks, sizes, and the clock. Shared by both sides of every row."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision import models, transforms
from torchvision.transforms import v2

from helpers import data
from helpers.data import ImageSet

LEARNING_RATE = 1e-4  # the lecture's, with Adam, on every side


@dataclass(frozen=True)
class Job:
    """One side of one row, as it is handed to its process."""

    row: str
    side: str
    device: str
    toy: bool = False  # tiny sizes and sample data, to test the benchmark itself


@dataclass
class Measured:
    """One round of one side."""

    seconds: float
    images: int = 0
    loss: float | None = None  # must agree between the sides of a row
    more: dict = field(default_factory=dict)


Round = Callable[[], Measured]  # what a process runs again and again


def timed(work: Callable[[], tuple[int, float]]) -> Measured:
    """Run `work`, which returns (images, loss); a GPU is waited for before and after, never in between."""
    wait()
    start = time.perf_counter()
    images, loss = work()
    wait()
    return Measured(time.perf_counter() - start, images, loss)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class LeNet2018(nn.Module):
    """The lecture's network: ReLU, then pooling; log-softmax at the end."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):  # (B, 1, 32, 32)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return F.log_softmax(self.fc3(x), dim=1)


class LeNet(LeNet2018):
    """Lecture 29's network: pooling, then ReLU, the same values with a quarter of the work; logits at the end."""

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


def network(name: str, classes: int = 10) -> nn.Module:
    """A network with the same weights on every side; the random numbers after it are the same, too."""
    torch.manual_seed(0)
    if name == "lenet":
        return LeNet()
    return LeNet2018() if name == "lenet2018" else models.get_model(name, num_classes=classes)


def images_of(name: str, job: Job, train: int, test: int) -> tuple[ImageSet, ImageSet]:
    """`train` and `test` images of "MNIST" or "CIFAR-10": the real ones where they are on disk, else sample data."""
    try:
        if job.toy:
            raise OSError("a toy run")
        both = data.load_mnist() if name == "MNIST" else data.load_cifar10()
    except OSError:
        both = data.digits() if name == "MNIST" else data.shapes(train=min(train, 1200), test=min(test, 300))
    sizes = [(part, size) for part, size in zip(both, (train, test), strict=True)]
    return tuple(part.subset(torch.arange(size) % len(part)) for part, size in sizes)  # a small set is repeated


class PictureSet(Dataset):
    """Images handed out one by one as PIL pictures, as torchvision's own MNIST and CIFAR10 do it."""

    def __init__(self, image_set: ImageSet, transform: Callable):
        arrays = image_set.images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
        self.arrays = np.ascontiguousarray(arrays[..., 0] if arrays.shape[-1] == 1 else arrays)
        self.labels = image_set.labels.tolist()
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def transform_2018(size: int) -> Callable:
    return transforms.Compose([transforms.Resize(size), transforms.ToTensor()])


def transform_today(size: int) -> Callable:
    return v2.Compose([v2.ToImage(), v2.Resize(size), v2.ToDtype(torch.float32, scale=True)])


TO_FLOATS = v2.ToDtype(torch.float32, scale=True)  # ours, on whole batches


def matrix_peak(device: str, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a size³ matrix product: the best of five, after one to warm up."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    return max(2 * size**3 / timed(lambda: (0, (a @ b)[0, 0].item())).seconds for _ in range(5))
