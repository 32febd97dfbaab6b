import math
from dataclasses import replace

import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from common import refused
from torchvision import transforms
from torchvision.transforms import v2

from helpers.data import Batches, ImageSet, RandomAffine, RandomCrop, RandomFlip, split


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 48)])
def test_a_batch_equals_the_per_image_pipeline(channels, size):
    images = torch.randint(0, 256, (23, channels, size, size), dtype=torch.uint8)
    image_set = ImageSet(images, torch.arange(23) % 10, list("0123456789"), "noise", "torch.randint")
    ours = Batches(image_set, 10, v2.Compose([v2.Resize(32), v2.ToDtype(torch.float32, scale=True)]))
    once = Batches(image_set.resized(32), 10, v2.ToDtype(torch.float32, scale=True))
    one_by_one = transforms.Compose([transforms.ToPILImage(), transforms.Resize(32), transforms.ToTensor()])
    assert len(ours) == len(once) == 3
    expected = torch.stack([one_by_one(image) for image in images])
    assert (torch.cat([x for x, _ in ours]) - expected).abs().max() <= 1.01 / 255  # both round to 8 bits after resizing
    assert all(torch.equal(x, same) for (x, _), (same, _) in zip(ours, once, strict=True))
    assert torch.equal(torch.cat([y for _, y in ours]), image_set.labels)


def test_shuffled_batches_hold_every_image_once_with_its_label_in_a_new_order(noise_set):
    label_of = {image.numpy().tobytes(): label for image, label in zip(noise_set.images, noise_set.labels, strict=True)}
    batches = Batches(noise_set, 7, lambda images: images, shuffle=True)
    images, labels = map(torch.cat, zip(*batches, strict=True))
    assert not torch.equal(images, torch.cat([x for x, _ in batches])) and len(images) == len(label_of) == 25
    assert {image.numpy().tobytes(): label for image, label in zip(images, labels, strict=True)} == label_of


def as_numbers(count: int) -> ImageSet:
    images = torch.arange(count, dtype=torch.int32).view(torch.uint8).reshape(count, 1, 1, 4)
    return ImageSet(images, torch.zeros(count, dtype=torch.int64), ["x"], "numbers", "torch.arange")


def numbers(part: ImageSet) -> list[int]:
    return part.images.contiguous().view(torch.int32).flatten().tolist()


@pytest.mark.parametrize("seed", [None, 0, 3])
@pytest.mark.parametrize(
    ("count", "first", "second", "taken"),
    [
        (60_000, 50_000, 5_000, (50_000, 5_000)),
        (250, 50_000, 10_000, (208, 42)),
        (250, 4_000, 250, (235, 15)),
        (10, 7, 4, (6, 4)),
        (2, 1, 50_000, (1, 1)),
        (3, 1, 1, (1, 1)),
    ],
)
def test_a_split_shares_no_image_and_shrinks_in_proportion(count, first, second, taken, seed, capsys):
    state = torch.get_rng_state()
    both = split(as_numbers(count), first, second, seed)
    assert torch.equal(torch.get_rng_state(), state)  # draws from a generator of its own
    one, other = map(numbers, both)
    assert (len(one), len(other)) == taken and not set(one) & set(other)
    assert len(set(one)) == len(one) and set(one + other) <= set(range(count))
    order = list(range(count))
    if seed is not None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    assert one == order[: taken[0]] and other == order[-taken[1] :]
    said = capsys.readouterr().out
    assert said.count("\n") == (taken != (first, second)) and (not said or f"{taken[0]:,} + {taken[1]:,}" in said)


@pytest.mark.parametrize(("count", "first", "second"), [(1, 1, 1), (5, 0, 3), (5, 3, 0), (5, -1, 3)])
def test_a_split_that_cannot_be_is_refused_with_the_number_needed(count, first, second):
    with refused(ValueError, r"at least \d"):
        split(as_numbers(count), first, second)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_keep_the_layout_that_the_set_is_stored_in(layout, shuffle):
    images = torch.randint(0, 256, (23, 3, 8, 8), dtype=torch.uint8)
    stored = ImageSet(images, torch.arange(23) % 10, list("0123456789"), "noise", "").to("cpu", layout)
    assert torch.equal(stored.images, images)
    for part in (stored, stored.subset(torch.arange(9)), stored.subset(slice(3, 9)), stored.resized(16)):
        for batch, _ in Batches(part, 4, lambda batch: batch, shuffle):
            assert batch.is_contiguous(memory_format=layout)
    assert stored.to("cpu").images.is_contiguous(memory_format=layout)  # not told otherwise


def test_affine_equals_torchvision_image_by_image():
    images = torch.rand(3, 2, 32, 32)
    torch.manual_seed(4)
    ours = RandomAffine(degrees=20, scale=0.2, shift=3)(images)
    torch.manual_seed(4)
    draws = torch.rand(4, 3) * 2 - 1
    for image, moved, (angle, zoom, right, down) in zip(images, ours, draws.T.tolist(), strict=True):
        angle, zoom = math.radians(-20 * angle), 1 + 0.2 * zoom
        # grid_sample moves the sampling points, torchvision the content: so the shift turns and grows with it
        right, down = -3 * zoom * right, -3 * zoom * down
        shift = [
            math.cos(angle) * right - math.sin(angle) * down,
            math.sin(angle) * right + math.cos(angle) * down,
        ]
        expected = tvf.affine(image, math.degrees(angle), shift, zoom, [0.0], v2.InterpolationMode.BILINEAR)
        assert torch.allclose(moved, expected, atol=1e-4)


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    torch.manual_seed(0)
    images = torch.rand(400, 3, 5, 7)
    flipped = RandomFlip()(images)
    mirrored = [torch.equal(new, tvf.horizontal_flip(old)) for new, old in zip(flipped, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def test_crop_moves_each_image_by_whole_pixels_and_mirrors_the_edges():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (200, 3, 6, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    moved, padded = RandomCrop(2)(images), tvf.pad(images, 2, padding_mode="reflect")
    windows = {(top, left): padded[:, :, top : top + 6, left : left + 8] for top in range(5) for left in range(5)}
    places = [next(at for at, w in windows.items() if torch.equal(w[i], moved[i])) for i in range(len(images))]
    assert set(places) == set(windows) and moved.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"images": torch.zeros(25, 32, 32, dtype=torch.uint8)}, r"\(N, C, H, W\); got torch.uint8 of shape \(25"),
        ({"images": torch.zeros(0, 1, 32, 32, dtype=torch.uint8)}, "the set is empty"),
        ({"labels": torch.full((25,), 10)}, "label 10 is out of range.*from 0 to 9"),
        ({"labels": torch.full((25,), -100)}, "label -100 is out of range"),
        ({"labels": torch.zeros(24, dtype=torch.int64)}, r"shape \(25,\); got torch.int64 of shape \(24,\)"),
    ],
)
def test_bad_sets_are_refused_in_one_line(noise_set, parts, message):
    with refused(ValueError, f"^noise: .*{message}"):
        replace(noise_set, **parts)


def test_bad_batch_size(noise_set):
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        Batches(noise_set, 0, lambda images: images)
