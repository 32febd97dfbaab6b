"""Pages of nbconvert are finished: formulas become MathML, nothing is loaded from elsewhere, code stays as it is.

And lectures are run for `make lectures`: pages with contents and folded solutions, a cell that fails is shown.
"""

import subprocess
import sys
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PUBLISHING = Path(__file__).parents[1] / "publishing"
sys.path.insert(0, str(PUBLISHING))
import finish  # noqa: E402
import lectures  # noqa: E402


def test_formulas_become_mathml_and_code_stays():
    page = "<p>for $a &lt; b$ and $$y = x^2$$</p><pre>costs $5 or $6$</pre><p>it costs $5</p>"
    done = finish.finish(page)
    assert done.count("<math") == 2 and "<mo>&lt;</mo>" in done.replace("&#x0003C;", "&lt;") and "<msup>" in done
    assert "<pre>costs $5 or $6$</pre>" in done and 'display="block"' in done


def test_nothing_is_loaded_from_elsewhere():
    page = '<script src="https://cdn.example/require.js"></script><script>let a = "$x$"</script>'
    page += "<script type=\"module\">\n  import mermaid from 'https://cdn.example/m.mjs';\n</script><p>text</p>"
    assert finish.finish(page) == '<script>let a = "$x$"</script><p>text</p>'


def test_the_index_leads_to_every_deck(tmp_path):
    deck = tmp_path / "29.slides.html"
    deck.write_text('<h1 id="x">Lecture 29: LeNet<a class="anchor-link" href="#x">¶</a></h1>', encoding="utf-8")
    assert '<a href="29.slides.html">Lecture 29: LeNet</a>' in finish.index([deck])


def test_a_page_has_contents_and_words_for_its_figures_and_folds_what_is_not_read_first():
    figure = new_output(
        "display_data", {"image/png": "iVBORw0KGgo="}, metadata={"image/png": {"alt": 'curves "a" & b'}}
    )
    cells = [new_markdown_cell("# Title"), new_markdown_cell("## Part $x$"), new_markdown_cell("### Piece")]
    tagged = {"plain": [], "plotting": ["hide-input"], "solved": ["solution"], "asserted": ["assert", "hide-cell"]}
    cells += [new_code_cell(name, metadata={"tags": tags}, outputs=[figure]) for name, tags in tagged.items()]
    page = BeautifulSoup(lectures.page(new_notebook(cells=cells), "name"), "html.parser")
    links = page.select("nav.contents a")
    assert [link.text for link in links] == ["Part x", "Piece"] and links[0].math is not None
    assert all(page.find(id=link["href"][1:]).name in ("h2", "h3") for link in links)
    assert [image["alt"] for image in page.select("img")] == ['curves "a" & b'] * 3
    folded = [fold.text.split() for fold in page.select("main details")]
    assert folded == [["Code", "plotting"], ["Solution", "solved"]] and "asserted" not in page.text
    assert [len(fold.select("img")) for fold in page.select("main details")] == [0, 1]
    assert page.select("script[src], link[href]") == []


def test_a_cell_that_fails_is_shown_and_nothing_is_written(tmp_path):
    cells = [new_markdown_cell("# Title"), new_code_cell("x = 6"), new_code_cell("x / 0  # here")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "99_fails.ipynb")
    command = [sys.executable, PUBLISHING / "lectures.py", tmp_path / "99_fails.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "99_fails (1 of 1) failed" in done.stdout
    assert "x / 0  # here" in done.stderr and "ZeroDivisionError" in done.stderr
    assert not list(lectures.FOLDER.glob("99_fails*"))
