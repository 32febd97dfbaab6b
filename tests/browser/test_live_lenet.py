"""The live LeNet in a real browser: its numbers are PyTorch's, a stroke is answered, nothing leaves the page."""

import pytest
import torch
import torch.nn.functional as F
from benchmarks.work import LeNet

from helpers.data import digits
from helpers.pages.live import live_lenet

from .conftest import CHROMIUM, playwright

MEAN, STD = 0.1307, 0.3081


@pytest.fixture(scope="module")
def model() -> LeNet:
    torch.manual_seed(0)
    return LeNet().eval()


@pytest.fixture
def page(model, tmp_path):
    """The page at laptop size; whatever it complains of or asks for from outside is kept in `page.complaints`."""
    content = live_lenet(digits()[1], model.state_dict(), MEAN, STD).data
    assert len(content.encode()) <= 350_000
    (tmp_path / "live.html").write_text(f"<!doctype html><meta charset=utf-8>{content}", encoding="utf-8")
    with playwright.sync_playwright() as engine:
        page = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.complaints.append(request.url) if "file:" not in request.url else None)
        page.goto((tmp_path / "live.html").as_uri())
        yield page
        assert page.complaints == []


def test_the_logits_are_those_of_pytorch(model, page):
    images = (F.pad(digits()[1].images[:200].float() / 255, [2] * 4) - MEAN) / STD
    ours = "images => images.map(one => document.querySelector('.live-lenet').logits(one))"
    with torch.inference_mode():
        expected = model(images)
    torch.testing.assert_close(
        torch.tensor(page.evaluate(ours, images.flatten(1).tolist())), expected, atol=1e-4, rtol=0
    )


def test_a_stroke_is_answered_and_a_map_taken_apart(page):
    bars, pad = page.locator(".bars"), page.locator(".pad").bounding_box()
    before = bars.inner_text()
    page.mouse.move(pad["x"] + 60, pad["y"] + 50)
    page.mouse.down()
    page.mouse.move(pad["x"] + 160, pad["y"] + 180, steps=5)
    page.mouse.up()
    assert bars.inner_text() != before
    page.locator(".layers button").nth(7).click()  # a map of the second convolution
    total, after = page.locator(".sum b").all_inner_texts()
    *parts, bias = page.locator(".sum").inner_text().split(" = ")[0].replace("bias ", "").split(" + ")
    assert len(parts) == 6 and abs(sum(map(float, [*parts, bias])) - float(total)) < 0.01
    assert float(after) == max(0, float(total))


def test_it_works_by_keys_and_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    bars = page.locator(".bars")
    page.locator(".clear").press("Enter")
    before = bars.inner_text()
    page.locator(".pad").focus()
    for key in [" ", *["ArrowDown"] * 8]:
        page.keyboard.press(key)
    assert bars.inner_text() != before
