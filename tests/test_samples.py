"""The sample data: real digits and drawn shapes, hard enough, and named for what they are."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from helpers.data import digits, shapes


def test_digits_have_mnists_format_and_are_the_source_images_in_order():
    train, test = digits()
    assert train.images.shape == (1297, 1, 28, 28) and test.images.shape == (500, 1, 28, 28)
    assert train.images.max() == 255 and train.images.min() == 0
    assert all(part.labels.bincount(minlength=10).min() >= 40 and "not MNIST" in part.name for part in (train, test))
    every = torch.cat([train.images, test.images])
    small = torch.nn.functional.avg_pool2d(every[..., 4:24, 4:24].float(), 5)
    source = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1)
    means = torch.nn.functional.avg_pool2d(source, 2) * 255 / 16  # both now 4×4
    assert (small - means).abs().mean() < 8  # of 255: enlarging keeps local means up to overshoot and clamping
    assert torch.equal(torch.cat([train.labels, test.labels]), torch.tensor(load_digits().target))
    every[..., 4:24, 4:24] = 0
    assert every.max() == 0  # the border


def test_shapes_have_cifars_format_and_say_what_they_are():
    train, test = shapes(train=23, test=11)
    assert train.images.shape == (23, 3, 32, 32) and train.images.dtype == torch.uint8 and len(test) == 11
    assert train.images.is_contiguous() and len(set(train.classes)) == 10
    assert train.labels.tolist() == [i % 10 for i in range(23)]  # classes in turn, so any first part is balanced
    assert "not CIFAR-10" in train.name and "sample" in test.name and "seed 0" in train.source


def test_the_same_seed_gives_the_same_pictures_and_no_two_are_alike():
    sets = [*shapes(60, 60), *shapes(60, 60, seed=1)]
    assert len({image.numpy().tobytes() for part in sets for image in part.images}) == 4 * 60
    np.random.seed(1)  # the drawing has random numbers of its own
    assert all(torch.equal(one.images, other.images) for one, other in zip(sets, shapes(60, 60), strict=False))


def test_a_linear_model_on_pixels_stays_below_half():
    train, test = shapes(700, 400)
    model = RidgeClassifier(alpha=1e4).fit(train.images.flatten(1) / 255, train.labels)
    assert 0.1 < model.score(test.images.flatten(1) / 255, test.labels) < 0.5  # chance is 0.1 ± 0.015


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least 1 image; got 3000 and 0"):
        shapes(test=0)
