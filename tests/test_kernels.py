import matplotlib.pyplot as plt
import pytest
import torch

from helpers import kernels

plt.switch_backend("agg")


def test_snapshot_is_a_copy_of_convolutions_only(lenet):
    before = kernels.snapshot(lenet)
    assert list(before) == ["0", "3"]
    with torch.no_grad():
        lenet[0].weight += 1
    assert torch.allclose(kernels.snapshot(lenet)["0"] - before["0"], torch.ones(6, 1, 5, 5))


def test_relative_change_by_hand():
    before = {"conv": torch.tensor([3.0, 4.0]), "still": torch.ones(1)}
    after = {"conv": torch.tensor([3.0, 5.0]), "still": torch.ones(1)}
    assert kernels.relative_change(before, after) == pytest.approx({"conv": 1 / 5, "still": 0.0})


def test_every_kernel_is_drawn_in_reading_order():
    images = torch.arange(5 * 4.0).reshape(5, 1, 2, 2)
    sheet = kernels.draw_kernels(plt.subplots()[1], images, limit=20, columns=3).get_array()
    assert sheet.shape == (7, 10)  # 2 rows and 3 columns of 2×2, with borders
    for (image,), (top, left) in zip(images, [(1, 1), (1, 4), (1, 7), (4, 1), (4, 4)], strict=True):
        assert sheet[top : top + 2, left : left + 2].tolist() == image.tolist()
    assert sheet.count() == images.numel()  # the others are NaN


def test_panels_and_figures_share_a_zero_centred_scale_that_fits_all():
    start, little, much = (torch.full((6, 1, 5, 5), value) for value in (0.1, 0.2, -0.4))
    limit = max(kernels.colour_limit(start, little), kernels.colour_limit(start, much))
    for figure in (kernels.show_change(start, much, "conv1"), kernels.show_change(start, little, "conv1", limit=limit)):
        drawn = [axis.images[0] for axis in figure.axes[:3]]
        assert [image.get_clim() for image in drawn] == [pytest.approx((-0.5, 0.5))] * 3  # the change of `much`
    assert [image.get_array().max() for image in drawn] == pytest.approx([0.1, 0.2, 0.1])


def test_rgb_kernels_are_grey_at_zero():
    before, after = torch.zeros(2, 64, 3, 7, 7)
    after[0, 0] = 0.2
    image = kernels.show_change(before, after, "conv1").axes[2].images[0].get_array()
    assert image.shape == (65, 65, 3)  # 8×8 kernels of 7×7 with borders
    assert image[1, 1].tolist() == [1.0, 0.5, 0.5] and image[9, 1].tolist() == [0.5, 0.5, 0.5]


def test_channels_of_one_deeper_kernel():
    weight = torch.rand(16, 6, 5, 5)
    assert torch.equal(kernels.kernel_images(weight, kernel=2).squeeze(1), weight[2])
    with pytest.raises(ValueError, match=r"6 input channels.*name one `kernel`"):
        kernels.kernel_images(weight)
