"""The decks of `make slides` in a real browser: complete without network, notes hidden, all can be read and reached."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from .conftest import CHROMIUM, playwright

ROOT = Path(__file__).parents[2]
DECKS = sorted((ROOT / "build" / "slides").glob("*.slides.html"))
# Slides that are taller than the screen, and so have to be scrolled. Rewriting the lectures may only make them fewer.
TALL = {"29": 2, "33": 2, "39": 20, "40": 13, "45": 25}  # two more than here, for other fonts
# Of every slide: its heading, how far it is too tall, what is cut (larger than its box, which does not scroll), words
# smaller than 16 pixels on the screen (figures and formulas aside), numbers broken over two lines.
PROBE = """() => [...document.querySelectorAll('.slides section:not(.stack)')].map(slide => {
  const shown = [slide, slide.closest('.stack')].filter(Boolean), before = shown.map(one => one.style.display);
  shown.forEach(one => one.style.display = 'block');
  const scale = Reveal.getScale(), cut = [], small = [], broken = [], box = slide.getBoundingClientRect();
  const name = one => one.className + ' ' + one.textContent.trim().slice(0, 30);
  for (const one of slide.querySelectorAll('*:not(svg *, math, math *, aside *, .map *)')) {
    const style = getComputedStyle(one), closed = flow => ['hidden', 'clip'].includes(flow);
    if (closed(style.overflowY) && one.scrollHeight > one.clientHeight + 2) cut.push(name(one));
    if (closed(style.overflowX) && one.scrollWidth > one.clientWidth + 2) cut.push(name(one));
    const words = [...one.childNodes].filter(node => node.nodeType === 3 && node.textContent.trim());
    if (!words.length || !one.checkVisibility() || ['STYLE', 'SCRIPT'].includes(one.tagName)) continue;
    if (parseFloat(style.fontSize) * scale < 16) small.push(style.fontSize + ' ' + name(one));
    const range = document.createRange();
    range.selectNodeContents(one);
    const lines = new Set([...range.getClientRects()].map(line => Math.round(line.top)));
    const number = one.matches('td, th') && /^[\\d.,%±−\\- ]+$/.test(one.textContent.trim());
    if (number && lines.size > 1) broken.push(name(one));
  }
  const found = {heading: slide.querySelector('h1, h2, h3, h4')?.textContent || '',
    tall: slide.scrollHeight - slide.clientHeight, flow: getComputedStyle(slide).overflowY,
    outside: box.bottom > innerHeight + 2 || box.right > innerWidth + 2 || box.top < -2, cut, small, broken};
  shown.forEach((one, i) => one.style.display = before[i]);
  return found;
})"""


needs_decks = pytest.mark.skipif(not DECKS, reason="no decks: run make slides first")


def look(engine, deck: Path, size: tuple[int, int]):
    """A deck on a screen of this size, what its slides show, and what it complains of or asks for from outside."""
    page, complaints = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page(), []
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else complaints.append(r.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(deck.as_uri())
    page.wait_for_selector("html[data-fitted]")
    return page, page.evaluate(PROBE), complaints


@needs_decks
@pytest.mark.parametrize("deck", DECKS, ids=lambda path: path.name[:2])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)], ids=["laptop", "projector"])
def test_a_deck_is_complete_and_nothing_is_cut(deck, size):
    with playwright.sync_playwright() as engine:
        page, slides, complaints = look(engine, deck, size)
        assert complaints == []
        assert page.locator("aside.notes:visible").count() == 0
        assert page.locator("math").count() > 0 and "$$" not in page.locator(".slides").inner_text()
        assert page.locator(".slide-number").inner_text() == f"1 / {len(slides)}"
    headings = [slide["heading"] for slide in slides]
    assert headings[0].startswith("Lecture ") and headings[1].startswith("Agenda")
    assert headings[-1].startswith(("Next: Lecture", "The end"))
    faults = [{k: v for k, v in slide.items() if k in ("cut", "small", "broken") and v} for slide in slides]
    assert not any(faults), json.dumps([(h, f) for h, f in zip(headings, faults, strict=True) if f], indent=1)
    assert not any(slide["outside"] or slide["flow"] != "auto" for slide in slides)
    assert sum(slide["tall"] > 2 for slide in slides) <= TALL[deck.name[:2]]


@needs_decks
def test_a_wide_table_shrinks_and_long_code_scrolls(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "publishing")
    from decks import deck

    words = "a network that has learned"
    rows = ["|".join(["", words, *["98.76 ± 0.54 %"] * 7, ""]), "|---" * 8 + "|"]
    code = "\n".join(f"number_{i} = {i}" for i in range(40))
    cells = [new_markdown_cell("# Lecture 1: Wide\n\n" + "\n".join([*rows, rows[0]])), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells), tmp_path / "1.ipynb")
    (tmp_path / "1.html").write_text(deck(tmp_path / "1.ipynb"), encoding="utf-8")
    (tmp_path / "reveal").symlink_to(DECKS[0].parent / "reveal")
    with playwright.sync_playwright() as engine:
        page, slides, complaints = look(engine, tmp_path / "1.html", (1280, 720))
        page.evaluate("Reveal.slide(2)")
        size, across, down = page.evaluate("""() => {
          const table = document.querySelector('section.present table'), code = document.querySelector('.highlight');
          return [getComputedStyle(table).fontSize, table.offsetWidth, code.scrollHeight > code.clientHeight + 100];
        }""")
    assert complaints == [] and not any(slide["tall"] > 2 or slide["cut"] or slide["broken"] for slide in slides)
    assert size in ("16px", "17px", "18px", "19px") and across <= 1210 and down
