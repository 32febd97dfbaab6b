"""Small datasets in the formats of the real ones, whose checksums `helpers.datasets.sources` is made to expect."""

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.datasets import sources
from helpers.datasets.fetch import DataError

NAMES = {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}


class Trap:
    """A pickle that would leave a file at `path` if it were loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refusal(call, *arguments, kind=DataError, **named) -> str:
    """The one line with which this call fails."""
    with pytest.raises(kind) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, hidden ones left out."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def mnist(monkeypatch, count: int = 20) -> dict[str, bytes]:
    """MNIST's four raw files with `count` images of noise for each part."""
    numbers, files = np.random.default_rng(0), {}
    sizes = [size.to_bytes(4, "big") for size in (count, 28, 28)]
    for part in ("train", "t10k"):
        pixels = numbers.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        labels = numbers.integers(0, 10, count, dtype=np.uint8).tobytes()
        files[f"{part}-images-idx3-ubyte"] = b"".join([b"\0\0\x08\x03", *sizes, pixels])
        files[f"{part}-labels-idx1-ubyte"] = b"".join([b"\0\0\x08\x01", sizes[0], labels])
    monkeypatch.setattr(sources, "MNIST_RAW", {name: sha256(content) for name, content in files.items()})
    sums = {name.removesuffix(".gz"): (sha256(content), len(content)) for name, content in packed(files).items()}
    monkeypatch.setattr(sources, "MNIST_PACKED", sums)
    return files


def packed(files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}


def add_member(archive, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    archive.addfile(member, io.BytesIO(content))


def cifar(monkeypatch, count: int = 20) -> tuple[dict[str, bytes], list[np.ndarray]]:
    """CIFAR-10's batches, `count` images of noise in each, and what they hold: images and labels of train and test."""
    numbers, files, expected = np.random.default_rng(1), {}, []
    for names in NAMES.values():
        images = numbers.integers(0, 256, (len(names), count, 3072), dtype=np.uint8)
        labels = numbers.integers(0, 10, (len(names), count))
        for name, data, its in zip(names, images, labels, strict=True):
            files[name] = pickle.dumps({"data": data, "labels": its.tolist()}, protocol=2)
        expected += [images.reshape(-1, 3, 32, 32), labels.flatten()]
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(sources, "CIFAR10_BATCHES", sums)
    archive = cifar_archive(files)
    monkeypatch.setattr(sources, "CIFAR10_CHECKSUM", sha256(archive))
    monkeypatch.setattr(sources, "CIFAR10_SIZE", len(archive))
    return files, expected


def cifar_archive(files: dict[str, bytes], more=lambda archive: None, mode: str = "w:gz") -> bytes:
    """A tar archive of the batches, after what `more(archive)` puts in."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        more(archive)
        for name, content in files.items():
            add_member(archive, f"cifar-10-batches-py/{name}", content)
    return buffer.getvalue()


def equal(both, expected) -> bool:
    """Whether the two sets hold exactly these arrays: images and labels of train, then of test."""
    found = [tensor.numpy() for part in both for tensor in (part.images, part.labels)]
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels
