"""A reveal.js deck of each lecture, with title, agenda and end, complete without network once reveal.js lies beside it.

`python publishing/decks.py build/slides notebooks/*.ipynb` writes the decks and an index. The minutes of the agenda: a
heading's cell may name its own in its metadata (`"minutes": 6`); the others share the rest of 45 by their slides.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
from finish import finish, index
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
MINUTES = 45
OFF_SLIDES = {"assert", "solution", "exercise-check", "hide-cell"}  # cells with one of these tags
SETTINGS = Config(
    SlidesExporter={"reveal_url_prefix": "reveal", "reveal_theme": "white"},
    TagRemovePreprocessor={"enabled": True, "remove_input_tags": {"hide-input"}},
    TemplateExporter={"extra_template_basedirs": [str(Path(__file__).parent)]},
)


class Section(NamedTuple):
    """What stands under a heading of the second level. `at` is its place among the deck's columns."""

    title: str
    slides: int
    minutes: int | None
    at: int


def slide_type(cell: NotebookNode) -> str:
    """Where a cell stands; an answer waits for a key, with all that follows on its slide: the room predicts first."""
    tags, kind = {*cell.metadata.get("tags", [])}, cell.metadata.get("slideshow", {}).get("slide_type", "-")
    if OFF_SLIDES & tags:
        return "skip"
    return "fragment" if kind == "-" and "answer" in tags else kind


def sections(cells: list[NotebookNode]) -> list[Section]:
    """The sections that are on slides, for a deck that begins with title and agenda."""
    found, column = [], 1
    for cell in cells:
        kind = slide_type(cell)
        column += kind == "slide"
        heading = re.search(r"^## (.+)", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if heading and kind != "skip":
            found.append(Section(heading[1], 0, cell.metadata.get("minutes"), column))
        if found and kind in ("slide", "subslide"):
            found[-1] = found[-1]._replace(slides=found[-1].slides + 1)
    return found


def minutes(parts: list[Section], total: int = MINUTES) -> list[int]:
    """Whole minutes of each section: its own, else a share of the rest by its slides, at least one."""
    shared = [part for part in parts if part.minutes is None]
    rest = max(total - sum(part.minutes or 0 for part in parts), len(shared))
    shares = [rest * part.slides / max(1, sum(one.slides for one in shared)) for part in shared]
    whole = [max(1, round(share)) for share in shares]
    while shared and (missing := rest - sum(whole)):
        step = 1 if missing > 0 else -1
        free = [i for i in range(len(whole)) if whole[i] + step >= 1]
        whole[max(free, key=lambda i: step * (shares[i] - whole[i]))] += step
    return [part.minutes or whole.pop(0) for part in parts]


def heading(notebook: NotebookNode) -> str:
    """Such as "Lecture 29: LeNet on MNIST"."""
    return re.search(r"^# (.+)", notebook.cells[0].source, re.MULTILINE)[1]


def questions(readme: str) -> dict[str, str]:
    """The question of each lecture, by its file, from the table of the README."""
    rows = re.findall(r"\]\(notebooks/(\S+\.ipynb)\) \| [^|]+ \| ([^|]+) \|", readme)
    return {name: question[0].upper() + question[1:] for name, question in rows}


def slide(source: str) -> NotebookNode:
    return new_markdown_cell(source, metadata={"slideshow": {"slide_type": "slide"}})


def title_slide(notebook: NotebookNode, question: str) -> list[NotebookNode]:
    """Title, one line, and the first drawing of the notebook, which is its network."""
    drawings = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/svg+xml" in output.get("data", {})
    ]
    text = slide(f'# {heading(notebook)}\n\n<p class="line">{question}</p>')
    drawn = [new_output("display_data", data) for data in drawings[:1]]
    return [text, *(new_code_cell(outputs=[one], metadata={"tags": ["hide-input"]}) for one in drawn)]


def agenda(parts: list[Section]) -> NotebookNode:
    rows = [f"| [{part.title}](#/{part.at}) | {count} |" for part, count in zip(parts, minutes(parts), strict=True)]
    return slide("\n".join(['## Agenda <i class="agenda"></i>', "", "| | minutes |", "|:--|--:|", *rows]))


def end_slide(following: Path | None, line: dict[str, str]) -> NotebookNode:
    title, question = "The end of the series", ""
    if following is not None:
        title, question = f"Next: {heading(nbformat.read(following, 4))}", line.get(following.name, "")
    exercises = "Exercises with hints and checks stand at the end of the notebook."
    return slide(f'## {title}\n\n<p class="line">{question}</p>\n\n{exercises}')


def framed(notebook: NotebookNode, path: Path) -> NotebookNode:
    """The notebook with title, agenda and end; cells that belong on no slide are marked so."""
    lectures, line = sorted(path.parent.glob("*.ipynb")), questions((ROOT / "README.md").read_text(encoding="utf-8"))
    later = [each for each in lectures if each.name > path.name]
    opening = [*title_slide(notebook, line.get(path.name, "")), agenda(sections(notebook.cells))]
    notebook.metadata.title = heading(notebook)
    for cell in notebook.cells:
        cell.metadata["slideshow"] = {"slide_type": slide_type(cell)}
    first = notebook.cells[0]
    first.metadata["slideshow"] = {"slide_type": "slide"}
    first.source = re.sub("^# .+", "## In this lecture", first.source, count=1, flags=re.MULTILINE)
    notebook.cells = [*opening, *notebook.cells, end_slide(later[0] if later else None, line)]
    return notebook


def deck(path: Path) -> str:
    exporter = SlidesExporter(config=SETTINGS, template_name="slides")
    page, _ = exporter.from_notebook_node(framed(nbformat.read(path, 4), path))
    return finish(page)


if __name__ == "__main__":
    folder, *paths = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / f"{path.stem}.slides.html").write_text(deck(path.resolve()), encoding="utf-8")
    (folder / "index.html").write_text(index(sorted(folder.glob("*.slides.html"))), encoding="utf-8")
