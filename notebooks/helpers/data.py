"""Image datasets as uint8 tensors in memory, and batches that are cut and transformed on the device.

There are no worker processes: transforming a batch at once costs less than handing images between processes.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from helpers.datasets.fetch import DataError
from helpers.datasets.folders import load_image_folder
from helpers.datasets.images import ImageSet
from helpers.datasets.samples import digits, shapes
from helpers.datasets.sources import find_cifar10, find_mnist, load_cifar10, load_mnist

__all__ = ["Batches", "DataError", "ImageSet", "RandomAffine", "RandomCrop", "RandomFlip", "digits", "find_cifar10"]
__all__ += ["find_mnist", "load_cifar10", "load_image_folder", "load_mnist", "shapes", "split"]


def split(dataset: ImageSet, first: int, second: int, seed: int | None = None) -> tuple[ImageSet, ImageSet]:
    """Two sets that share no image, for example to train on and to choose settings by.

    `first` images are taken from the front and `second` from the end, in the order of the dataset, or with a `seed` in
    a random one. Where there are too few, both shrink in proportion, and a line says so; ValueError for fewer than 2.
    """
    count = len(dataset)
    if min(first, second) < 1:
        raise ValueError(f"split: both parts must have at least 1 image; got {first} and {second}.")
    if count < 2:
        raise ValueError(f"{dataset.name}: {count} image cannot be split into two parts: at least 2 are needed.")
    if first + second > count:
        wanted = f"{first:,} + {second:,}"
        first = min(max(1, round(count * first / (first + second))), count - 1)
        second = count - first
        print(f"{dataset.name}: {count:,} images are too few for {wanted}; taken are {first:,} + {second:,}.")
    if seed is None:
        return dataset.subset(slice(0, first)), dataset.subset(slice(count - second, count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return dataset.subset(order[:first]), dataset.subset(order[count - second :])


class Batches:
    """Iterate over (images, labels) batches of an ImageSet. Stands in for a `DataLoader`.

    `transform` gets uint8 images of shape (B, C, H, W), a whole batch, on the set's device and in its memory layout,
    and returns floats. With `shuffle` each pass draws a new order from torch's global random numbers.
    """

    def __init__(self, dataset: ImageSet, batch_size: int, transform: Callable, shuffle: bool = False):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        self.dataset, self.batch_size, self.transform, self.shuffle = dataset, batch_size, transform, shuffle

    def __len__(self) -> int:
        """Number of batches; the last one may be short."""
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images, labels = self.dataset.images, self.dataset.labels
        order = torch.randperm(len(images)).to(images.device) if self.shuffle else None
        for start in range(0, len(images), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            chosen = chosen if order is None else order[chosen]
            yield self.transform(images[chosen]), labels[chosen]


class RandomFlip:
    """Mirror every image of a batch left to right with probability 1/2. Takes and returns (B, C, H, W)."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        return torch.where(flipped, images.flip(-1), images)


class RandomCrop:
    """Shift every image of a batch by up to `shift` pixels each way, edges mirrored. Takes and returns (B, C, H, W)."""

    def __init__(self, shift: int):
        self.shift = shift

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        rows, columns = (self.places(len(images), side, images.device) for side in images.shape[2:])
        each = torch.arange(len(images), device=images.device)[:, None, None]
        return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def places(self, count: int, side: int, device: torch.device) -> torch.Tensor:
        """For each image where its rows, or columns, are taken from: (B, side)."""
        shifts = torch.randint(-self.shift, self.shift + 1, (count, 1), device=device)
        places = (shifts + torch.arange(side, device=device)).abs()  # -1, -2 … are 1, 2 …
        return side - 1 - (side - 1 - places).abs()  # and the same at the other edge


class RandomAffine:
    """Turn, scale and shift every image of a batch differently; torchvision's own draws once for a whole batch.

    Each image draws an angle within ± `degrees`, a factor in 1 ± `scale`, and shifts within ± `shift` pixels.
    Takes and returns floats of shape (B, C, H, H), square images; what comes in from outside is filled with 0.
    """

    def __init__(self, degrees: float, scale: float, shift: float):
        self.degrees, self.scale, self.shift = degrees, scale, shift

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        angle, zoom, right, down = torch.rand(4, len(images), device=images.device) * 2 - 1  # each (B,), in -1 … 1
        angle, zoom = torch.deg2rad(self.degrees * angle), 1 + self.scale * zoom
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        right, down = right * self.shift * 2 / width, down * self.shift * 2 / height  # grid units: the image is 2 wide
        rows = [torch.stack([cos, -sin, right], dim=1), torch.stack([sin, cos, down], dim=1)]
        grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)  # (B, H, W, 2)
        return F.grid_sample(images, grid, align_corners=False)
