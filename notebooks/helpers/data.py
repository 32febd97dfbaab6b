"""Image datasets as uint8 tensors in memory, and batches that are cut and transformed on the device.

There are no worker processes: a whole dataset of small images fits in memory, and transforming a batch at once
costs less than handing single images between processes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torchvision.transforms import v2


@dataclass(frozen=True)
class ImageSet:
    """Labelled images. `name` stands in every banner, plot title and results file."""

    images: torch.Tensor  # (N, C, H, W), uint8
    labels: torch.Tensor  # (N,), int64, 0 … len(classes) - 1
    classes: list[str]
    name: str  # "MNIST", or words that say it is something else
    source: str  # where the images came from

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4:
            found = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"{self.name}: images must be torch.uint8 of shape (N, C, H, W); got {found}.")
        if len(images) == 0:
            raise ValueError(f"{self.name}: the set is empty. Check the folder or the selection it was made from.")
        if labels.dtype != torch.int64 or labels.shape != (len(images),):
            found = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise ValueError(f"{self.name}: labels must be torch.int64 of shape ({len(images)},); got {found}.")
        wrong = labels[(labels < 0) | (labels >= len(self.classes))]
        if len(wrong):
            raise ValueError(
                f"{self.name}: label {wrong[0].item()} is out of range ({len(wrong)} such labels). With"
                f" {len(self.classes)} classes labels run from 0 to {len(self.classes) - 1}: correct the labels."
            )

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: slice | torch.Tensor) -> "ImageSet":
        """The images at `indices` (a slice, or an int64 tensor), as a set of its own."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def only(self, classes: list[str]) -> "ImageSet":
        """The images of these classes, labelled 0, 1, … in the order given; the set's name says that it is a part.

        Raises ValueError for a class that the set does not have.
        """
        unknown = [name for name in classes if name not in self.classes]
        if unknown:
            raise ValueError(f"{self.name} has no class {unknown[0]!r}. Its classes: {', '.join(self.classes)}.")
        new_label = torch.full((len(self.classes),), -1)
        new_label[[self.classes.index(name) for name in classes]] = torch.arange(len(classes))
        labels = new_label.to(self.labels.device)[self.labels]
        part = f"{self.name}, {len(classes)} of {len(self.classes)} classes"
        return replace(self, images=self.images[labels >= 0], labels=labels[labels >= 0], classes=classes, name=part)

    def resized(self, size: int) -> "ImageSet":
        """The same set with images of size × size bytes, (N, C, size, size), for a size that fits in memory.

        Bilinear with antialiasing, as torchvision's `Resize`. Worth doing once where every epoch would repeat it.
        """
        return replace(self, images=v2.functional.resize(self.images, [size, size]))

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set with its tensors on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


class Batches:
    """Iterate over (images, labels) batches of an ImageSet. Stands in for a `DataLoader`.

    `transform` gets uint8 images of shape (B, C, H, W), a whole batch, on the set's device, and returns floats.
    With `shuffle` each pass draws a new order from torch's global random numbers, so `seed_everything` governs it.
    """

    def __init__(
        self,
        dataset: ImageSet,
        batch_size: int,
        transform: Callable[[torch.Tensor], torch.Tensor],
        shuffle: bool = False,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        self.dataset = dataset
        self.batch_size = batch_size
        self.transform = transform
        self.shuffle = shuffle

    def __len__(self) -> int:
        """Number of batches; the last one may be short."""
        return math.ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images, labels = self.dataset.images, self.dataset.labels
        order = torch.randperm(len(images)).to(images.device) if self.shuffle else None
        for start in range(0, len(images), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            if order is not None:
                chosen = order[chosen]
            # Resizing and convolutions read the channels of a pixel side by side faster; the shape stays (B, C, H, W).
            batch = images[chosen].contiguous(memory_format=torch.channels_last)
            yield self.transform(batch), labels[chosen]


class RandomFlip:
    """Mirror every image of a batch left to right with probability 1/2. Takes and returns (B, C, H, W)."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        return torch.where(flipped, images.flip(-1), images)


class RandomAffine:
    """Turn, scale and shift every image of a batch differently.

    torchvision's own RandomAffine draws one set of numbers for a whole batch. Here each image draws its own:
    an angle within ± `degrees`, a factor within 1 ± `scale`, a shift within ± `shift` pixels along x and y.
    Takes and returns floats of shape (B, C, H, H), square images; what comes in from outside is filled with 0.
    """

    def __init__(self, degrees: float, scale: float, shift: float):
        self.degrees, self.scale, self.shift = degrees, scale, shift

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        angle, zoom, right, down = torch.rand(4, len(images), device=images.device) * 2 - 1  # each (B,), in -1 … 1
        angle = torch.deg2rad(self.degrees * angle)
        zoom = 1 + self.scale * zoom
        cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
        right, down = right * self.shift * 2 / width, down * self.shift * 2 / height  # grid units: the image is 2 wide
        rows = [torch.stack([cos, -sin, right], dim=1), torch.stack([sin, cos, down], dim=1)]
        grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)  # (B, H, W, 2)
        return F.grid_sample(images, grid, align_corners=False)
