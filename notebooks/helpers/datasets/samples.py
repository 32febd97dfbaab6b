"""Sample images for runs without dataset and network: digits that travel with scikit-learn, and ten drawn things."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from helpers.datasets.images import ImageSet

TRAIN = 1297  # of 1,797 images; the file keeps a writer's digits together, so a cut keeps most writers apart
SHAPES = "sample shapes (not CIFAR-10)"
SIDE, FINE = 32, 96  # pixels of a picture, and while it is drawn: the mean of 3 × 3 gives smooth edges
GREY = np.array([0.3, 0.59, 0.11])  # how bright red, green and blue look
THINGS = {  # corners x, y, x, y, … within −1 … 1, y downwards
    "arrow": (1, 0, .1, -.7, .1, -.25, -.95, -.25, -.95, .25, .1, .25, .1, .7),
    "bolt": (.2, -1, -.6, .15, -.05, .15, -.25, 1, .6, -.25, .05, -.25),
    "cross": (-.3, -1, .3, -1, .3, -.3, 1, -.3, 1, .3, .3, .3, .3, 1, -.3, 1, -.3, .3, -1, .3, -1, -.3, -.3, -.3),
    "cup": (-.8, -.7, .8, -.7, .5, .9, -.5, .9),
    "diamond": (0, -1, .6, 0, 0, 1, -.6, 0),
    "fish": (1, 0, .6, -.4, 0, -.45, -.6, -.1, -1, -.5, -1, .5, -.6, .1, 0, .45, .6, .4),
    "heart": (0, .95, -.9, -.05, -.85, -.6, -.45, -.8, 0, -.45, .45, -.8, .85, -.6, .9, -.05),
    "house": (0, -.95, .95, -.1, .65, -.1, .65, .85, -.65, .85, -.65, -.1, -.95, -.1),
    "star": (0, -1, .25, -.34, .95, -.31, .4, .13, .59, .81, 0, .42, -.59, .81, -.4, .13, -.95, -.31, -.25, -.34),
    "tree": (0, -1, .4, -.4, .2, -.4, .6, .1, .3, .1, .8, .6, .15, .6, .15, 1,
             -.15, 1, -.15, .6, -.8, .6, -.3, .1, -.6, .1, -.2, -.4, -.4, -.4),
}  # fmt: skip
CLASSES = tuple(THINGS)


def digits() -> tuple[ImageSet, ImageSet]:
    """Real handwritten digits in MNIST's format: 1,297 training and 500 test images, (N, 1, 28, 28).

    From UCI's "Optical Recognition of Handwritten Digits", 8×8 pixels of 17 grey levels. As in MNIST the digit fills a
    20×20 box with a border of 4 pixels.
    """
    source = load_digits()
    small = torch.tensor(source.images, dtype=torch.float32).unsqueeze(1) * (255 / 16)  # (N, 1, 8, 8)
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4)).round().clamp(0, 255).to(torch.uint8)  # (N, 1, 28, 28)
    about = "sample digits (not MNIST)", "scikit-learn's load_digits, 8×8 pixels enlarged to 28×28"
    every = ImageSet(images, torch.tensor(source.target), list("0123456789"), *about)
    return every.subset(slice(0, TRAIN)), every.subset(slice(TRAIN, None))


def shapes(train: int = 3000, test: int = 1000, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """`train` and `test` pictures, no two alike, (N, 3, 32, 32), classes in turn; ValueError for an empty set.

    The same seed gives the same pictures; another version of Pillow may change some pixels.
    """
    if min(train, test) < 1:
        raise ValueError(f"{SHAPES}: train and test must be at least 1 image; got {train} and {test}.")
    return _drawn(train, seed, 0), _drawn(test, seed, 1)


def _drawn(count: int, seed: int, part: int) -> ImageSet:
    rng = np.random.Generator(np.random.PCG64([seed, part]))
    pictures = np.stack([_picture(i % len(CLASSES), rng) for i in range(count)])
    images, labels = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.arange(count) % len(CLASSES)
    return ImageSet(images, labels, list(CLASSES), SHAPES, f"drawn by helpers.data.shapes with seed {seed}")


def _picture(label: int, rng: np.random.Generator) -> np.ndarray:
    """One picture, uint8 (32, 32, 3): a thing, turned by up to 30°, often of its own hue, on a ground; light, noise."""
    levels = rng.permutation(rng.uniform(0.15, 0.4) + np.array([0, rng.uniform(0.3, 0.5)]))
    hue = 0.25 * np.cos(2 * np.pi * ((label - 6) / len(CLASSES) - np.arange(3) / 3))  # the heart's is red
    ground, thing = _colour(levels[0], 0, rng), _colour(levels[1], hue, rng)
    size, angle = rng.uniform(0.55, 0.85), rng.uniform(-0.52, 0.52)
    turn = size * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pixels = (1 + rng.uniform(size - 1, 1 - size, 2) + np.reshape(THINGS[CLASSES[label]], (-1, 2)) @ turn) * FINE / 2
    canvas = Image.new("RGB", (FINE, FINE), ground)
    ImageDraw.Draw(canvas).polygon(pixels.ravel().tolist(), thing)
    down, right = 1 + rng.uniform(-0.2, 0.2, (2, 1)) * np.linspace(-1, 1, SIDE)  # light from one side
    lit = np.asarray(canvas.reduce(FINE // SIDE)) * np.outer(down, right)[..., None]
    return (lit + rng.normal(0, 12, (SIDE, SIDE, 3))).clip(0, 255).astype(np.uint8)


def _colour(brightness: float, hue: np.ndarray | float, rng: np.random.Generator) -> tuple[int, ...]:
    """A random colour of about this hue and of this brightness, 0 … 1."""
    tint = hue + rng.uniform(-0.25, 0.25, 3)
    return tuple(min(max(int(value), 0), 255) for value in (255 * (brightness + tint - tint @ GREY)).tolist())
