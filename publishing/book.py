"""Lay the pages of the web book into build/site-source, where Sphinx reads them: documents, lectures, helpers.

Folders stay as they are in the repository, so that links between documents hold. docs/index.md becomes the first page.
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "build" / "site-source"
PAGES = ["README.md", "docs/*.md", "docs/*.png", "data/*.md", "data/weights/*.md", "notebooks/*.ipynb"]
LINKED = ["LICENSE", "data/weights/*.py", "tests/benchmarks/*.py", "notebooks/helpers/**/*.py"]  # pages lead to them


def lay(name: Path | str, content: bytes) -> None:
    path = TARGET / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def helper(path: Path, module: str) -> str:
    """A page from the docstrings of a module of `helpers`, and its source; that of a folder leads to its modules."""
    below = f"```{{toctree}}\n:glob:\n\n{module}.*\n```\n"
    if path.stem != "__init__":
        source = path.relative_to(ROOT)
        below = f"<details><summary>{source}</summary>\n\n```{{literalinclude}} /{source}\n```\n\n</details>\n"
    return f"# {module}\n\n```{{eval-rst}}\n.. automodule:: helpers.{module}\n   :members:\n```\n\n{below}"


if __name__ == "__main__":
    for folder in (TARGET, ROOT / "build" / "site"):  # pages that are no more must not stay
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in PAGES + LINKED:
        for path in ROOT.glob(pattern):
            lay(path.relative_to(ROOT), path.read_bytes())
    index = TARGET / "docs" / "index.md"
    lay("index.md", index.read_text(encoding="utf-8").replace("../", "").encode())
    index.unlink()
    helpers = ROOT / "notebooks" / "helpers"
    for path in helpers.rglob("*.py"):
        module = ".".join(path.relative_to(helpers).with_suffix("").parts).removesuffix(".__init__")
        if module != "__init__":
            lay(f"helpers/{module}.md", helper(path, module).encode())
