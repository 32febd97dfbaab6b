"""Frames stand in the page in order, small and described; sheets and matrices share one scale. tests/browser plays."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from helpers.pages.player import confusion_drawings, player, sheets, sliding_convolution

LABELS = ["epoch 0", "epoch 1", "epoch 2"]


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/\w+;base64,([^\"]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) for code in found]


def frames() -> list:
    figure, axis = plt.subplots(figsize=(10, 5))
    axis.plot(range(10))
    return [np.full((4, 6), 7, np.uint8), torch.full((4, 6, 3), 0.2), figure]


def test_the_frames_stand_in_order_each_with_its_label_and_alternative_text():
    plt.close("all")  # whatever another test left open
    page = player(frames(), LABELS, "Numbers that <grow>,").data
    first, second, third = pictures(page)
    assert first.shape == (4, 6) and (first == 7).all() and (second == 51).all() and third.shape == (400, 800, 3)
    assert re.findall(r'data-label="([^"]+)"', page) == LABELS and not plt.get_fignums()
    assert re.findall(r'<img.*?alt="([^"]+)"', page) == [f"Numbers that &lt;grow&gt;, {label}" for label in LABELS]
    shown = re.sub("<script.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r'data-label="([^"]+)"', shown) == LABELS[-1:] and "<button" not in shown
    drawn = confusion_drawings([torch.eye(2, dtype=torch.int64)] * 2, ["a", "b"])
    assert "<svg" not in re.sub("<script.*?</script>", "", player(drawn, LABELS[:2], "Counts,").data, flags=re.DOTALL)


def test_pages_are_small_complete_and_each_has_a_name_of_its_own():
    one, other = player(frames(), LABELS, "Numbers").data, player(frames(), LABELS, "Numbers").data
    slides = sliding_convolution(torch.randn(1, 32, 32), torch.randn(1, 5, 5)).data
    assert len(one) < 30_000 and len(slides) < 40_000
    for page in (one, other, slides):
        assert "http" not in page.replace("http://www.w3.org/2000/svg", "") and "{{" not in page
    assert re.search(r'id="([\w-]+)"', one)[1] not in other
    with pytest.raises(ValueError):
        player(frames(), LABELS[:2], "Numbers")


def test_sheets_of_all_epochs_are_on_one_scale():
    first = torch.tensor([[[0.0, 1.0]], [[-1.0, 0.5]]])  # two kernels of 1 × 2
    small, large = sheets([first, 2 * first], columns=2)
    assert large.shape == (3, 7, 4)
    row = large[1].tolist()
    assert row[1:3] == [[40, 40, 40, 255], [255, 160, 10, 255]] and row[4] == [10, 140, 255, 255]
    assert [row[i][3] for i in (0, 3, 6)] == [0, 0, 0]  # transparent between
    np.testing.assert_allclose(row[5][:3], [147.5, 100, 25], atol=0.6)  # half of the largest
    assert small[1, 2].tolist() == row[5]


def test_confusion_matrices_show_their_counts_and_share_one_scale():
    early, late = confusion_drawings([torch.tensor([[5, 4], [16, 3]]), torch.tensor([[9, 0], [4, 15]])], ["cat", "dog"])
    assert re.findall(r">(\d+)</tspan>", early.data) == ["5", "4", "16", "3"]
    assert "20 mistakes" in early.data and "4 mistakes" in late.data
    shades = [re.findall(r'fill-opacity="([\d.]+)"', one.data) for one in (early, late)]
    assert shades == [["0.00", "0.38", "0.75", "0.00"], ["0.00", "0.38", "0.00"]]  # by the square root
