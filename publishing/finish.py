"""Make pages of nbconvert complete without network: formulas become MathML, which browsers draw by themselves.

`python finish.py page.html …` rewrites the files in place: TeX between dollars becomes <math>, the scripts that
nbconvert's pages load from elsewhere (require.js, MathJax, mermaid) go, an empty list of contents is filled. decks.py
does the same for decks, and writes an index of them.
"""

import html
import re
import sys
from pathlib import Path

from latex2mathml.converter import convert

LEFT_ALONE = re.compile(r"(<(pre|code|script|style|svg|textarea)\b.*?</\2>|<[^>]*>)", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^\s$](?:[^$\n]*[^\s$])?)\$", re.DOTALL)
FOREIGN = "|".join([
    r'<script[^>]*\bsrc="https?://[^"]*"[^>]*>\s*</script>',
    r'<script type="module">\s*import mermaid.*?</script>',
    r"<!-- Load mathjax -->.*?<!-- End of mathjax configuration -->",
])  # fmt: skip

HEADING = re.compile(r'<h([23])\b[^>]*\bid="([^"]+)"[^>]*>(.*?)<a class="anchor-link"', re.DOTALL)
CONTENTS = '<nav aria-label="Contents" class="contents"></nav>'


def with_formulas(text: str) -> str:
    """The TeX between dollars as MathML, a formula of its own line in the middle."""

    def mathml(match: re.Match) -> str:
        tex = html.unescape(match[1] or match[2])
        return convert(tex, display="block" if match[1] else "inline")

    return FORMULA.sub(mathml, text)


def with_contents(page: str) -> str:
    """The list of contents from the headings; unfolded at first where the screen has room for it beside the text."""
    lines = [f'<li class="level{n}"><a href="#{name}">{title}</a></li>' for n, name, title in HEADING.findall(page)]
    folded = f"<details><summary>Contents</summary><ul>{''.join(lines)}</ul></details>"
    script = "<script>document.querySelector('.contents details').open = innerWidth > 1240</script>"
    return page.replace(CONTENTS, CONTENTS.replace("></nav>", f">{folded}</nav>{script}"))


def finish(page: str) -> str:
    page = with_contents(re.sub(FOREIGN, "", page, flags=re.DOTALL))
    parts = LEFT_ALONE.split(page)  # text, what is left alone, its tag, text …
    return "".join(part if i % 3 == 1 else with_formulas(part) for i, part in enumerate(parts) if i % 3 != 2)


def index(decks: list[Path]) -> str:
    """A page that leads to the decks, by the first heading of each."""
    lines = []
    for deck in decks:
        heading = re.search(r"<h1[^>]*>(.*?)<a", deck.read_text(encoding="utf-8"), re.DOTALL)
        lines.append(f'<li><a href="{deck.name}">{heading[1] if heading else deck.stem}</a></li>')
    style = (
        "body{font:22px system-ui,sans-serif;max-width:40em;margin:3em auto;color-scheme:light dark}li{margin:.6em 0}"
    )
    help_ = "Arrow keys turn the slides, S opens the speaker notes, F fills the screen, Esc shows all slides."
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Lectures</title><style>{style}</style>'
    return f"{head}<h1>Convolutional networks</h1><ul>{''.join(lines)}</ul><p>{help_}</p></html>\n"


if __name__ == "__main__":
    pages = [Path(name) for name in sys.argv[1:]]
    for path in pages:
        path.write_text(finish(path.read_text(encoding="utf-8")), encoding="utf-8")
