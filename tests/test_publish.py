"""The repository's address: written into README and lectures, replaced and taken away; and a lecture opened alone."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from common import FOLDER, NOTEBOOKS

ROOT = FOLDER.parent
FOUND = "import importlib.util\nprint(importlib.util.find_spec('helpers').origin)"
FIRST, SECOND = "https://github.com/owner/name", "https://github.com/someone.else/lectures-2"


def publish(address: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "publishing" / "publish.py"), address, str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in [folder / "README.md", *folder.glob("*/*.ipynb")]}


@pytest.fixture
def copy(tmp_path) -> Path:
    """README and lectures, in a folder of their own."""
    (tmp_path / "notebooks").mkdir()
    for path in NOTEBOOKS:
        shutil.copy(path, tmp_path / "notebooks")
    shutil.copy(ROOT / "README.md", tmp_path)
    assert publish("", tmp_path).returncode == 0
    return tmp_path


def test_the_address_is_written_replaced_and_taken_away(copy):
    before = texts(copy)
    assert not any("colab.research.google" in text or "kaggle.com" in text for text in before.values())
    for address in (FIRST + ".git", SECOND + "/", SECOND):
        assert publish(address, copy).returncode == 0
    after = texts(copy)
    for name, text in after.items():
        assert FIRST not in text and text.count(f"github.com/{SECOND[19:]}") + text.count(f"github/{SECOND[19:]}") >= 3
        if name != "README.md":
            cells = json.loads(text)["cells"]
            code = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
            assert code.count(f'REPOSITORY = "{SECOND}"') == 1 == text.count("[Open in Colab]")
            assert f"colab.research.google.com/github/{SECOND[19:]}/blob/main/notebooks/{name})" in text
            assert "badge" not in "".join(cells[0]["source"])  # a page made of the lecture loads nothing
    assert all(f"/blob/main/notebooks/{path.name})" in after["README.md"] for path in NOTEBOOKS)
    assert publish("", copy).returncode == 0 and texts(copy) == before


def test_an_address_elsewhere_gets_no_link_and_none_is_invented(copy):
    assert publish("https://gitlab.example/group/name", copy).returncode == 0
    assert not any("Open in" in text for text in texts(copy).values())
    before = texts(copy)
    for wrong in ('https://x" + "y', "github.com/owner/name", "ftp://host/name"):
        assert "no address" in publish(wrong, copy).stderr and texts(copy) == before


def launch(path: Path, address: str = "") -> str:
    """The first code cell of a lecture, with this address."""
    cells = nbformat.read(path, as_version=4).cells
    source = next(cell.source for cell in cells if cell.cell_type == "code")
    return re.sub('REPOSITORY = ".*"', f'REPOSITORY = "{address}"', source)


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_opened_alone_a_lecture_says_in_two_lines_what_is_missing(path, tmp_path):
    said = run(launch(path), tmp_path)
    assert said.returncode == 1 and not said.stdout and len(said.stderr.splitlines()) == 2
    assert "`helpers`" in said.stderr and "whole repository" in said.stderr


def test_opened_alone_a_published_lecture_fetches_what_it_needs_once(tmp_path):
    repository, empty = tmp_path / "lectures-2", tmp_path / "empty"
    shutil.copytree(FOLDER / "helpers", repository / "notebooks" / "helpers", ignore=shutil.ignore_patterns("__py*"))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(repository)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run(git + command, check=True)
    empty.mkdir()
    code = f"{launch(NOTEBOOKS[-1], f'file://{repository}')}\n{FOUND}"
    first, again = run(code, empty), run(code, empty)
    assert "fetching the rest" in first.stdout and str(empty / "lectures") in first.stdout, first.stderr
    assert again.stdout.splitlines() == [str(empty / "lectures" / "notebooks" / "helpers" / "__init__.py")]


@pytest.mark.parametrize("place", ["", "notebooks", "notebooks/helpers", "tests"])
def test_a_kernel_anywhere_in_the_repository_finds_helpers(place):
    assert run(f"{launch(NOTEBOOKS[-1])}\n{FOUND}", ROOT / place).stdout.strip() == str(
        FOLDER / "helpers" / "__init__.py"
    )
