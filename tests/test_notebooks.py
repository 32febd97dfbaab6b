"""What every lecture must look like as a file. What it computes is checked by running it (nbval)."""

import json
import re
import sys

import nbformat
import pytest
from common import FOLDER, NOTEBOOKS

from helpers import results

sys.path.append(str(FOLDER.parent / "publishing"))
import scoreboard

RETOLD = {"29", "33"}  # told as a story, with a shape of its own; the other lectures follow


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def headings(notebook):
    return re.findall(r"^(##? .+)$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M)


def test_one_title_and_the_sections_of_every_lecture(path, notebook):
    found = headings(notebook)
    assert [heading[:2] for heading in found].count("# ") == 1 and found[0].startswith("# ")
    sections = ["## Settings", "## Summary", "## Exercises"]
    if path.stem[:2] not in RETOLD:
        sections[1:1] = ["## Data", "## Architecture", "## Complexity", "## Training", "## Results"]
        sections[-2:-2] = ["## What the kernels learned"]
    assert [heading for heading in found if heading in sections] == sections


def test_a_retold_lecture_is_short(path, notebook):
    """At most 30 slides with agenda and end, 110 cells, 3,500 words, 8 predictions; lines that fit a narrow column."""
    if path.stem[:2] not in RETOLD:
        pytest.skip("not yet retold as a story")
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    kinds = [cell.metadata.slideshow.slide_type for cell in notebook.cells]
    assert kinds.count("slide") + kinds.count("subslide") + 2 <= 30 and len(kinds) <= 110
    assert sum(len(re.sub(r"<[^>]+>|\$[^$]*\$", "", text).split()) for text in texts) <= 3500
    assert sum("**Predict" in text for text in texts) <= 8
    assert max(len(line) for cell in code_cells(notebook) for line in cell.source.splitlines()) <= 88


def test_outputs_are_those_of_one_run_from_top_to_bottom(notebook):
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))


def test_outputs_are_clean(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.id
        assert not re.search(r"/(home|root|tmp|Users)/", json.dumps(cell.outputs)), f"{cell.id} shows a machine's path"


def test_cells_are_short(notebook):
    for cell in code_cells(notebook):
        assert len([line for line in cell.source.splitlines() if line.strip()]) <= 40, cell.id


def test_some_outputs_are_compared(notebook):
    """Without an execution count nbval would compare nothing, in silence."""
    tagged = [c for c in code_cells(notebook) if "nbval-check-output" in c.metadata.get("tags", [])]
    assert len(tagged) >= 3 and all(cell.outputs and cell.execution_count for cell in tagged)


def test_every_cell_has_a_place_in_the_slides(notebook):
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in notebook.cells]
    assert set(kinds) <= {"slide", "subslide", "fragment", "skip", "notes", "-"} and kinds[0] == "slide"
    assert sum("speaker_notes" in cell.metadata for cell in notebook.cells) >= 5


def test_exercises_have_hidden_solutions(notebook):
    solutions = [cell for cell in code_cells(notebook) if "solution" in cell.metadata.get("tags", [])]
    assert len(solutions) >= 3
    assert all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in solutions)


def test_committed_results_agree_with_the_committed_outputs(path, notebook):
    """Both come from the same real run: same data and same last accuracies."""
    content = results.committed_results(path.stem)
    assert content["lecture"] == path.stem and content["profile"] in ("laptop", "evening", "lecture")
    shown = json.dumps([cell.outputs for cell in code_cells(notebook)], ensure_ascii=False)
    assert content["dataset"]["name"] in shown and content["torch"] in shown
    transferred = path.stem == "45_transfer_learning"
    assert set(content["arms"]) >= ({"scratch", "fine_tuned", "head_only"} if transferred else {"lectured", "improved"})
    for arm in content["arms"].values():
        assert f"{arm['test_accuracy'][-1]:.2%}" in shown
        lists = ["train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"]
        assert {len(arm[name]) for name in lists} == {arm["epochs"]}
        assert all(0 <= value <= 1 for value in arm["test_accuracy"])


def test_the_table_of_results_is_that_of_the_committed_runs():
    document = (FOLDER.parent / "docs" / "results.md").read_text(encoding="utf-8")
    block = document.split(scoreboard.BEGIN)[1].split(scoreboard.END)[0]
    table = results.scoreboard(results.committed_results)
    assert block.strip() == f"```text\n{table}\n```", "run `make scoreboard`"


def test_every_figure_has_alternative_text(notebook):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                assert len(output.metadata.get("image/png", {}).get("alt", "")) > 20, cell.id


def test_every_lecture_can_be_opened_alone_in_the_same_way():
    first = [next(cell.source for cell in nbformat.read(path, 4).cells if "REPOSITORY = " in cell.source)
             for path in NOTEBOOKS]  # fmt: skip
    assert len(first) == 5 and len(set(first)) == 1
