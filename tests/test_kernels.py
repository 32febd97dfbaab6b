import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from helpers import kernels

matplotlib.use("agg")


def test_snapshot_is_a_copy_of_convolutions_only(lenet):
    before = kernels.snapshot(lenet)
    assert list(before) == ["0", "3"]
    with torch.no_grad():
        lenet[0].weight += 1
    assert torch.allclose(kernels.snapshot(lenet)["0"] - before["0"], torch.ones(6, 1, 5, 5))


def test_relative_change_by_hand():
    before = {"conv": torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2), "still": torch.ones(1, 1, 1, 1)}
    after = {"conv": torch.tensor([3.0, 5.0]).reshape(1, 1, 1, 2), "still": torch.ones(1, 1, 1, 1)}
    assert kernels.relative_change(before, after) == pytest.approx({"conv": 1 / 5, "still": 0.0})


def test_tile_keeps_every_kernel_in_reading_order():
    images = torch.arange(5 * 4.0).reshape(5, 1, 2, 2)
    sheet = kernels.tile(images, columns=3)
    assert sheet.shape == (1, 7, 10)  # 2 rows and 3 columns of 2×2, with borders
    assert torch.equal(sheet[0, 1:3, 7:9], images[2, 0]) and torch.equal(sheet[0, 4:6, 4:6], images[4, 0])
    assert torch.equal(sheet[~sheet.isnan()], torch.cat([sheet[0, r, c] for r, c in reading_order()]))


def reading_order():
    for row in (1, 2):
        yield row, torch.tensor([1, 2, 4, 5, 7, 8])
    for row in (4, 5):
        yield row, torch.tensor([1, 2, 4, 5])


def drawn(figure):
    return [axis.images[0] for axis in figure.axes[:3]]


def test_all_panels_share_one_zero_centred_scale():
    before = torch.full((6, 1, 5, 5), 0.1)
    after = torch.full((6, 1, 5, 5), -0.4)
    figure = kernels.show_change(before, after, "conv1")
    assert [image.get_clim() for image in drawn(figure)] == [pytest.approx((-0.5, 0.5))] * 3
    assert [image.get_array().max() for image in drawn(figure)] == pytest.approx([0.1, -0.4, -0.5])
    plt.close(figure)


def test_figures_of_two_runs_share_a_scale_that_fits_both():
    start, little, much = (torch.full((6, 1, 5, 5), value) for value in (0.1, 0.2, -0.4))
    limit = max(kernels.largest(start, little), kernels.largest(start, much))
    for after in (little, much):
        for image in drawn(kernels.show_change(start, after, "conv1", limit=limit)):
            assert image.get_clim() == pytest.approx((-0.5, 0.5))  # the change of `much`
    plt.close("all")


def test_rgb_kernels_are_grey_at_zero():
    before = torch.zeros(64, 3, 7, 7)
    after = before.clone()
    after[0, 0] = 0.2
    image = drawn(kernels.show_change(before, after, "conv1"))[2].get_array()
    assert image.shape == (65, 65, 3)  # 8×8 kernels of 7×7 with borders
    assert image[1, 1].tolist() == [1.0, 0.5, 0.5] and image[9, 1].tolist() == [0.5, 0.5, 0.5]
    plt.close("all")


def test_channels_of_one_deeper_kernel():
    weight = nn.Conv2d(6, 16, 5).weight.detach()
    assert torch.equal(kernels.kernel_images(weight, kernel=2).squeeze(1), weight[2])
    with pytest.raises(ValueError, match="6 input channels are neither grey nor RGB: name one `kernel`"):
        kernels.kernel_images(weight)
