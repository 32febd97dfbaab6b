"""The web book of `make site`, page by page in a real browser: complete, legible, accessible, in light and in dark."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from .conftest import CHROMIUM, playwright

try:
    from axe_playwright_python.sync_playwright import Axe
except ImportError:
    Axe = None

SITE = Path(__file__).parents[2] / "build" / "site"
PAGES = sorted(set(SITE.rglob("*.html")) - set(SITE.glob("_static/**/*")))
LINKS = """[...document.querySelectorAll('a[href], link[href], [src]')]
  .map(tag => tag.getAttribute('href') ?? tag.getAttribute('src'))"""
WORDLESS = """[...document.querySelectorAll('img, svg[role=img]:not([aria-hidden])')]
  .filter(tag => !(tag.alt ?? tag.querySelector('title')?.textContent)?.trim())
  .map(tag => tag.outerHTML.slice(0, 200))"""
pytestmark = pytest.mark.skipif(not PAGES, reason="no web book: run make site first")


@pytest.fixture(scope="module")
def page():
    """A page of a browser; what it complains of, or asks for from elsewhere, is kept in `complaints`."""
    with playwright.sync_playwright() as engine:
        page = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.complaints = []
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else page.complaints.append(r.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("console", lambda message: page.complaints.append(message.text) if message.type == "error" else None)
        yield page


@cache
def anchors(path: Path) -> set[str]:
    return {*re.findall(r'\sid="([^"]+)"', path.read_text(encoding="utf-8"))}


def leads_somewhere(path: Path, link: str) -> bool:
    name, anchor = urldefrag(unquote(link))
    target = (path.parent / name.partition("?")[0]).resolve() if name else path
    return target.is_file() and (not anchor or anchor in anchors(target))


def findings(page, rules: dict) -> list[str]:
    """What axe-core finds that keeps people out. Code is left aside: its colours are those of accessible-pygments."""
    options = {"resultTypes": ["violations"], "preload": False, **rules}
    found = Axe().run(page, {"include": [["body"]], "exclude": [[".highlight pre"]]}, options).response["violations"]
    hard = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html'][:100]} {node['failureSummary']}" for one in hard for node in one["nodes"]]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_a_page_is_whole_and_keeps_nobody_out(page, path):
    page.complaints.clear()
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(path.as_uri())
    inner = [link for link in page.evaluate(LINKS) if not link.startswith(("http:", "https:", "data:"))]
    assert [link for link in inner if not leads_somewhere(path, link)] == []
    assert page.evaluate(WORDLESS) == []
    light = findings(page, {}) if Axe else []
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("html").get_attribute("data-theme") == "dark"
    dark = findings(page, {"runOnly": ["color-contrast"]}) if Axe else []
    assert light + dark + page.complaints == []
    if Axe is None:
        pytest.skip("all but accessibility is tried: that needs axe-playwright-python (pip install)")


def test_the_search_finds_a_lecture(page):
    page.goto((SITE / "search.html").as_uri() + "?q=shortcut")
    assert page.locator("#search-results a[href*='39_resnet18']").first.is_visible()
