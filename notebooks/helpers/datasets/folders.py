"""Images from class folders, `<folder>/{train,test}/<class>/*`, decoded once and kept in `<folder>/decoded.pt`."""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageOps

from helpers.datasets.images import ImageSet
from helpers.keeping import store
from helpers.keeping.messages import LiveText, Progress, say

PARTS = {"train": ["train", "training"], "test": ["test", "testing", "val", "valid", "validation"]}  # the first found
SQUARE = 224  # pixels at most, where sizes differ: what the lectures' networks were made for
ROOM = 2**31  # bytes; images of one size stay as they are where all of them need no more memory
DECODER = 2  # the version of this file; with another one every folder is decoded again
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR10_COUNTS = (5_000, 1_000)  # images of each class for training and for testing
LOSSLESS = {"PNG", "BMP", "PPM"}


def load_image_folder(folder: Path | str, image_size: int | None = None) -> tuple[ImageSet, ImageSet]:
    """The training and the test set, each (N, 3, H, W); classes in alphabetical order.

    Images of one size stay as they are; where sizes differ, or `image_size` (pixels) is given, all are scaled and
    cropped to one square. Raises FileNotFoundError where a part is missing, ValueError where anything else is amiss.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel; got {image_size}.")
    folder = Path(folder).expanduser().absolute()
    parts = list_images(folder)
    files = [file for part in parts for its in part.values() for file in its]
    key = fingerprint(folder, files, f"{DECODER} {image_size}")
    return decoded_once(folder / "decoded.pt", key, lambda: decode(folder, parts, files, image_size))


def decoded_once(path: Path, key: str, decode: Callable) -> tuple[ImageSet, ImageSet]:
    """The two sets that are kept at `path` under `key`; else those that `decode()` returns, which are then kept."""
    if kept := decoded_before(path, key):
        return tuple(ImageSet(**part) for part in kept)
    both = decode()
    if cannot := store.write(path, {"key": key, "content": [vars(part) for part in both]}):
        say(f"{path} cannot be written ({cannot}): every start decodes the images again.")
    return both


def decoded_before(path: Path, key: str) -> list[dict] | None:
    """What was kept under `key`, or None where the file is missing, damaged, or holds something else."""
    kept, _ = store.read(path)
    return kept["content"] if kept and kept.get("key") == key else None


def fingerprint(folder: Path, files: list[Path], settings: str) -> str:
    """SHA-256 of the names, sizes and times of change of the files, and of the settings they are decoded with."""
    about = [(str(file).removeprefix(str(folder)), file.stat()) for file in files]
    text = settings + "".join(f"\n{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in about)
    return hashlib.sha256(text.encode()).hexdigest()


def list_images(folder: Path) -> list[dict[str, list[Path]]]:
    """For training and testing the files of each class, all by name. Checks the layout."""
    train, test = parts = [list_part(folder, part) for part in PARTS]
    if train.keys() != test.keys():
        lists = f"only in train: {sorted({*train} - {*test})}, only in test: {sorted({*test} - {*train})}"
        raise ValueError(f"{folder}: train and test differ in classes ({lists}). Give both the same class folders.")
    return parts


def list_part(folder: Path, part: str) -> dict[str, list[Path]]:
    present = {path.name.lower(): path for path in listing(folder)}
    found = next((present[name] for name in PARTS[part] if name in present), folder / part)
    files = {path.name: listing(path) for path in listing(found) if path.is_dir()}
    if not files:
        raise FileNotFoundError(f"{found} is missing or empty. Lay out train/<class>/<image> and test/<class>/<image>.")
    if empty := [name for name, images in files.items() if not images]:
        raise ValueError(f"{found / empty[0]} holds no image. Add some, or remove the folder.")
    return files


def listing(folder: Path) -> list[Path]:
    """What is in a folder, by name, without hidden files such as .DS_Store; [] where there is no such folder."""
    return sorted(folder.glob("[!.]*"))


def decode(folder: Path, parts: list[dict], paths: list[Path], image_size: int | None) -> list[ImageSet]:
    """Read every file, first for sizes and formats and then for its pixels, and say what was done to them."""
    counts = [[len(files) for files in part.values()] for part in parts]
    sizes, formats = (Counter(found) for found in zip(*(look(path, measure) for path in paths), strict=True))
    size, change = next(iter(sizes)), ""
    if image_size or len(sizes) > 1 or 3 * size[0] * size[1] * len(paths) > ROOM:
        size = (image_size or min(SQUARE, round(median(min(size) for size in sizes.elements()))),) * 2
        change = f"; all scaled and cropped to {size[0]}×{size[0]} pixels (image_size=… takes another size)"
    images = torch.empty(len(paths), 3, size[1], size[0], dtype=torch.uint8)
    live = LiveText()
    bar = Progress(lambda line: live.show(f"{folder}: decoding  {line}"), "images", len(paths))
    for place, path in zip(images, paths, strict=True):
        image = look(path, as_rgb)
        image = image if image.size == size else ImageOps.fit(image, size, Image.Resampling.BICUBIC)
        place.copy_(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        bar.update(1)
    classes, kinds = list(parts[0]), " and ".join(sorted(formats))
    name = verified_name(classes, counts, set(sizes), set(formats))
    live.show(f"{name}: {len(paths):,} images decoded from {folder}{change}", final=True)
    about = classes, name, f"image folder {folder.name}, {kinds}, pixels not compared{change}"
    labels = [torch.arange(len(classes)).repeat_interleave(torch.tensor(count)) for count in counts]
    return [ImageSet(*part, *about) for part in zip(images.split([*map(len, labels)]), labels, strict=True)]


def look(path: Path, use: Callable[[Image.Image], object]) -> object:
    """`use(image)` for the image in a file. Raises ValueError, which names the file, where that fails."""
    try:
        with Image.open(path) as image:
            return use(image)
    except Exception as error:  # a damaged file fails in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({reason}). Replace or remove it.") from error


def measure(image: Image.Image) -> tuple[tuple[int, int], str]:
    """Width and height of the upright image, and its format, without decoding its pixels."""
    width, height = image.size
    lies = width != height and image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: turned by a quarter
    return ((height, width) if lies else (width, height)), image.format


def as_rgb(image: Image.Image) -> Image.Image:
    """The image upright, in RGB of 8 bits: what is transparent laid on white, of 16 bits the upper 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        values = np.where(values == image.info.get("transparency", -1), 0xFFFF, values)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"numbers of mode {image.mode} do not say which is white: save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def verified_name(classes: list[str], counts: list[list[int]], sizes: set, formats: set[str]) -> str:
    """The sets' name. CIFAR-10 is claimed for its classes, counts and size alone, and no pixels."""
    if classes != CIFAR10_CLASSES:
        return "own images (not CIFAR-10)"
    if counts != [[count] * 10 for count in CIFAR10_COUNTS] or sizes != {(32, 32)}:
        return "images of CIFAR-10's classes (not CIFAR-10)"
    return "CIFAR-10 (image folder)" if formats <= LOSSLESS else f"CIFAR-10 as {' and '.join(sorted(formats))}"
