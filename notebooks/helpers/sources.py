"""Where the real datasets come from: found, verified, downloaded when missing, and read.

Files live in the folder LECTURE_DATA (default: `data/` of the repository) in torchvision's layout, CIFAR-10 also as
an image folder. Every published file is checked against its checksum before anything reads it. LECTURE_OFFLINE=1
forbids the network.
"""

import functools
import hashlib
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import torch
from torchvision import datasets

from helpers import cache
from helpers.data import ImageSet
from helpers.downloads import download
from helpers.files import DataError, unpack, verified, write_whole, writing
from helpers.folders import PARTS, load_image_folder

MNIST_MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
]
MNIST_FILES = {  # name: SHA-256 of the raw file, SHA-256 and bytes of name.gz as the mirrors serve it
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        9_912_422,
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        28_881,
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        1_648_877,
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        4_542,
    ),
}
CIFAR10_MIRRORS = [
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://www.cs.toronto.edu/~kriz/",  # the home site, which can take an hour
]
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_SIZE = 170_498_071  # bytes
CIFAR10_CHECKSUM = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_BATCHES = {  # part: {file of the archive: MD5, as torchvision publishes it}
    "train": dict(datasets.CIFAR10.train_list),
    "test": dict(datasets.CIFAR10.test_list),
    "names": {datasets.CIFAR10.meta["filename"]: datasets.CIFAR10.meta["md5"]},  # not read here, but torchvision does
}
MD5 = functools.partial(hashlib.md5, usedforsecurity=False)  # allowed where MD5 is barred from security
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def data_folder() -> Path:
    """The folder of all datasets: LECTURE_DATA, or `data/` of the repository."""
    return Path(os.environ.get("LECTURE_DATA") or Path(__file__).parents[2] / "data")


def find_mnist() -> Path:
    """The folder with MNIST's four raw files, verified; what is missing or damaged is unpacked or downloaded.

    Raises DataError when a file cannot be had. A folder that is already good is only read.
    """
    folder = data_folder() / "MNIST" / "raw"
    bad = [name for name, (checksum, *_) in MNIST_FILES.items() if not verified(folder / name, checksum)]
    if bad:
        with writing("MNIST", folder, ".lock"):
            for done, name in enumerate(bad):
                restore_mnist_file(folder, name, others=bad[done + 1 :])
    return folder


def load_mnist() -> tuple[ImageSet, ImageSet]:
    """MNIST's 60,000 training and 10,000 test images, (N, 1, 28, 28), from verified files. Raises DataError."""
    folder = find_mnist()
    about = [str(digit) for digit in range(10)], "MNIST", "raw files, SHA-256 verified"
    both = []
    for part in ("train", "t10k"):  # not by datasets.MNIST, which prefers files of its old format that nobody verified
        images = datasets.mnist.read_image_file(folder / f"{part}-images-idx3-ubyte")
        labels = datasets.mnist.read_label_file(folder / f"{part}-labels-idx1-ubyte")
        both.append(ImageSet(images.unsqueeze(1), labels, *about))
    return tuple(both)


def find_cifar10() -> Path:
    """The folder with CIFAR-10: `cifar-10-batches-py`, verified, or the image folder `cifar10` where there is no other.

    Where neither is there, the batches are unpacked from their archive, downloaded if need be. Raises DataError when
    they cannot be had. Data that are already good are only read.
    """
    home = data_folder()
    folder, archive, images = home / CIFAR10_FOLDER, home / CIFAR10_ARCHIVE, home / "cifar10"
    if cache.matches(folder / cache.NAME, batches_fingerprint(folder)) or batches_good(folder):
        return folder
    if all((images / part).is_dir() for part in PARTS) and not verified(archive, CIFAR10_CHECKSUM):
        return images
    with writing("CIFAR-10", home, ".cifar10.lock"):
        restore_cifar10(folder, archive)
    return folder


def load_cifar10() -> tuple[ImageSet, ImageSet]:
    """CIFAR-10's 50,000 training and 10,000 test images, (N, 3, 32, 32), decoded once and then read from a cache.

    Images from the image folder say in their name that they are not the original. Raises DataError, and ValueError
    where the content of the image folder is wrong (see `load_image_folder`).
    """
    folder = find_cifar10()
    if folder.name != CIFAR10_FOLDER:
        return load_image_folder(folder, *describe_cifar10_images(folder))
    sources = batches_fingerprint(folder)
    both = cache.load(folder / cache.NAME, sources)
    if both is None:
        about = CIFAR10_CLASSES, "CIFAR-10", "python batches, MD5 verified"
        both = tuple(ImageSet(*read_batches(folder, part), *about) for part in PARTS)
        cache.save(folder / cache.NAME, sources, *both)
    return both


