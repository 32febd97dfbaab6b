"""Sample colour pictures in CIFAR-10's format, for runs without dataset and network: ten plain things, drawn."""

import numpy as np
import torch
from PIL import Image, ImageDraw

from helpers.datasets.images import ImageSet

NAME = "sample shapes (not CIFAR-10)"
SIDE, FINE = 32, 96  # pixels of a picture, and while it is drawn: the mean of 3 × 3 gives smooth edges
STEPS = np.linspace(-1, 1, SIDE)
CIRCLE = np.stack([np.cos(np.pi * STEPS), np.sin(np.pi * STEPS)], axis=1)  # (32, 2)
GREY = np.array([0.3, 0.59, 0.11])  # how bright red, green and blue look
# A thing is a list of parts, drawn in turn. A part is a colour (0: a hole, 1 or 2: one of the thing's two) and numbers
# within about −1 … 1, y upwards: centre x, y and half axes of an ellipse, or the corners x, y, x, y, … of a polygon.
THINGS = {
    "arrow": [(1, 1, 0, .1, .7, .1, .25, -.95, .25, -.95, -.25, .1, -.25, .1, -.7)],
    "cup": [(1, .5, 0, .42, .42), (0, .5, 0, .22, .22), (1, -.8, .6, .5, .6, .35, -.65, -.65, -.65),
            (1, -.15, -.65, .5, .15), (1, -.15, .6, .65, .2), (2, -.15, .6, .52, .12)],
    "fish": [(2, 0, 0, -1, .5, -.8, 0, -1, -.5), (2, 0, .3, 0, .8, .5, .3), (1, .2, 0, .8, .5), (2, .6, .1, .12, .12)],
    "heart": [(1, -.4, .3, .46, .46), (1, .4, .3, .46, .46), (1, 0, -.9, .75, 0, .4, .3, 0, .4, -.4, .3, -.75, 0)],
    "house": [(1, .4, 0, .4, .85, .65, .85, .65, 0), (1, -.7, .1, .7, .1, .7, -.8, -.7, -.8),
              (2, -1, .05, 0, .9, 1, .05), (2, -.17, -.25, .17, -.25, .17, -.8, -.17, -.8)],
    "key": [(1, -.52, 0, .45, .45), (0, -.52, 0, .2, .2), (1, -.15, .12, 1, .12, 1, -.12, -.15, -.12),
            (1, .4, 0, .4, -.5, .6, -.5, .6, 0), (1, .8, 0, .8, -.5, 1, -.5, 1, 0)],
    "moon": [(1, 0, 0, .92, .92), (0, .48, .12, .72, .72)],
    "mushroom": [(1, 0, 0, .95, .9), (0, -1, 0, 1, 0, 1, -1, -1, -1), (2, -.2, 0, .2, 0, .3, -.9, -.3, -.9),
                 (2, -.4, .35, .16, .16), (2, .1, .55, .16, .16), (2, .5, .25, .15, .15)],
    "star": [(1, 0, 1, .25, .34, .95, .31, .4, -.13, .59, -.81, 0, -.42, -.59, -.81, -.4, -.13, -.95, .31, -.25, .34)],
    "tree": [(2, -.14, -.5, .14, -.5, .14, -1, -.14, -1), (1, -.75, -.6, 0, .2, .75, -.6),
             (1, -.6, -.1, 0, .6, .6, -.1), (1, -.45, .35, 0, 1, .45, .35)],
}  # fmt: skip
CLASSES = tuple(THINGS)


