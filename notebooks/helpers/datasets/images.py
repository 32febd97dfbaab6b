"""Labelled images in memory: one byte a channel and pixel, checked once when a set is made."""

from dataclasses import dataclass, replace

import torch
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
        images, labels = (f"{part.dtype} of shape {tuple(part.shape)}" for part in (self.images, self.labels))
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(f"{self.name}: images must be torch.uint8 of shape (N, C, H, W); got {images}.")
        if len(self) == 0:
            raise ValueError(f"{self.name}: the set is empty. Check the folder or the selection it was made from.")
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self),):
            raise ValueError(f"{self.name}: labels must be torch.int64 of shape ({len(self)},); got {labels}.")
        if len(wrong := self.labels[(self.labels < 0) | (self.labels >= len(self.classes))]):
            last = f"with {len(self.classes)} classes labels run from 0 to {len(self.classes) - 1}: correct them"
            raise ValueError(f"{self.name}: label {wrong[0].item()} is out of range ({len(wrong)} of them); {last}.")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: slice | torch.Tensor) -> "ImageSet":
        """The images at `indices` (a slice, or an int64 tensor), as a set of its own."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def resized(self, size: int) -> "ImageSet":
        """The same set with images (N, C, size, size), bilinear with antialiasing as torchvision's `Resize`."""
        return replace(self, images=v2.functional.resize(self.images, [size, size]))

    def to(self, device: torch.device | str, memory_format: torch.memory_format = torch.preserve_format) -> "ImageSet":
        """The same set on `device`, its images stored in this layout; `Batches` hands them out in the same one."""
        images = self.images.to(device, memory_format=memory_format)
        return replace(self, images=images, labels=self.labels.to(device))
