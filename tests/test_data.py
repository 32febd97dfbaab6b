import math

import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2

from helpers.data import Batches, ImageSet, RandomAffine, RandomFlip


class OneByOne(Dataset):
    """The 2018 way: PIL image after PIL image, resized and made a tensor."""

    def __init__(self, image_set):
        self.image_set = image_set
        self.transform = transforms.Compose([transforms.Resize(32), transforms.ToTensor()])

    def __len__(self):
        return len(self.image_set)

    def __getitem__(self, index):
        image = self.image_set.images[index].permute(1, 2, 0).squeeze(-1).numpy()
        return self.transform(Image.fromarray(image)), self.image_set.labels[index]


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 48)])
def test_a_batch_equals_the_per_image_pipeline(channels, size):
    images = torch.randint(0, 256, (23, channels, size, size), dtype=torch.uint8)
    image_set = ImageSet(images, torch.arange(23) % 10, list("0123456789"), "noise", "torch.randint")
    ours = Batches(image_set, 10, v2.Compose([v2.Resize(32), v2.ToDtype(torch.float32, scale=True)]))
    once = Batches(image_set.resized(32), 10, v2.ToDtype(torch.float32, scale=True))
    theirs = DataLoader(OneByOne(image_set), batch_size=10)
    assert len(ours) == len(once) == len(theirs) == 3
    for (x, y), (same_x, _), (expected_x, expected_y) in zip(ours, once, theirs, strict=True):
        assert torch.equal(x, same_x)
        assert x.shape == expected_x.shape and x.dtype == expected_x.dtype
        assert (x - expected_x).abs().max() <= 1.01 / 255  # both round to 8 bits after resizing
        assert torch.equal(y, expected_y)


def test_shuffled_batches_hold_every_image_once_in_a_new_order(noise_set):
    batches = Batches(noise_set, 10, lambda images: images.float(), shuffle=True)
    passes = [torch.cat([x for x, _ in batches]) for _ in range(2)]
    assert not torch.equal(passes[0], passes[1])
    for images in passes:
        assert torch.equal(images.sum((1, 2, 3)).sort().values, noise_set.images.float().sum((1, 2, 3)).sort().values)


def test_labels_stay_with_their_images(noise_set):
    label_of = {image.numpy().tobytes(): label for image, label in zip(noise_set.images, noise_set.labels, strict=True)}
    for images, labels in Batches(noise_set, 7, lambda images: images, shuffle=True):
        assert [label_of[image.numpy().tobytes()] for image in images] == list(labels)


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


def test_affine_without_range_changes_nothing():
    images = torch.rand(4, 3, 17, 17)
    assert torch.allclose(RandomAffine(0, 0, 0)(images), images, atol=1e-5)


def test_affine_draws_for_each_image():
    image = torch.rand(1, 1, 32, 32)
    moved = RandomAffine(10, 0.1, 2)(image.expand(2, 1, 32, 32))
    assert not torch.allclose(moved[0], moved[1])


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    torch.manual_seed(0)
    images = torch.rand(400, 3, 5, 7)
    flipped = RandomFlip()(images)
    mirrored = [torch.equal(new, tvf.horizontal_flip(old)) for new, old in zip(flipped, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 150 < sum(mirrored) < 250


def change(image_set, **parts):
    fields = {"images": image_set.images, "labels": image_set.labels, "classes": image_set.classes}
    return ImageSet(**{**fields, **parts}, name="noise", source="")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"images": torch.zeros(25, 32, 32, dtype=torch.uint8)}, r"\(N, C, H, W\); got torch.uint8 of shape \(25"),
        ({"images": torch.zeros(25, 1, 32, 32)}, "must be torch.uint8.*got torch.float32"),
        ({"images": torch.zeros(0, 1, 32, 32, dtype=torch.uint8)}, "the set is empty"),
        ({"labels": torch.full((25,), 10)}, "label 10 is out of range.*from 0 to 9"),
        ({"labels": torch.full((25,), -100)}, "label -100 is out of range"),
        ({"labels": torch.zeros(24, dtype=torch.int64)}, r"shape \(25,\); got torch.int64 of shape \(24,\)"),
        ({"labels": torch.zeros(25)}, "must be torch.int64"),
    ],
)
def test_bad_sets_are_refused_in_one_line(noise_set, parts, message):
    with pytest.raises(ValueError, match=message) as error:
        change(noise_set, **parts)
    assert str(error.value).startswith("noise: ") and "\n" not in str(error.value)


def test_bad_batch_size(noise_set):
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        Batches(noise_set, 0, lambda images: images)


def test_only_some_classes_in_the_order_given():
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1)
    animals = ImageSet(images, torch.tensor([2, 0, 1, 2, 0, 1]), ["ant", "bee", "cat"], "animals", "a list")
    part = animals.only(["cat", "ant"])
    assert part.images.flatten().tolist() == [0, 1, 3, 4] and part.labels.tolist() == [0, 1, 0, 1]
    assert part.classes == ["cat", "ant"] and part.name == "animals, 2 of 3 classes"
    with pytest.raises(ValueError, match=r"animals has no class 'dog'\. Its classes: ant, bee, cat\."):
        animals.only(["dog"])
