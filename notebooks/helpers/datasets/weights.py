"""Published weights. A file of them is a pickle, which can run code: so its SHA-256 first, then `weights_only=True`."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from helpers.datasets.fetch import DataError, download
from helpers.keeping import environ

RESNET18_FILE = "resnet18-f37072fd.pth"  # torchvision's ResNet18_Weights.IMAGENET1K_V1
RESNET18_BYTES = 46_830_571
RESNET18_CHECKSUM = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
RESNET18_MIRRORS = ["https://download.pytorch.org/models/"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue in [0, 1]: what torchvision's weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Pretrained:
    """Weights of a trained network, and what must be said wherever a result that rests on them is shown."""

    name: str  # what they were trained on, for banner and titles
    state: dict[str, Tensor]  # the state dict, on the CPU
    mean: tuple[float, float, float]  # for v2.Normalize: how their images were normalised
    std: tuple[float, float, float]
    made: str  # where they come from, or how they were made


def find_imagenet_resnet18() -> Path:
    """The file of ResNet-18's ImageNet weights, verified; downloaded when missing or damaged. Raises DataError."""
    path = environ.folder("LECTURE_DATA", "data") / "weights" / RESNET18_FILE
    download("ImageNet weights", RESNET18_MIRRORS, path, RESNET18_CHECKSUM, RESNET18_BYTES)
    return path


def imagenet_resnet18() -> Pretrained:
    """ResNet-18 as torchvision trained it on ImageNet's 1,000 classes. Raises DataError when it cannot be had."""
    content = find_imagenet_resnet18().read_bytes()
    if hashlib.sha256(content).hexdigest() != RESNET18_CHECKSUM:  # of the very bytes that are then unpickled
        raise DataError(f"ImageNet weights: {RESNET18_FILE} was changed while it was read and not used. Run again.")
    state = dict(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"))
    made = f"torchvision's {RESNET18_FILE}, SHA-256 verified; 69.76% top-1 on ImageNet by torchvision's account"
    return Pretrained("ImageNet (IMAGENET1K_V1)", state, IMAGENET_MEAN, IMAGENET_STD, made)
