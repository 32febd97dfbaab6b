"""The real datasets: found by the checksum of what files hold, downloaded when missing. Nothing is unpacked to disk."""

import gzip
import hashlib
import pickle
import tarfile
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10

from helpers.datasets import folders
from helpers.datasets.fetch import DataError, download
from helpers.datasets.images import ImageSet
from helpers.keeping import environ

MNIST_MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
]
MNIST_RAW = {  # file: SHA-256 of what it holds
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_PACKED = {  # file: SHA-256 and bytes of file.gz as the mirrors serve it
    "train-images-idx3-ubyte": ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
    "train-labels-idx1-ubyte": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
    "t10k-images-idx3-ubyte": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
    "t10k-labels-idx1-ubyte": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
}
CIFAR10_MIRRORS = [
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://www.cs.toronto.edu/~kriz/",  # the home site, which can take an hour
]
BATCHES = "cifar-10-batches-py"  # the folder in the archive
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_SIZE = 170_498_071  # bytes
CIFAR10_CHECKSUM = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_BATCHES = dict(CIFAR10.train_list + CIFAR10.test_list)  # file: MD5
LARGEST = 2**26  # bytes of a file that is read; MNIST's largest has 47 MB, a batch 31


def find_mnist() -> Path:
    """The data folder, once MNIST's four files can be read from it. Raises DataError when one cannot be had."""
    home, there = environ.folder("LECTURE_DATA", "data"), read_mnist()
    missing = [name for name in MNIST_RAW if name not in there]
    try:
        for name in missing:
            download("MNIST", MNIST_MIRRORS, home / "MNIST" / "raw" / f"{name}.gz", *MNIST_PACKED[name])
    except DataError as error:
        needed = ", ".join(f"{name}.gz" for name in missing)
        raise DataError(f"{error} Missing or altered are in all: {needed} (see data/README.md).") from None
    return home


def load_mnist() -> tuple[ImageSet, ImageSet]:
    """MNIST's 60,000 training and 10,000 test images, (N, 1, 28, 28), verified. Raises DataError."""
    find_mnist()
    contents, both = read_mnist(), []
    for part in ("train", "t10k"):
        images = np.frombuffer(contents[f"{part}-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 1, 28, 28)
        labels = np.frombuffer(contents[f"{part}-labels-idx1-ubyte"], np.uint8, offset=8).astype(np.int64)
        both.append(ImageSet(*map(torch.tensor, (images, labels)), list("0123456789"), "MNIST", "SHA-256 verified"))
    return tuple(both)


def read_mnist() -> dict[str, bytes]:
    """What those of MNIST's files hold that are in the data folder or below its MNIST folder, under whatever names."""
    names, contents = {checksum: name for name, checksum in MNIST_RAW.items()}, {}
    home = environ.folder("LECTURE_DATA", "data")
    paths = {*home.glob("*"), *home.glob("[Mm][Nn][Ii][Ss][Tt]*/**/*")}
    for path in sorted(paths, key=lambda path: (path.name not in MNIST_RAW, path)):  # the usual names first
        if len(contents) < len(names):
            content = read_idx(path)
            name = names.get(hashlib.sha256(content).hexdigest())
            contents |= {name: content} if name else {}
    return contents


def read_idx(path: Path) -> bytes:
    """What a file in MNIST's format holds, packed or not, whatever its name says; b"" where it is no such file."""
    with suppress(Exception), path.open("rb") as file:  # a damaged file fails in many ways
        source = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
        return source.read(LARGEST) if source.peek(2)[:2] == b"\0\0" else b""
    return b""


def find_cifar10(folder: Path | str | None = None) -> Path:
    """Where CIFAR-10 is, or the images that stand for it (see `load_cifar10`); downloaded where there is neither."""
    home = environ.folder("LECTURE_DATA", "data")
    usual, archive = home / "cifar10", home / CIFAR10_ARCHIVE
    images = Path(folder).expanduser().absolute() if folder else environ.folder("LECTURE_IMAGES", usual)
    if images == usual:
        for path in [*sorted(home.glob(f"**/{BATCHES}")), *sorted(home.glob("*cifar-10*.t*"))]:
            if folders.decoded_before(*kept(path)) or read_batches(path):
                return path
    if images != usual or folders.listing(usual):
        folders.list_images(images)
        return images
    download("CIFAR-10", CIFAR10_MIRRORS, archive, CIFAR10_CHECKSUM, CIFAR10_SIZE)
    return archive


def load_cifar10(folder: Path | str | None = None, image_size: int | None = None) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10's 50,000 training and 10,000 test images, (N, 3, 32, 32), or images of one's own, which say so.

    Those come from `folder`, else from the folder that LECTURE_IMAGES names, else, without CIFAR-10, from `cifar10/`.
    All are brought to squares of `image_size` pixels. DataError, or ValueError and FileNotFoundError for own images.
    """
    path = find_cifar10(folder)
    if path.is_dir() and path.name != BATCHES:
        return folders.load_image_folder(path, image_size)
    both = folders.decoded_once(*kept(path), lambda: decode_batches(path))
    return tuple(part.resized(image_size) for part in both) if image_size else both


def kept(path: Path) -> tuple[Path, str]:
    """Where the images decoded from a folder or archive of batches are kept, and the fingerprint of the batches."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return path.with_name(f"{path.name}.decoded.pt"), folders.fingerprint(path, files, "batches")


def read_batches(path: Path) -> dict[str, bytes]:
    """All batches, from a folder or a tar archive, packed or not; {} unless each is there with its MD5."""
    names, found = {md5: name for name, md5 in CIFAR10_BATCHES.items()}, {}
    with suppress(Exception):
        if path.is_dir():
            contents = [file.read_bytes() for file in path.iterdir() if file.is_file()]
        else:
            with tarfile.open(path) as archive:
                contents = [archive.extractfile(member).read(LARGEST) for member in archive if member.isreg()]
        found = {names.get(hashlib.md5(content, usedforsecurity=False).hexdigest()): content for content in contents}
    return found if found.keys() >= CIFAR10_BATCHES.keys() else {}


def decode_batches(path: Path) -> list[ImageSet]:
    """The images (N, 3, 32, 32) and labels of both parts. Batches are pickles: loaded after their MD5 was right."""
    contents, both = read_batches(path), []
    if not contents:
        raise DataError(f"CIFAR-10: {path} is damaged (MD5). Delete it and run again.")
    for part in ("data_batch", "test_batch"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy 2.4.0 to 2.4.4 warn of how these old files name their type
            batches = [pickle.loads(contents[k], encoding="latin1") for k in CIFAR10_BATCHES if k.startswith(part)]
        images = torch.tensor(np.concatenate([batch["data"] for batch in batches])).reshape(-1, 3, 32, 32)
        labels = torch.tensor([label for batch in batches for label in batch["labels"]])
        both.append(ImageSet(images, labels, folders.CIFAR10_CLASSES, "CIFAR-10", "python batches, MD5 verified"))
    return both
