"""Each cell alone: an error that names the section to run first."""

import builtins
import dis

import nbclient
import nbformat
import pytest
from common import FOLDER, NOTEBOOKS
from nbclient.exceptions import CellExecutionError

from helpers.keeping import outoforder


def needed(code) -> set[str]:
    """The global names that a compiled cell, with its functions, reads and does not make itself."""
    read = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_NAME", "LOAD_GLOBAL")}
    made = {i.argval for i in dis.get_instructions(code) if i.opname in ("STORE_NAME", "STORE_GLOBAL")}
    return read.union(*(needed(part) for part in code.co_consts if hasattr(part, "co_code"))) - made


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_name_of_every_cell_has_its_section(path):
    notebook = nbformat.read(path, as_version=4)
    made = outoforder.sections(path)
    headings = [line.strip("# ") for c in notebook.cells for line in c.source.splitlines() if line.startswith("##")]
    known = {*dir(builtins), "__name__", "__annotations__"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for name in needed(compile(cell.source, cell.id, "exec")) - known:
                assert made[name] in [*headings, "the first cells"], (name, cell.id)
    assert made["run"] == "Settings" and made["torch"] == "the first cells"
    assert made["train_set"] in ("Settings", "Data")


def test_names_are_those_that_a_cell_leaves_behind(tmp_path):
    source = """
import a.b, c as d
from e import f as g
h, (i, *j) = k = [l for l in range(3)]
for m in h: n += 1
with o as p: q = lambda r: r
def s(t): u = 1
class v: w = 2
if (x := 1): y: int = 2
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, tmp_path / "own.ipynb")
    assert set(outoforder.sections(tmp_path / "own.ipynb")) == set("adghijkmnpqsvxy")


def test_a_cell_run_too_early_names_the_section(tmp_path):
    """In a real kernel: the imports, then a later cell of lecture 29 at once."""
    notebook = nbformat.read(FOLDER / "29_lenet_mnist.ipynb", as_version=4)
    later = next(c for c in notebook.cells if c.cell_type == "code" and "arm_record(" in c.source)
    imports = "from helpers import results\nfrom helpers.keeping.outoforder import name_missing_sections\n"
    first = nbformat.v4.new_code_cell(f"{imports}name_missing_sections('29_lenet_mnist')")
    alone = nbformat.v4.new_notebook(cells=[first, later, nbformat.v4.new_code_cell("print('goes on')")])
    client = nbclient.NotebookClient(alone, timeout=60, resources={"metadata": {"path": str(FOLDER)}})
    with pytest.raises(CellExecutionError) as error:
        client.execute()
    assert error.value.ename == "NameError"
    section = outoforder.sections(FOLDER / "29_lenet_mnist.ipynb")["model_2018"]
    advice = f"first run the section {section!r}, or all cells above this one"
    assert error.value.evalue == f"name 'model_2018' is not defined yet: {advice}"
    assert section in "".join(c.source for c in notebook.cells)


BROKEN = ["x = !ls", "%%bash\nls", "help?", "%matplotlib inline", "y = (1,", "def f(:", "?", "!ls {x}", "\0", "await z"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Where the notebook of a lecture named "own" would be."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(outoforder, "ROOT", tmp_path)
    return tmp_path / "notebooks" / "own.ipynb"


@pytest.mark.parametrize("source", BROKEN)
def test_a_cell_that_is_no_python_stops_nothing(own, source):
    cells = [nbformat.v4.new_code_cell(text) for text in (source, "made = 1")]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("## Data"), *cells]), own)
    outoforder.name_missing_sections("own")
    assert outoforder.sections(own)["made"] == "Data"


@pytest.mark.parametrize("content", [b"", b"no json", b"{}", b"\xff", None])
def test_a_notebook_that_cannot_be_read_does_without(own, content):
    if content is not None:
        own.write_bytes(content)
    outoforder.name_missing_sections("own")
