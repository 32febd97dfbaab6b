"""The drawn colour sample: the same bits everywhere, hard enough for a linear model, and honest about its name."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from helpers import drawing, samples

EVERY = samples.TARGET_CLASSES + samples.SOURCE_CLASSES
CHECKSUM = "4e980bde547126ed13f7d2c6b7bd24849da12d4547ffcde1d8418698f6b45847"  # of 7 pictures of each thing
PRINT_CHECKSUM = """
import hashlib
from helpers import drawing
print(hashlib.sha256(b"".join(drawing.paint(name, 7, 3, 1).tobytes() for name in drawing.NAMES)).hexdigest())
"""


def test_bits_are_the_stored_ones(capsys):
    exec(PRINT_CHECKSUM, {})
    assert capsys.readouterr().out.strip() == CHECKSUM


def test_bits_do_not_depend_on_the_processors_vector_units():
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", PRINT_CHECKSUM], env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == CHECKSUM, result.stderr


def test_sets_have_cifars_format_and_say_what_they_are():
    train, test = samples.shapes(train=23, test=11)
    assert train.images.shape == (23, 3, 32, 32) and train.images.dtype == torch.uint8 and len(test) == 11
    assert train.labels.bincount().tolist() == [3, 3, 3] + [2] * 7  # classes in turn, so any first part is balanced
    assert train.classes == list(samples.TARGET_CLASSES)
    assert "not CIFAR-10" in train.name and "sample" in test.name and "seed 0" in train.source


def test_source_and_target_classes_are_disjoint_and_all_are_used():
    assert not set(samples.SOURCE_CLASSES) & set(samples.TARGET_CLASSES)
    assert len(samples.SOURCE_CLASSES) == len(samples.TARGET_CLASSES) == 10
    assert sorted(EVERY) == sorted(drawing.NAMES)


def test_every_picture_is_another_one():
    sets = [*samples.shapes(60, 60), *samples.shapes(60, 60, seed=1)]
    sets += samples.shapes(60, 60, classes=samples.SOURCE_CLASSES)
    pictures = {image.numpy().tobytes() for part in sets for image in part.images}
    assert len(pictures) == 6 * 60


def test_a_class_looks_the_same_in_any_selection():
    alone, _ = samples.shapes(5, 1, classes=["star"])
    among, _ = samples.shapes(50, 1)
    assert torch.equal(among.images[among.labels == samples.TARGET_CLASSES.index("star")], alone.images)


@pytest.mark.parametrize("name", EVERY)
def test_a_thing_fits_its_circle_and_fills_a_fair_part_of_it(name):
    steps = (np.arange(-60, 60) + 0.5) / 50
    x, y = np.broadcast_arrays(steps[None, None, :], steps[None, :, None])
    for v in (0.0, 0.5, 1.0):
        edge, part = drawing.THINGS[drawing.NAMES.index(name)](x, y, np.full((1, 1, 1), v))
        inside = edge < 0
        assert 0.1 < inside.mean() * 2.4**2 / np.pi < 0.9
        assert np.sqrt(x * x + y * y)[inside].max() < 1.35  # the corners of a house reach a little beyond
        slope = np.abs(np.diff(edge, axis=2)).max() / (steps[1] - steps[0])
        assert slope < 1.6 or name in ("cup", "mushroom", "fish")  # a distance; ellipses have a rough one
        assert part.shape == edge.shape


def test_distances_are_those_of_geometry():
    x, y = np.random.default_rng(0).uniform(-2, 2, (2, 1, 500, 1))
    square = drawing.polygon(x, y, (-0.5, -0.25), (0.5, -0.25), (0.5, 0.25), (-0.5, 0.25))
    np.testing.assert_allclose(square, drawing.box(x, y, -0.5, 0.5, -0.25, 0.25), atol=1e-12)
    corners = [(np.cos(angle), np.sin(angle)) for angle in np.arange(0, 2 * np.pi, 2 * np.pi / 2000)]
    np.testing.assert_allclose(drawing.polygon(x, y, *corners), drawing.disc(x, y, (0, 0), 1), atol=1e-5)


def test_turning_covers_the_right_half_of_the_circle():
    cos, sin = drawing.turn(np.linspace(-1, 1, 101))
    np.testing.assert_allclose(cos**2 + sin**2, 1)
    np.testing.assert_allclose([cos[0], sin[0], cos[-1], sin[-1]], [0, -1, 0, 1], atol=1e-15)


@pytest.mark.parametrize("classes", [samples.TARGET_CLASSES, samples.SOURCE_CLASSES])
def test_a_linear_model_on_pixels_stays_below_half(classes):
    train, test = samples.shapes(3000, 1000, classes=classes)
    scaler = StandardScaler().fit(train.images.flatten(1))
    model = LogisticRegression(C=1e-4, max_iter=200).fit(scaler.transform(train.images.flatten(1)), train.labels)
    accuracy = model.score(scaler.transform(test.images.flatten(1)), test.labels)
    assert 0.13 < accuracy < 0.5  # chance is 0.1 ± 0.01; a small ResNet-18 run reaches above 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["star", "dragon"]}, "'dragon' is unknown.*Choose from arrow, cup"),
        ({"classes": ["star", "star"]}, "occurs twice"),
        ({"test": 0}, "at least 1 image; got 3000 and 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        samples.shapes(**arguments)
