"""Player and sliding convolution in a real browser: slider, keys and buttons move them, the numbers are PyTorch's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.pages.player import confusion_drawings, player, sliding_convolution

from .conftest import CHROMIUM, playwright

LABELS = [f"epoch {i}" for i in range(4)]
IMAGE, KERNEL = torch.randn(1, 28, 28, generator=torch.manual_seed(0)), torch.randn(1, 5, 5)


@pytest.fixture
def page(tmp_path):
    """Two players and a sliding convolution on one page, without scripts allowed to reach out or to complain."""
    pixels = [np.full((4, 4), 60 * i, np.uint8) for i in range(4)]
    drawings = confusion_drawings([torch.tensor([[i, 2], [3, 4]]) for i in range(4)], ["a", "b"])
    parts = [player(pixels, LABELS, "Grey"), player(drawings, LABELS, "Counts"), sliding_convolution(IMAGE, KERNEL)]
    content = "<!doctype html><meta charset=utf-8>" + "".join(part.data for part in parts)
    (tmp_path / "player.html").write_text(content, encoding="utf-8")
    with playwright.sync_playwright() as engine:
        page, complaints = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
        page.goto((tmp_path / "player.html").as_uri())
        yield page
        assert complaints == []


def shown(page, which: int) -> tuple[list[int], str]:
    """The frames that can be seen of a player, and its label."""
    one = page.locator(".player").nth(which)
    visible = one.locator(".frame").evaluate_all("all => all.flatMap((f, i) => f.checkVisibility() ? [i] : [])")
    return visible, one.locator("output").inner_text()


def test_slider_keys_and_buttons_move_one_player_and_not_the_other(page):
    assert shown(page, 0) == ([0], "epoch 0")
    page.locator("input").first.fill("2")
    assert shown(page, 0) == ([2], "epoch 2")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert shown(page, 0) == ([3], "epoch 3")
    assert page.locator("input").first.get_attribute("aria-valuetext") == "epoch 3"
    page.locator(".back").first.press("Enter")
    page.locator(".back").first.press("ArrowLeft")
    assert shown(page, 0) == ([1], "epoch 1") and shown(page, 1) == ([0], "epoch 0")


def test_play_runs_to_the_end_and_pauses(page):
    page.locator(".play").nth(1).click()
    page.wait_for_function("document.querySelectorAll('.player')[1].querySelector('output').textContent === 'epoch 2'")
    page.locator(".play").nth(1).click()
    assert page.locator(".play").nth(1).inner_text() == "Play" and shown(page, 1) == ([2], "epoch 2")
    page.locator(".play").nth(1).click()
    page.wait_for_function("document.querySelectorAll('.play')[1].textContent === 'Play'")
    assert shown(page, 1) == ([3], "epoch 3")


def test_the_sliding_convolution_shows_the_numbers_of_conv2d(page):
    expected = F.conv2d(IMAGE[None], KERNEL[None])[0, 0]  # (24, 24)
    number, slider = page.locator(".sum b"), page.locator("input").nth(2)
    for row, column in [(0, 0), (0, 23), (7, 11), (23, 0), (23, 23)]:
        slider.fill(str(24 * row + column))
        assert page.locator("output").nth(2).inner_text() == f"row {row + 1}, column {column + 1}"
        assert abs(float(number.inner_text()) - expected[row, column].item()) < 1e-3
    patch = page.locator(".patch span").all_inner_texts()
    np.testing.assert_allclose([float(z) for z in patch], IMAGE[0, 23:, 23:].flatten(), atol=0.006)
    slider.press("ArrowUp")
    assert abs(float(number.inner_text()) - expected[22, 23].item()) < 1e-3


def test_a_click_on_either_map_moves_it(page):
    for css, side, pixel in [(".out", 24, (5, 9)), (".in", 28, (7, 11))]:  # the middle of the patch at 5, 9
        page.locator("input").nth(2).fill("0")
        box = page.locator(css).bounding_box()
        down, right = ((p + 0.5) / side * box["width"] for p in pixel)
        page.mouse.click(box["x"] + right, box["y"] + down)
        assert page.locator("output").nth(2).inner_text() == "row 6, column 10"


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
