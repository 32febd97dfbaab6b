"""The decks of `make slides` in a real browser: complete without network, notes hidden, formulas drawn, nothing cut."""

from pathlib import Path

import pytest

from .conftest import CHROMIUM, playwright

DECKS = sorted((Path(__file__).parents[2] / "build" / "slides").glob("*.slides.html"))
# Slides that are taller than the screen, and so have to be scrolled. Rewriting the lectures may only make them fewer.
TALL = {"29": 19, "33": 21, "39": 27, "40": 15, "45": 29}  # two more than here, for other fonts
SIZES = """() => [...document.querySelectorAll('.slides section:not(.stack)')].map(slide => {
  const shown = [slide, slide.closest('.stack')].filter(Boolean), before = shown.map(one => one.style.display);
  shown.forEach(one => one.style.display = 'block');
  const size = [slide.scrollHeight - slide.clientHeight, slide.scrollWidth - slide.clientWidth,
    getComputedStyle(slide).overflowY];
  shown.forEach((one, i) => one.style.display = before[i]);
  return size;
})"""


@pytest.mark.skipif(not DECKS, reason="no decks: run make slides first")
@pytest.mark.parametrize("deck", DECKS, ids=lambda path: path.name[:2])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)], ids=["laptop", "projector"])
def test_a_deck_is_complete_and_nothing_is_cut(deck, size):
    complaints = []
    with playwright.sync_playwright() as engine:
        page = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(deck.as_uri())
        page.wait_for_selector(".reveal.ready")
        slides = page.evaluate(SIZES)
        assert complaints == []
        assert page.locator("aside.notes:visible").count() == 0
        assert page.locator("math").count() > 0 and "$$" not in page.locator(".slides").inner_text()
    assert all(wide <= 2 and overflow == "auto" for _, wide, overflow in slides)
    assert sum(tall > 2 for tall, _, _ in slides) <= TALL[deck.name[:2]]
