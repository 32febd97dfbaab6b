"""The helpers stay small: what a student opens fits on one shelf, imports run one way, functions are short."""

import ast
from pathlib import Path

import helpers

FOLDER = Path(helpers.__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.rglob("*.py"))}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def body_lines(function: ast.FunctionDef) -> int:
    """Lines without signature and docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return function.end_lineno - first.lineno + 1


def imported(tree: ast.Module) -> set[Path]:
    """The modules of helpers that a module imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers"):
            for name in [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]:
                found.add(FOLDER.parent / (name.replace(".", "/") + ".py"))
    return found & TREES.keys()


def level(path: Path, above: tuple = ()) -> int:
    assert path not in above, f"imports run in a circle: {path} and {above}"
    return 1 + max((level(below, (*above, path)) for below in imported(TREES[path])), default=0)


def test_the_shelf_and_the_back_rooms_are_small():
    shelf = [path for path in FOLDER.glob("*.py") if path.name != "__init__.py"]
    assert len(shelf) <= 10 and max(map(lines, shelf)) <= 200
    pages = [path for path in TREES if path.parent.name == "pages"]
    assert sum(map(lines, shelf)) <= 1300 and sum(map(lines, TREES.keys() - {*pages})) <= 2700
    assert sum(map(lines, pages)) <= 500


def test_imports_run_one_way_over_at_most_four_levels():
    assert max(level(path) for path in TREES) <= 4
    for path in TREES:
        rooms = {below.parent.name for below in imported(TREES[path])}
        assert path.parent.name != "keeping" or rooms <= {"keeping"}
        assert path.parent.name not in ("datasets", "pages") or rooms <= {"keeping", "datasets", "pages"}


def test_functions_are_short():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert body_lines(node) <= 35, f"{path.name}: {node.name}"
                assert node.name != "fit" or body_lines(node) <= 30
