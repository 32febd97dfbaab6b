"""Damaged data files that nobody thought of: either the right images come out, or one line says what is wrong.

hypothesis draws the damage. FUZZ_EXAMPLES=2000 looks longer than the few examples of an ordinary run.
"""

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import random
import shutil
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from helpers import sources
from helpers.files import DataError
from helpers.folders import load_image_folder

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # CI looks at the same examples every time
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
KINDS = ["truncate", "flip", "overwrite", "swap", "extend", "empty", "remove"]


@st.composite
def damages(draw):
    """One to three times: which file, what kind of damage, where (0 … 1, as a share of the file), and a seed."""
    one = st.tuples(st.integers(0, 99), st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 2**32))
    return draw(st.lists(one, min_size=1, max_size=3))


def damage(folder: Path, names: list[str], plan: list) -> None:
    """Damage files of the folder as drawn. The time of change moves on, as it does between two lectures."""
    for turn, (which, kind, where, seed) in enumerate(plan):
        path, numbers = folder / names[which % len(names)], random.Random(seed)
        event(f"{kind} {path.suffix or path.name}")
        if not path.exists():
            continue
        content = path.read_bytes()
        place = min(int(where * len(content)), max(len(content) - 1, 0))
        if kind == "truncate":
            content = content[:place]
        elif kind == "flip" and content:
            content = content[:place] + bytes([content[place] ^ 1 << seed % 8]) + content[place + 1 :]
        elif kind == "overwrite":
            content = content[:place] + numbers.randbytes(numbers.randint(1, 40)) + content[place + 40 :]
        elif kind == "swap":
            other = folder / names[seed % len(names)]
            if not other.exists():
                continue
            theirs = other.read_bytes()
            other.write_bytes(content)
            content = theirs
        elif kind == "extend":
            content += numbers.choice([b"\0", content, bytes(5000), numbers.randbytes(300)])
        elif kind == "empty":
            content = b""
        path.unlink()
        if kind != "remove":
            path.write_bytes(content)
            os.utime(path, (2e9 + turn, 2e9 + turn))