def batches_fingerprint(folder: Path) -> str | None:
    """The batch files as `cache` knows them, or None where one is missing."""
    files = [folder / name for part in PARTS for name in CIFAR10_BATCHES[part]]
    return cache.fingerprint(folder, files) if all(file.is_file() for file in files) else None


def batches_good(folder: Path) -> bool:
    """Whether every batch is there with its MD5."""
    return all(verified(folder / name, md5, MD5) for part in PARTS for name, md5 in CIFAR10_BATCHES[part].items())


def read_batches(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, 32, 32) and labels (N,) of "train" or "test". Batches are pickles: checked first, loaded after."""
    images, labels = [], []
    for name, checksum in CIFAR10_BATCHES[part].items():
        content = (folder / name).read_bytes()
        if MD5(content).hexdigest() != checksum:  # checked here too, on the very bytes that are loaded
            raise DataError(f"CIFAR-10: {folder / name} is damaged (its MD5 is not CIFAR-10's). Delete it, run again.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy 2.4.0 to 2.4.4 warn of how these old files name their type
            batch = pickle.loads(content, encoding="latin1")
        images.append(torch.tensor(batch["data"]).reshape(-1, 3, 32, 32))
        labels += batch["labels"]
    return torch.cat(images), torch.tensor(labels)


def describe_cifar10_images(folder: Path) -> tuple[str, str]:
    """Name and source of what lies in the image folder: JPEG is not byte-equal, other classes are other images."""
    classes = sorted(entry.name for entry in folder.glob("train/[!.]*") if entry.is_dir())
    if classes != CIFAR10_CLASSES:
        return "own images (not CIFAR-10)", "image folder cifar10"
    if any(file.suffix.lower() in (".jpg", ".jpeg") for file in folder.glob("*/*/*")):
        return "CIFAR-10 as JPEG", "image folder cifar10, re-encoded as JPEG: not the original's pixels"
    return "CIFAR-10 (image folder)", "image folder cifar10"


def restore_cifar10(folder: Path, archive: Path) -> None:
    """Unpack the batches from the archive, downloaded if its SHA-256 is not right. Raises DataError."""
    if batches_good(folder):  # another process was faster
        return
    if not verified(archive, CIFAR10_CHECKSUM):
        found = "its SHA-256 is not CIFAR-10's" if archive.is_file() else "missing"
        try:
            download(CIFAR10_MIRRORS, archive, CIFAR10_CHECKSUM, CIFAR10_SIZE)
        except DataError as error:
            raise DataError(f"CIFAR-10: {archive} ({found}): {error}") from None
    folder.mkdir(exist_ok=True)
    wanted = {f"{CIFAR10_FOLDER}/{name}": md5 for batches in CIFAR10_BATCHES.values() for name, md5 in batches.items()}
    with tarfile.open(archive) as members:
        for member in members:  # no path of the archive is ever written to: only the wanted names, into `folder`
            checksum = wanted.get(member.name)
            content = members.extractfile(member).read() if checksum and member.isfile() else b""
            if MD5(content).hexdigest() == checksum:
                write_whole(folder / Path(member.name).name, content)
                del wanted[member.name]
    if wanted:
        raise DataError(f"CIFAR-10: {archive} holds no good {', '.join(wanted)}. Delete the archive and run again.")


def restore_mnist_file(folder: Path, name: str, others: list[str]) -> None:
    """Make `folder/name` from `name.gz` beside it, or from a downloaded one, if its SHA-256 is not right.

    `others` are files that will be needed after it; the message of a DataError names them too.
    """
    path, (checksum, packed_checksum, size) = folder / name, MNIST_FILES[name]
    if verified(path, checksum):  # another process was faster
        return
    found = "its SHA-256 is not MNIST's" if path.is_file() else "missing"
    packed = folder / f"{name}.gz"
    if packed.is_file():
        if unpack(packed, path, checksum):
            return
        found += f", and {packed.name} does not hold it"
    try:
        download(MNIST_MIRRORS, packed, packed_checksum, size)
    except DataError as error:
        more = f" Also needed: {', '.join(f'{other}.gz' for other in others)} (see data/README.md)." if others else ""
        raise DataError(f"MNIST: {path} ({found}): {error}{more}") from None
    unpack(packed, path, checksum)
