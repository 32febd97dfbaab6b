"""Images from class folders, `<folder>/{train,test}/<class>/*`: CIFAR-10 as files, or a student's own pictures.

Every file is decoded once, with a progress bar; `helpers.cache` keeps the result in `<folder>/decoded.pt`.
"""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from helpers import cache
from helpers.data import ImageSet
from helpers.progress import LiveText, Progress

PARTS = ("train", "test")
CONVERTIBLE = {"1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr"}  # PIL's modes of 8 bits or fewer a channel


def load_image_folder(
    folder: Path | str,
    name: str,
    source: str = "image folder",
    image_size: int | None = None,
    to_rgb: bool = False,
    skip_unreadable: bool = False,
) -> tuple[ImageSet, ImageSet]:
    """The training and the test set of an image folder, each (N, 3, H, W); classes in alphabetical order.

    All images must have one size, unless `image_size` (pixels) says to scale and crop each to a square. All must be
    RGB, unless `to_rgb` says to convert others. A file that cannot be read is an error, unless `skip_unreadable`.
    Names that start with a dot are ignored. Raises ValueError, or FileNotFoundError where a folder is missing.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel; got {image_size}.")
    folder = Path(folder)
    classes, files = list_images(folder)
    entries = [entry for part in PARTS for entries in files[part] for entry in entries]
    settings = f"1 {name} {source} {image_size} {to_rgb} {skip_unreadable}"  # 1: how this function decodes
    sources = cache.fingerprint(folder, entries, settings)
    both = cache.load(folder / cache.NAME, sources)
    if both is None:
        live = LiveText()
        bar = Progress(lambda line: live.show(f"{name}: decoding  {line}"), "images", len(entries))
        decoder = Decoder(folder, image_size, to_rgb, skip_unreadable, bar)
        both = tuple(ImageSet(*decoder.part(files[part], classes), classes, name, source) for part in PARTS)
        skipped = f"; skipped {len(decoder.skipped)}: {', '.join(decoder.skipped[:5])}" if decoder.skipped else ""
        live.show(f"{name}: {len(entries) - len(decoder.skipped):,} images decoded{skipped}", final=True)
        cache.save(folder / cache.NAME, sources, *both)
    return both


def list_images(folder: Path) -> tuple[list[str], dict[str, list[list[os.DirEntry]]]]:
    """The class names, and for "train" and "test" one sorted list of files a class. Checks the folders."""
    classes, files = {}, {}
    for part in PARTS:
        if not (folder / part).is_dir():
            raise FileNotFoundError(f"{folder / part} is missing. Lay the images out as {part}/<class>/<image>.")
        folders = [entry for entry in listing(folder / part) if entry.is_dir()]
        classes[part] = [entry.name for entry in folders]
        files[part] = [listing(entry) for entry in folders]
        for entry, inside in zip(folders, files[part], strict=True):
            if not inside:
                raise ValueError(f"{entry.path} holds no image. Add images of this class, or remove the folder.")
            wrong = next((file.path for file in inside if not file.is_file()), None)
            if wrong:
                raise ValueError(f"{wrong} is no file. Put the images directly into the class folder.")
    if classes["train"] != classes["test"]:
        train, test = (set(classes[part]) for part in PARTS)
        lists = f"only in train: {sorted(train - test) or 'none'}, only in test: {sorted(test - train) or 'none'}"
        raise ValueError(f"{folder}: train and test differ in classes ({lists}). Give both the same class folders.")
    if not classes["train"]:
        raise ValueError(f"{folder / 'train'} has no class folder. Lay the images out as train/<class>/<image>.")
    return classes["train"], files


def listing(folder: os.DirEntry | Path) -> list[os.DirEntry]:
    """What is in a folder, by name, without hidden files such as .DS_Store."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


class Decoder:
    """Reads image files into arrays of one size, (H, W, 3), and remembers that size and what it skipped."""

    def __init__(self, folder: Path, image_size: int | None, to_rgb: bool, skip_unreadable: bool, bar: Progress):
        self.folder, self.image_size, self.to_rgb, self.skip_unreadable = folder, image_size, to_rgb, skip_unreadable
        self.bar = bar
        self.first = None  # the first file and its shape, which all others must have
        self.skipped = []

    def part(self, files: list[list[os.DirEntry]], classes: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (N, 3, H, W) and labels (N,) of one part; `files` holds a list for each class."""
        images, labels = [], []
        for label, entries in enumerate(files):
            before = len(images)
            for entry in entries:
                pixels = self.read(entry.path)
                if pixels is not None:
                    images.append(pixels)
                    labels.append(label)
                self.bar.update(1)
            if len(images) == before:
                where = Path(entries[0].path).parent
                raise ValueError(f"{where}: not one image of class {classes[label]} could be read. Replace the files.")
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)

    def read(self, path: str) -> np.ndarray | None:
        """The pixels of one file, uint8 (H, W, 3), or None if it cannot be read and may be skipped."""
        try:
            with Image.open(path) as image:
                image.load()
            image = ImageOps.exif_transpose(image)  # a telephone stores how it was held beside the pixels
        except Exception as error:  # a damaged file fails in many ways
            if not self.skip_unreadable:
                reason = " ".join(str(error).replace(repr(path), "the file").split()) or type(error).__name__
                advice = "Replace or remove it, or pass skip_unreadable=True"
                raise ValueError(f"{path} cannot be read as an image ({reason}). {advice}.") from error
            self.skipped.append(os.path.relpath(path, self.folder))
            return None
        if image.mode != "RGB":
            kind = "grey" if image.mode in ("1", "L", "LA") else f"of mode {image.mode}"
            if image.mode not in CONVERTIBLE:
                raise ValueError(f"{path} is {kind}, not RGB with 8 bits a channel. Save it as such, or remove it.")
            if not self.to_rgb:
                raise ValueError(f"{path} is {kind}, not RGB. Pass to_rgb=True to convert such images, or remove it.")
            image = image.convert("RGB")
        if self.image_size is not None:
            image = ImageOps.fit(image, (self.image_size, self.image_size), Image.Resampling.BICUBIC)
        self.first = self.first or (path, image.size)
        if image.size != self.first[1]:
            size, (other, expected) = image.size, self.first
            raise ValueError(
                f"{path} has {size[0]}×{size[1]} pixels, but {other} {expected[0]}×{expected[1]}."
                " Pass image_size=… to scale and crop every image to one square."
            )
        return np.asarray(image)
