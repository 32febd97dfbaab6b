"""The tables of faults in docs/reliability.md and data/README.md name tests that exist, and leave no fault out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = ["docs/reliability.md", "data/README.md"]
FAULTS = set(range(1, 36))  # the numbers in the first column
TEST = re.compile(r"`(tests/\w+\.py)::(\w+)(?:\[[^`]*\])?`")


def rows(table: str) -> dict[str, str]:
    """The lines of a table of faults, by their first cells, with the last cells, which name the tests."""
    lines = [line.strip("|").split("|") for line in (ROOT / table).read_text(encoding="utf-8").splitlines()]
    return {" ".join(cells[:-1]): cells[-1] for cells in lines if "tests/" in cells[-1] and len(cells) > 2}


@pytest.mark.parametrize("table", TABLES)
def test_every_row_names_tests_that_exist(table):
    for fault, named in rows(table).items():
        assert TEST.findall(named), fault
        for file, name in TEST.findall(named):
            nodes = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            assert name in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_every_fault_has_a_row():
    numbers = {int(number[1]) for table in TABLES for fault in rows(table) if (number := re.match(r" *(\d+)\b", fault))}
    assert numbers == FAULTS


def test_links_between_the_documents_lead_to_files():
    for page in [ROOT / "README.md", ROOT / "data" / "README.md", *ROOT.glob("docs/*.md")]:
        links = re.findall(r"\]\(((?!https?:)[^)#]+)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name
