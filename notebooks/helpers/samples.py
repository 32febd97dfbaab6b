"""Sample data that travels with the installed packages, for runs without dataset and network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from helpers import drawing
from helpers.data import ImageSet

DIGITS = "sample digits (not MNIST)"
DIGITS_SOURCE = "scikit-learn's load_digits, 8×8 pixels enlarged to 28×28"
DIGITS_TRAIN = 1297  # of 1,797 images; the file keeps a writer's digits together, so a cut keeps most writers apart

SHAPES = "sample shapes (not CIFAR-10)"
TARGET_CLASSES = ("arrow", "cup", "fish", "heart", "house", "key", "moon", "mushroom", "star", "tree")
SOURCE_CLASSES = ("boat", "bolt", "bottle", "cloud", "cross", "drop", "flower", "hammer", "ring", "umbrella")


def digits() -> tuple[ImageSet, ImageSet]:
    """Real handwritten digits in MNIST's format: 1,297 training and 500 test images, (N, 1, 28, 28).

    Source: scikit-learn's `load_digits`, the test part of the UCI "Optical Recognition of Handwritten Digits" set,
    8×8 pixels of 17 grey levels. As in MNIST the digit fills a 20×20 box with a border of 4 pixels.
    """
    source = load_digits()
    small = torch.tensor(source.images, dtype=torch.float32).unsqueeze(1) * (255 / 16)  # (N, 1, 8, 8)
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4)).round().clamp(0, 255).to(torch.uint8)  # (N, 1, 28, 28)
    classes = [str(digit) for digit in range(10)]
    every = ImageSet(images, torch.tensor(source.target), classes, DIGITS, DIGITS_SOURCE)
    return every.subset(slice(0, DIGITS_TRAIN)), every.subset(slice(DIGITS_TRAIN, None))


def shapes(
    train: int = 3000, test: int = 1000, seed: int = 0, classes: Sequence[str] = TARGET_CLASSES
) -> tuple[ImageSet, ImageSet]:
    """Drawn colour pictures in CIFAR-10's format: `train` and `test` images, (N, 3, 32, 32), classes in turn.

    Place, size, turn, form, colours, pattern, light and shadow vary, things lie about, and in a third of the pictures
    something is in front. The same seed gives the same bits on every machine (see `helpers.drawing`).
    SOURCE_CLASSES are other things of the same world: something to learn first, for what to transfer to
    TARGET_CLASSES. Raises ValueError for an unknown or repeated class and for an empty set.
    """
    unknown = [name for name in classes if name not in drawing.NAMES]
    if unknown or len(set(classes)) != len(classes):
        wrong = f"{unknown[0]!r} is unknown" if unknown else "one occurs twice"
        raise ValueError(f"{SHAPES}: of the classes {wrong}. Choose from {', '.join(drawing.NAMES)}.")
    if min(train, test) < 1:
        raise ValueError(f"{SHAPES}: train and test must be at least 1 image; got {train} and {test}.")
    parts = []
    for part, count in enumerate((train, test)):
        labels = torch.arange(count) % len(classes)
        images = torch.empty(count, 3, drawing.SIDE, drawing.SIDE, dtype=torch.uint8)
        for label, name in enumerate(classes):
            chosen = labels == label
            images[chosen] = torch.from_numpy(drawing.paint(name, int(chosen.sum()), seed, part))
        parts.append(ImageSet(images, labels, list(classes), SHAPES, f"drawn by helpers.drawing with seed {seed}"))
    return tuple(parts)
