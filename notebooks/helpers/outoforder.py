"""Cells run out of order: a name that is not there yet is answered with the section that makes it."""

import ast
import json
from pathlib import Path

from IPython import get_ipython


def sections(path: Path) -> dict[str, str]:
    """For each name that a notebook's cells make at their outermost level, the section of the first that does."""
    made, section = {}, "the first cells"
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = [line.lstrip("# ") for line in source.splitlines() if line.startswith("##")]
            section = headings[-1] if headings else section
        elif cell["cell_type"] == "code":
            lines = [line for line in source.splitlines() if not line.startswith(("%", "!"))]  # IPython's own
            for name in names(ast.parse("\n".join(lines))):
                made.setdefault(name, section)
    return made


def names(tree: ast.Module) -> list[str]:
    """What a cell binds outside of its functions and classes."""
    found, nodes = [], list(tree.body)
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.alias):
            found.append(node.asname or node.name.split(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.append(node.id)
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            nodes += ast.iter_child_nodes(node)
    return found


def name_missing_sections(lecture: str) -> None:
    """From now on a NameError in this notebook, `<lecture>.ipynb`, says which section has to run first."""
    path = Path(__file__).parents[1] / f"{lecture}.ipynb"
    made = sections(path) if path.is_file() else {}  # a renamed copy does without

    def explain(shell, kind, error, trace, tb_offset=None):
        if error.name in made:
            error.args = (f"{error} yet: first run the section {made[error.name]!r}, or all cells above this one",)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    if get_ipython() is not None:
        get_ipython().set_custom_exc((NameError,), explain)
