"""Pages of nbconvert are finished: formulas become MathML, nothing is loaded from elsewhere, code stays as it is."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[1] / "publishing" / "finish.py"
SPEC = importlib.util.spec_from_file_location("finish", PATH)
finish = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(finish)


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
