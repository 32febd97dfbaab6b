"""Published weights, torchvision's and the project's own, each verified by its SHA-256 before it is read.

A file of torchvision's is a pickle, which can run code: `weights_only=True`. Ours are safetensors: numbers and names.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from helpers.datasets.fetch import DataError, download
from helpers.keeping import environ

RESNET18_FILE = "resnet18-f37072fd.pth"  # torchvision's ResNet18_Weights.IMAGENET1K_V1
RESNET18_BYTES = 46_830_571
RESNET18_CHECKSUM = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
RESNET18_MIRRORS = ["https://download.pytorch.org/models/"]
OWN_FILE = "resnet18-tiny-imagenet-64px.safetensors"  # made by data/weights/pretrain.py; its card: README.md there
OWN_CHECKSUM = "5e84260dbf836dcdd0b19b19359c45a9ccece6b22d2066abdd191a9bcd8fe337"
OWN_FOLDER = Path(__file__).parents[3] / "data" / "weights"
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


def verified(path: Path, checksum: str) -> bytes:
    """What the file holds: the very bytes whose SHA-256 was compared. Raises DataError."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != checksum:
        raise DataError(f"{path.name} was changed (SHA-256) and not used. Put the original back, or run again.")
    return content


def imagenet_resnet18() -> Pretrained:
    """ResNet-18 as torchvision trained it on ImageNet's 1,000 classes. Raises DataError when it cannot be had."""
    content = verified(find_imagenet_resnet18(), RESNET18_CHECKSUM)
    state = dict(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"))
    made = f"torchvision's {RESNET18_FILE}, SHA-256 verified; 69.76% top-1 on ImageNet by torchvision's account"
    return Pretrained("ImageNet (IMAGENET1K_V1)", state, IMAGENET_MEAN, IMAGENET_STD, made)


def tiny_imagenet_resnet18() -> Pretrained:
    """ResNet-18, but its head, as this project trained it on Tiny ImageNet's 200 classes: the weights come with it."""
    folders = environ.folder("LECTURE_DATA", "data") / "weights", OWN_FOLDER
    path = next((folder / OWN_FILE for folder in folders if (folder / OWN_FILE).is_file()), None)
    if path is None:
        raise DataError(f"{OWN_FILE} is not in {' or '.join(map(str, folders))}. Copy it there from the project.")
    halves = safetensors.torch.load(verified(path, OWN_CHECKSUM))
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in halves.items()}
    made = f"this project's {OWN_FILE}, SHA-256 verified; 49.9% top-1 on Tiny ImageNet's validation images"
    return Pretrained("Tiny ImageNet (200 classes, 64 px)", state, IMAGENET_MEAN, IMAGENET_STD, made)