def shapes(train: int = 3000, test: int = 1000, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """`train` and `test` pictures, no two alike, (N, 3, 32, 32), classes in turn; ValueError for an empty set.

    The same seed gives the same pictures; another version of Pillow may change some pixels.
    """
    if min(train, test) < 1:
        raise ValueError(f"{NAME}: train and test must be at least 1 image; got {train} and {test}.")
    return _drawn(train, seed, 0), _drawn(test, seed, 1)


def _drawn(count: int, seed: int, part: int) -> ImageSet:
    rng = np.random.Generator(np.random.PCG64([seed, part]))
    pictures = np.stack([_picture(THINGS[CLASSES[i % len(CLASSES)]], rng) for i in range(count)])
    images, labels = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.arange(count) % len(CLASSES)
    return ImageSet(images, labels, list(CLASSES), NAME, f"drawn by helpers.datasets.shapes with seed {seed}")


def _picture(parts: list[tuple], rng: np.random.Generator) -> np.ndarray:
    """One picture, uint8 (32, 32, 3), from back to front: ground, thing, in some a bar; then light and noise."""
    dark = rng.uniform(0.15, 0.4)
    level, brightness = rng.permutation([dark, dark + rng.uniform(0.3, 0.5)])  # of the ground and of the thing
    size = rng.uniform(0.55, 0.85)
    place = rng.uniform(size - 1, 1 - size, 2)
    canvas = _ground(level, rng)
    thing = _thing(parts, size, place, brightness, rng)
    canvas.paste(thing, mask=thing)
    if rng.random() < 0.3:  # off the middle, so that it hides a part
        _bar(canvas, place + size * rng.uniform(0.5, 0.8) * CIRCLE[rng.integers(SIDE)], rng.uniform(0.15, 0.85), rng)
    down, right = 1 + rng.uniform(-0.2, 0.2, (2, 1)) * STEPS
    pixels = np.asarray(canvas.reduce(FINE // SIDE)) * np.outer(down, right)[..., None]
    return (pixels + rng.normal(0, 6, (SIDE, SIDE, 1))).clip(0, 255).astype(np.uint8)


def _colour(brightness: float, rng: np.random.Generator) -> tuple[int, ...]:
    """A random colour of this brightness, 0 … 1."""
    tint = rng.uniform(-0.3, 0.3, 3)
    return tuple(min(max(int(value), 0), 255) for value in (255 * (brightness + tint - tint @ GREY)).tolist())


def _ground(level: float, rng: np.random.Generator) -> Image.Image:
    """Two colours that run into each other, once or in stripes, and one to three bars."""
    down, right = rng.uniform(-2.5, 2.5, (2, 1)) * STEPS
    share = np.abs(np.add.outer(down + rng.uniform(0, 2), right) % 2 - 1)[..., None]
    first, second = (np.array(_colour(level + step, rng)) for step in (0, rng.uniform(-0.15, 0.15)))
    pixels = (first + (second - first) * share).astype(np.uint8)
    canvas = Image.fromarray(pixels).resize((FINE, FINE), Image.Resampling.NEAREST)
    for _ in range(rng.integers(1, 4)):
        _bar(canvas, rng.uniform(-1, 1, 2), level + rng.uniform(-0.2, 0.2), rng)
    return canvas


def _bar(canvas: Image.Image, centre: np.ndarray, brightness: float, rng: np.random.Generator) -> None:
    half = rng.uniform(-0.5, 0.5, 2)
    ends = (1 + np.concatenate([centre - half, centre + half])) * FINE / 2
    ImageDraw.Draw(canvas).line(ends.tolist(), _colour(brightness, rng), width=int(rng.uniform(0.08, 0.2) * FINE))


def _thing(parts: list[tuple], size: float, place: np.ndarray, level: float, rng: np.random.Generator) -> Image.Image:
    """The thing alone, turned by up to 30°, stretched, in half of the cases mirrored; around it all is transparent."""
    canvas = Image.new("RGBA", (FINE, FINE))
    draw = ImageDraw.Draw(canvas)
    fills = [(0, 0, 0, 0), _colour(level, rng), _colour(level + rng.uniform(-0.2, 0.2), rng)]
    angle, (wide, high) = rng.uniform(-0.52, 0.52), size * rng.uniform(0.85, 1.1, 2) * (2 * rng.integers(2) - 1, -1)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * [[wide], [high]]
    for fill, *numbers in parts:
        corners = np.reshape(numbers, (-1, 2))
        corners = corners[0] + corners[1] * CIRCLE if len(corners) == 2 else corners
        pixels = (1 + place + corners @ matrix) * FINE / 2
        draw.polygon(pixels.ravel().tolist(), fills[fill])
    return canvas
