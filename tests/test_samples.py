import torch
from sklearn.datasets import load_digits

from helpers import samples


def test_digits_have_mnists_format():
    train_set, test_set = samples.digits()
    assert train_set.images.shape == (1297, 1, 28, 28) and test_set.images.shape == (500, 1, 28, 28)
    assert train_set.images.dtype == torch.uint8 and train_set.images.max() == 255 and train_set.images.min() == 0
    for image_set in (train_set, test_set):
        assert image_set.labels.bincount(minlength=10).min() >= 40  # every digit is well represented
        assert "sample" in image_set.name and "not MNIST" in image_set.name
        border = image_set.images.clone()
        border[:, :, 4:24, 4:24] = 0
        assert border.max() == 0


def test_digits_are_the_source_images_in_order():
    train_set, test_set = samples.digits()
    small = torch.nn.functional.avg_pool2d(torch.cat([train_set.images, test_set.images])[..., 4:24, 4:24].float(), 5)
    source = torch.tensor(load_digits().images, dtype=torch.float32).unsqueeze(1)
    means = torch.nn.functional.avg_pool2d(source, 2) * 255 / 16  # both now 4×4
    assert (small - means).abs().mean() < 8  # of 255: enlarging keeps local means up to overshoot and clamping
    assert torch.equal(torch.cat([train_set.labels, test_set.labels]), torch.tensor(load_digits().target))
