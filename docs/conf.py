"""The web book (make site), with Sphinx: what is special about it. Its pages are laid out by publishing/book.py.

The lectures are shown as they are stored, nothing is run; formulas become MathML; nothing is loaded from elsewhere.
"""

import json
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from myst_nb.core.render import NbElementRenderer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "notebooks"))  # for the pages of `helpers`

project = html_title = "Convolutional networks, five lectures to run"
author, copyright = "", ""
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["LICENSE"]

nb_execution_mode = "off"
nb_code_prompt_show, nb_code_prompt_hide = "Show the code", "Hide the code"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False

html_theme = "sphinx_book_theme"
templates_path, html_static_path = ["_templates"], ["_static"]
html_context = {"default_mode": "auto"}
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_math_renderer = "mathml"
html_use_index = html_domain_indices = False
html_sourcelink_suffix = ""
html_theme_options = {
    "home_page_in_toc": False,
    "show_toc_level": 2,
    "max_navbar_depth": 1,
    "use_fullscreen_button": False,
    "navigation_with_keys": False,
}

FOLDS = {"solution": ["hide-cell"], "assert": ["remove-cell"]}  # our tags, and what MyST-NB calls it


def fold(app, name: str, source: list[str]) -> None:
    """Solutions are folded, asserts that are no lesson are left out."""
    if not name.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        cell["metadata"]["tags"] = tags + [fold for tag in tags for fold in FOLDS.get(tag, [])]
        if "solution" in tags:
            cell["metadata"]["mystnb"] = {"code_prompt_show": "Solution", "code_prompt_hide": "Solution"}
    source[0] = json.dumps(notebook)


def as_rst(app, what, name, thing, options, lines: list[str]) -> None:
    """Docstrings mark code as Markdown does, and nothing else."""
    parts = "\n".join(lines).split("`")
    marked = [f"``{part}``\\ " if i % 2 else part.replace("_", "\\_") for i, part in enumerate(parts)]
    lines[:] = "".join(marked).split("\n")


def in_words(draw):
    """Images of outputs with the text that is stored beside them. An SVG stands in the page itself: it has its title
    and description, and takes the colour of the page's text."""

    def drawn(self, data) -> list[nodes.Element]:
        if data.mime_type == "image/svg+xml":
            return [nodes.raw("", data.string, format="html")]
        made = draw(self, data)
        made[0]["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
        return made

    return drawn


def inline_formula(translator, node: nodes.math) -> None:
    translator.body.append(convert(node.astext()))
    raise nodes.SkipNode


def formula(translator, node: nodes.math_block) -> None:
    translator.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app) -> None:
    NbElementRenderer.render_image = in_words(NbElementRenderer.render_image)
    app.connect("source-read", fold)
    app.connect("autodoc-process-docstring", as_rst)
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))