def attempt(load):
    """What `load` returns, or None where it raises one line of ours. Anything else is a failure of the test."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except (DataError, ValueError, FileNotFoundError) as error:
        message = str(error)
        assert type(error) in (DataError, ValueError, FileNotFoundError), repr(error)
        assert "\n" not in message and len(message) > 40 and message.endswith("."), message
        event("said")
        return None


def fresh(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """A folder with just these files, the same path for every example."""
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def equal(both, expected) -> bool:
    """Whether the sets hold exactly these arrays: images and labels of train, then of test."""
    found = [tensor.numpy() for part in both for tensor in (part.images, part.labels)]
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


# MNIST: raw files and .gz


@pytest.fixture(scope="module")
def mnist():
    """Files of a small MNIST, and what they hold."""
    numbers, files, expected = np.random.default_rng(0), {}, []
    for part, count in (("train", 4), ("t10k", 4)):  # alike, so that swapped files would be found only by checksum
        images = numbers.integers(0, 256, (count, 1, 28, 28), dtype=np.uint8)
        labels = numbers.integers(0, 10, count)
        sizes = [size.to_bytes(4, "big") for size in (count, 28, 28)]
        files[f"{part}-images-idx3-ubyte"] = b"".join([b"\0\0\x08\x03", *sizes, images.tobytes()])
        files[f"{part}-labels-idx1-ubyte"] = b"".join([b"\0\0\x08\x01", sizes[0], labels.astype(np.uint8).tobytes()])
        expected += [images, labels]
    return files, expected


@fuzz
@given(plan=damages(), with_raw=st.booleans(), with_packed=st.booleans())
@example(plan=[(0, "swap", 0.0, 2)], with_raw=False, with_packed=True)  # intact archives under each other's names
def test_damaged_mnist_is_right_or_said(tmp_path, monkeypatch, mnist, plan, with_raw, with_packed):
    raw, expected = mnist
    packed = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in raw.items()}
    table = {name: (sha256(raw[name]), sha256(packed[f"{name}.gz"]), len(packed[f"{name}.gz"])) for name in raw}
    monkeypatch.setattr(sources, "MNIST_FILES", table)
    chosen = (raw if with_raw else {}) | (packed if with_packed else {})
    folder = fresh(tmp_path, {f"MNIST/raw/{name}": content for name, content in chosen.items()})
    monkeypatch.setenv("LECTURE_DATA", str(folder))
    if chosen:
        damage(folder / "MNIST" / "raw", sorted(chosen), plan)
    both = attempt(sources.load_mnist)
    assert both is None or equal(both, expected)
    assert chosen or both is None


# CIFAR-10: batches, archive and the cache of decoded images


@pytest.fixture(scope="module")
def cifar():
    """Batches of a small CIFAR-10, their archive, and what they hold."""
    numbers, files, expected = np.random.default_rng(1), {}, []
    for names in (["data_batch_1", "data_batch_2"], ["test_batch"]):
        images, labels = [], []
        for name in names:
            images.append(numbers.integers(0, 256, (4, 3072), dtype=np.uint8))
            labels.append(numbers.integers(0, 10, 4))
            files[name] = pickle.dumps({"data": images[-1], "labels": labels[-1].tolist()}, protocol=2)
        expected += [np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return files, buffer.getvalue(), expected


@fuzz
@given(plan=damages(), parts=st.sampled_from(["batches", "archive", "both", "batches and cache", "all"]))
def test_damaged_cifar10_is_right_or_said(tmp_path, monkeypatch, cifar, plan, parts):
    batches, archive, expected = cifar
    sums = {name: hashlib.md5(content).hexdigest() for name, content in batches.items()}
    train = {name: sums[name] for name in ("data_batch_1", "data_batch_2")}
    monkeypatch.setattr(sources, "CIFAR10_BATCHES", {"train": train, "test": {"test_batch": sums["test_batch"]}})
    monkeypatch.setattr(sources, "CIFAR10_CHECKSUM", sha256(archive))
    files = {} if parts == "archive" else {f"cifar-10-batches-py/{name}": content for name, content in batches.items()}
    if parts in ("archive", "both", "all"):
        files["cifar-10-python.tar.gz"] = archive
    folder = fresh(tmp_path, files)
    monkeypatch.setenv("LECTURE_DATA", str(folder))
    names = sorted(files)
    if parts in ("batches and cache", "all"):
        assert equal(sources.load_cifar10(), expected)
        names.append("cifar-10-batches-py/decoded.pt")
    damage(folder, names, plan)
    both = attempt(sources.load_cifar10)
    assert both is None or equal(both, expected)
    for path in folder.glob("cifar-10-batches-py/*_batch*.partial"):
        raise AssertionError(f"{path} was left")


# An image folder and its cache


def image_file(form: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(buffer, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
    return buffer.getvalue()


def as_pillow_reads_it(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)


@fuzz
@given(plan=damages(), form=st.sampled_from(["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"]), cached=st.booleans())
def test_a_damaged_image_folder_is_as_pillow_reads_it_or_said(tmp_path, plan, form, cached):
    """Images of one's own have no checksum. What must never happen: the old images of a cache in place of new ones."""
    places = [f"{part}/{name}/{i}.{form.lower()}" for part in ("train", "test") for name in ("a", "b") for i in (0, 1)]
    folder = fresh(tmp_path, {place: image_file(form, seed) for seed, place in enumerate(places)})
    if cached:
        attempt(lambda: load_image_folder(folder, "pictures"))
        places = [*places, "decoded.pt"]
    damage(folder, places, plan)
    both = attempt(lambda: load_image_folder(folder, "pictures"))
    if both is None:
        return
    for part, images in zip(("train", "test"), both, strict=True):
        paths = sorted((folder / part).glob("*/*"))
        assert images.labels.tolist() == [int(path.parent.name == "b") for path in paths]
        for path, image in zip(paths, images.images, strict=True):
            np.testing.assert_array_equal(image, as_pillow_reads_it(path))


@fuzz
@given(content=st.binary(max_size=200), name=st.sampled_from(["decoded.pt", "train/a/0.png"]))
def test_a_file_of_any_bytes_is_no_traceback(tmp_path, content, name):
    places = {f"{part}/{kind}/0.png": image_file("PNG", 0) for part in ("train", "test") for kind in ("a", "b")}
    folder = fresh(tmp_path, places | {name: content})
    both = attempt(lambda: load_image_folder(folder, "pictures"))
    assert (both is None) == (name != "decoded.pt")
    if both:
        assert torch.equal(both[0].images[0], torch.tensor(as_pillow_reads_it(folder / "train/a/0.png")))
