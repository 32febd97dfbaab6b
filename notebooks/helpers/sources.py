"""Where the real datasets come from: found, verified, downloaded when missing, and read.

Files live in the folder LECTURE_DATA (default: `data/` of the repository) in torchvision's layout. Every file is
checked against its SHA-256 each time, before anything reads it. LECTURE_OFFLINE=1 forbids the network.
"""

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from torchvision import datasets

from helpers.data import ImageSet
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


def verified(path: Path, checksum: str) -> bool:
    """Whether the file exists and has this SHA-256."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == checksum


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
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)  # atomic: nobody ever sees half a file under the final name
    finally:
        partial.unlink(missing_ok=True)
    return True


def download(mirrors: list[str], path: Path, checksum: str) -> None:
    """Download `path.name` from the first mirror that delivers this SHA-256. Raises DataError if none does."""
    by_hand = (
        f"Copy {path.name} from {mirrors[0]} into {path.parent}, or set LECTURE_DATA to a folder that has the data"
    )
    if os.environ.get("LECTURE_OFFLINE") == "1":
        raise DataError(f"not downloaded, since LECTURE_OFFLINE=1. {by_hand}.")
    live, failures = LiveText(), []
    for mirror in mirrors:
        bar = Progress(lambda line: live.show(f"{path.name}  {line}"), "bytes")
        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=TIMEOUT)
        try:
            pooch.retrieve(mirror + path.name, f"sha256:{checksum}", path.name, path.parent, downloader=fetch)
        except (ValueError, requests.RequestException) as error:  # pooch: ValueError for a wrong checksum
            failures.append(f"{mirror}: {type(error).__name__}")
        else:
            live.show(f"{path.name}: downloaded, SHA-256 verified", final=True)
            return
    raise DataError(f"no mirror delivered it ({'; '.join(failures)}). {by_hand}.")
