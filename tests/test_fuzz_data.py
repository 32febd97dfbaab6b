"""Damaged data files that nobody thought of: either the right images come out, or one line says what is wrong.

hypothesis draws the damage. FUZZ_EXAMPLES=2000 looks longer than the few examples of an ordinary run.
"""

import contextlib
import io
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import small_data
from damage import damage, damages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from helpers.datasets import sources
from helpers.datasets.fetch import DataError
from helpers.datasets.folders import load_image_folder

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,  # CI looks at the same examples every time
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


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
        return None


def fresh(tmp_path: Path, files: dict[str, bytes]) -> Path:
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    return small_data.write(tmp_path / "data", files)


@fuzz
@given(plan=damages, with_raw=st.booleans(), with_packed=st.booleans())
def test_damaged_mnist_is_right_or_said(tmp_path, monkeypatch, plan, with_raw, with_packed):
    raw = small_data.mnist(monkeypatch, count=4)
    expected = [np.frombuffer(content, np.uint8, offset=16 if "images" in name else 8) for name, content in raw.items()]
    chosen = (raw if with_raw else {}) | (small_data.packed(raw) if with_packed else {})
    folder = fresh(tmp_path, {f"MNIST/raw/{name}": content for name, content in chosen.items()})
    monkeypatch.setenv("LECTURE_DATA", str(folder))
    if chosen:
        damage([folder / "MNIST" / "raw" / name for name in sorted(chosen)], plan)
    both = attempt(sources.load_mnist)
    if both is not None:
        found = [tensor.flatten().numpy() for part in both for tensor in (part.images, part.labels)]
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    assert chosen or both is None


@fuzz
@given(plan=damages, parts=st.sampled_from(["batches", "archive", "both", "batches and kept", "all"]))
def test_damaged_cifar10_is_right_or_said(tmp_path, monkeypatch, plan, parts):
    batches, expected = small_data.cifar(monkeypatch, count=4)
    files = {} if parts == "archive" else {f"cifar-10-batches-py/{name}": content for name, content in batches.items()}
    if parts in ("archive", "both", "all"):
        files["cifar-10-python.tar.gz"] = small_data.cifar_archive(batches)
    folder = fresh(tmp_path, files)
    monkeypatch.setenv("LECTURE_DATA", str(folder))
    names = sorted(files)
    if parts in ("batches and kept", "all"):
        assert small_data.equal(sources.load_cifar10(), expected)
        names.append("cifar-10-batches-py.decoded.pt")
    damage([folder / name for name in names], plan)
    both = attempt(sources.load_cifar10)
    assert both is None or small_data.equal(both, expected)
    assert not list(folder.rglob("*.partial"))


def image_file(form: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(buffer, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
    return buffer.getvalue()


def as_pillow_reads_it(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).transpose(2, 0, 1)


@fuzz
@given(plan=damages, form=st.sampled_from(["PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP"]), cached=st.booleans())
def test_a_damaged_image_folder_is_as_pillow_reads_it_or_said(tmp_path, plan, form, cached):
    """Images of one's own have no checksum. What must never happen: the old images of a cache in place of new ones."""
    places = [f"{part}/{name}/{i}.{form.lower()}" for part in ("train", "test") for name in ("a", "b") for i in (0, 1)]
    folder = fresh(tmp_path, {place: image_file(form, seed) for seed, place in enumerate(places)})
    if cached:
        attempt(lambda: load_image_folder(folder))
        places = [*places, "decoded.pt"]
    damage([folder / place for place in places], plan)
    both = attempt(lambda: load_image_folder(folder))
    if both is None:
        return
    for part, images in zip(("train", "test"), both, strict=True):
        paths = sorted((folder / part).glob("*/*"))
        assert images.labels.tolist() == [int(path.parent.name == "b") for path in paths]
        for path, image in zip(paths, images.images, strict=True):
            np.testing.assert_array_equal(image, as_pillow_reads_it(path))
