"""Where the real datasets come from: found, verified, downloaded when missing, and read.

Files live in the folder LECTURE_DATA (default: `data/` of the repository) in torchvision's layout, CIFAR-10 also as
an image folder. Every published file is checked against its checksum before anything reads it. LECTURE_OFFLINE=1
forbids the network.
"""

import functools
import gzip
import hashlib
import os
import pickle
import tarfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pooch
import requests
import torch
from filelock import FileLock
from torchvision import datasets

from helpers import cache
from helpers.data import ImageSet
from helpers.folders import PARTS, load_image_folder
from helpers.progress import LiveText, Progress

TIMEOUT = 8  # seconds that a mirror may stay silent before the next one is tried
MNIST_MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
]
MNIST_FILES = {  # name: SHA-256 of the raw file, SHA-256 of name.gz as the mirrors serve it
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}
CIFAR10_MIRRORS = [
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://www.cs.toronto.edu/~kriz/",  # the home site, which can take an hour
]
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_CHECKSUM = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_BATCHES = {  # part: {file of the archive: MD5, as torchvision publishes it}
    "train": dict(datasets.CIFAR10.train_list),
    "test": dict(datasets.CIFAR10.test_list),
    "names": {datasets.CIFAR10.meta["filename"]: datasets.CIFAR10.meta["md5"]},  # not read here, but torchvision does
}
MD5 = functools.partial(hashlib.md5, usedforsecurity=False)  # allowed where MD5 is barred from security
CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class DataError(OSError):
    """A dataset cannot be had. The message says which file, why, and what to do next."""


def data_folder() -> Path:
    """The folder of all datasets: LECTURE_DATA, or `data/` of the repository."""
    return Path(os.environ.get("LECTURE_DATA") or Path(__file__).parents[2] / "data")


def find_mnist() -> Path:
    """The folder with MNIST's four raw files, verified; what is missing or damaged is unpacked or downloaded.

    Raises DataError when a file cannot be had. A folder that is already good is only read.
    """
    folder = data_folder() / "MNIST" / "raw"
    bad = [name for name, (checksum, _) in MNIST_FILES.items() if not verified(folder / name, checksum)]
    if bad:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # of several notebooks one downloads, the others wait and then find it
                for name in bad:
                    restore_mnist_file(folder, name)
        except DataError:
            raise
        except OSError as error:
            advice = "Free some space or set LECTURE_DATA to a folder that can be written"
            raise DataError(f"MNIST: {folder / bad[0]} cannot be written ({error}). {advice}.") from error
    return folder


def load_mnist() -> tuple[ImageSet, ImageSet]:
    """MNIST's 60,000 training and 10,000 test images, (N, 1, 28, 28), from verified files. Raises DataError."""
    find_mnist()
    parts = [datasets.MNIST(data_folder(), train=train) for train in (True, False)]
    classes = [str(digit) for digit in range(10)]
    source = "raw files, SHA-256 verified"
    return tuple(ImageSet(part.data.unsqueeze(1), part.targets, classes, "MNIST", source) for part in parts)


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
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / ".cifar10.lock"):
            restore_cifar10(folder, archive)
    except DataError:
        raise
    except OSError as error:
        advice = "Free some space or set LECTURE_DATA to a folder that can be written"
        raise DataError(f"CIFAR-10: {folder} cannot be written ({error}). {advice}.") from error
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
            download(CIFAR10_MIRRORS, archive, CIFAR10_CHECKSUM)
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


def verified(path: Path, checksum: str, algorithm: Callable = hashlib.sha256) -> bool:
    """Whether the file exists and has this checksum."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == checksum


def restore_mnist_file(folder: Path, name: str) -> None:
    """Make `folder/name` from `name.gz` beside it, or from a downloaded one, if its SHA-256 is not right."""
    path, (checksum, packed_checksum) = folder / name, MNIST_FILES[name]
    if verified(path, checksum):  # another process was faster
        return
    found = "its SHA-256 is not MNIST's" if path.is_file() else "missing"
    packed = folder / f"{name}.gz"
    if packed.is_file() and unpack(packed, path, checksum):
        return
    try:
        download(MNIST_MIRRORS, packed, packed_checksum)
    except DataError as error:
        raise DataError(f"MNIST: {path} ({found}): {error}") from None
    unpack(packed, path, checksum)


def unpack(packed: Path, path: Path, checksum: str) -> bool:
    """Unpack a .gz file to `path` if the content has this SHA-256; say whether it had."""
    try:
        content = gzip.decompress(packed.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    if hashlib.sha256(content).hexdigest() != checksum:
        return False
    write_whole(path, content)
    return True


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it under its name."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)  # atomic
    finally:
        partial.unlink(missing_ok=True)


def download(mirrors: list[str], path: Path, checksum: str) -> None:
    """Download `path.name` from the first mirror that delivers this SHA-256. Raises DataError if none does.

    What came before a connection broke stays in `path.name.partial`; the next mirror, or the next run, goes on there.
    """
    places = " or ".join(mirrors)
    by_hand = f"Copy {path.name} from {places} into {path.parent}, or set LECTURE_DATA to a folder that has the data"
    partial = path.with_name(path.name + ".partial")
    if os.environ.get("LECTURE_OFFLINE") == "1":
        raise DataError(f"not downloaded, since LECTURE_OFFLINE=1. {by_hand}.")
    pooch.get_logger().setLevel("WARNING")  # its notes would go to stderr, and the bar says the same
    live, failures = LiveText(), []
    for mirror in mirrors:
        bar = Progress(lambda line: live.show(f"{path.name}  {line}"), "bytes")
        fetch = functools.partial(resume, partial=partial, bar=bar)
        try:
            pooch.retrieve(mirror + path.name, f"sha256:{checksum}", path.name, path.parent, downloader=fetch)
        except (ValueError, requests.RequestException) as error:  # pooch: ValueError for a wrong checksum
            failures.append(f"{mirror}: {type(error).__name__}")
        else:
            live.show(f"{path.name}: downloaded, SHA-256 verified", final=True)
            return
    if partial.is_file():
        by_hand = f"Run again to go on after the {partial.stat().st_size:,} bytes that have come. Or: {by_hand}"
    raise DataError(f"no mirror delivered it ({'; '.join(failures)}). {by_hand}.")


def resume(url: str, file: str, _: object, partial: Path, bar: Progress) -> None:
    """Download what is missing at the end of `partial`, then move it to `file`. Called by pooch, which checks it."""
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, or their positions mean nothing
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code != 416:  # 416: there is nothing after `have`
            response.raise_for_status()
            bar.total = int(response.headers.get("Content-Length", 0))
            with partial.open("ab" if response.status_code == 206 else "wb") as target:  # 200: all from the start
                for chunk in response.iter_content(2**16):
                    target.write(chunk)
                    bar.update(len(chunk))
    partial.replace(file)
