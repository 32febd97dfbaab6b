"""The tables of faults in README.md and data/README.md name tests that exist, and leave no fault out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = [ROOT / "README.md", ROOT / "data" / "README.md"]
ROWS = 35  # faults in the list, numbered from 1
TEST = re.compile(r"`(tests/\w+\.py)::(\w+)(?:\[[^`]*\])?`")


def fault_rows(path: Path) -> dict[int, str]:
    """The numbered lines of the tables in a file that name tests."""
    lines = path.read_text(encoding="utf-8").splitlines()
    numbered = [(re.match(r"\| *(\d+)\b", line), line) for line in lines]
    return {int(number[1]): line for number, line in numbered if number and TEST.search(line)}


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_test_that_is_named_exists(path):
    for file, name in TEST.findall(path.read_text(encoding="utf-8")):
        functions = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        assert name in {node.name for node in functions if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_every_row_of_the_data_table_has_a_fault_an_answer_and_a_test():
    for number, line in fault_rows(TABLES[1]).items():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert len(cells) == 4 and all(cells) and TEST.search(cells[3]), number


def test_every_fault_is_covered():
    covered = {number for path in TABLES for number in fault_rows(path)}
    assert covered == set(range(1, ROWS + 1)), f"missing: {sorted(set(range(1, ROWS + 1)) - covered)}"
