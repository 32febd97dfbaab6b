"""Cells run out of order: a name that is not there yet is answered with the section that makes it."""

import json
import symtable
from contextlib import suppress
from pathlib import Path

from IPython import get_ipython
from IPython.core.inputtransformer2 import TransformerManager

from helpers.keeping.environ import ROOT


def sections(path: Path) -> dict[str, str]:
    """For each name that a notebook's cells make at their outermost level, the section of the first that does."""
    made, section = {}, "the first cells"
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = [line.lstrip("# ") for line in source.splitlines() if line.startswith("##")]
            section = headings[-1] if headings else section
        elif cell["cell_type"] == "code":
            with suppress(Exception):  # a cell that cannot be read, such as an unfinished line, is passed over
                code = TransformerManager().transform_cell(source)
                for symbol in symtable.symtable(code, "cell", "exec").get_symbols():
                    if symbol.is_assigned() or symbol.is_imported():
                        made.setdefault(symbol.get_name(), section)
    return made


def name_missing_sections(lecture: str) -> None:
    """From now on a NameError in this notebook, `<lecture>.ipynb`, says which section has to run first."""

    def explain(shell, kind, error, trace, tb_offset=None):
        with suppress(Exception):  # a renamed copy does without, as does a file that cannot be read: only a courtesy
            section = sections(ROOT / "notebooks" / f"{lecture}.ipynb")[error.name]
            error.args = (f"{error} yet: first run the section {section!r}, or all cells above this one",)
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    if get_ipython() is not None:
        get_ipython().set_custom_exc((NameError,), explain)
