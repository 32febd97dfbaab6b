"""Decks begin with title and agenda and end with the next lecture; what is no lesson stays off their slides."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from common import NOTEBOOKS
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "publishing"))
decks = pytest.importorskip("decks")
SECTION = decks.Section


def cell(source: str, kind: str = "slide", **metadata):
    return new_markdown_cell(source, metadata={"slideshow": {"slide_type": kind}, **metadata})


def code(source: str, *tags: str, output: str = ""):
    outputs = [new_output("stream", text=output)] if output else []
    return new_code_cell(source, outputs=outputs, metadata={"tags": [*tags], "slideshow": {"slide_type": "-"}})


@pytest.fixture
def pages(tmp_path) -> list[str]:
    """The decks of two small lectures."""
    drawn = new_code_cell(
        "draw()", outputs=[new_output("display_data", {"image/svg+xml": "<svg><desc>net</desc></svg>"})]
    )
    first = [
        cell("# Lecture 1: One\n\nGoals.", speaker_notes="Say hello."),
        *[drawn, cell("## Data"), cell("### Bytes", "subslide"), code("assert True", "assert", output="checked")],
        *[code("secret = 1", "solution"), cell("## Settings", "skip"), cell("## Training", minutes=30)],
        code("\n".join(f"x{i} = {i}" for i in range(40)), output="done"),
    ]
    for name, cells in {"1_one": first, "2_two": [cell("# Lecture 2: Two"), cell("## Data")]}.items():
        nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    return [decks.deck(path) for path in sorted(tmp_path.glob("*.ipynb"))]


def slides(page: str) -> list[str]:
    """What stands on each slide, from its <section> that holds no other."""
    return re.findall(r"<section\s*>((?:(?!<section).)*?)</section>", page, re.DOTALL)


def test_a_deck_has_title_agenda_and_end(pages):
    first, last = map(slides, pages)
    assert "Lecture 1: One" in first[0] and "<desc>net</desc>" in first[0]
    rows = re.findall(r'<a href="(#/\d+)">(\w+)</a></td>\s*<td[^>]*>(\d+)', first[1])
    assert rows == [("#/3", "Data", "15"), ("#/4", "Training", "30")]  # columns: title, agenda, goals, data, training
    assert "Next: Lecture 2: Two" in first[-1] and "The end of the series" in last[-1]
    assert len(first) == 7 and pages[0].count("<h1") == 1


def test_what_is_no_lesson_stays_off_and_notes_are_notes(pages):
    for word in ("assert", "checked", "secret", "Settings"):
        assert word not in "".join(slides(pages[0]))
    assert re.search(r'<aside class="notes">.*Say hello', pages[0], re.DOTALL)
    assert 'src="http' not in pages[0] and pages[0].count('<div class="long-code">') == 1


def test_minutes_are_whole_at_least_one_and_add_up():
    parts = [SECTION(str(i), slides, None, 0) for i, slides in enumerate([1, 2, 30, 0, 7])]
    assert sum(decks.minutes(parts)) == 45 and min(decks.minutes(parts)) == 1
    assert decks.minutes(parts)[2] == max(decks.minutes(parts))
    named = [*parts, SECTION("own", 3, 10, 0)]
    assert decks.minutes(named)[-1] == 10 and sum(decks.minutes(named)) == 45
    assert decks.minutes([SECTION("own", 3, 10, 0)]) == [10]


def test_every_lecture_has_its_question_and_its_title():
    questions = decks.questions((ROOT / "README.md").read_text(encoding="utf-8"))
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, 4)
        assert questions[path.name].endswith("?") and decks.heading(notebook).startswith(f"Lecture {path.name[:2]}: ")
        assert decks.sections(notebook.cells)


def test_alternative_text_reaches_the_slides(tmp_path):
    figure = new_output("display_data", {"image/png": "AAAA"}, metadata={"image/png": {"alt": "What is drawn."}})
    notebook = new_notebook(cells=[cell("# One"), new_code_cell("draw()", outputs=[figure])])
    nbformat.write(notebook, tmp_path / "1.ipynb")
    assert 'alt="What is drawn."' in decks.deck(tmp_path / "1.ipynb")
