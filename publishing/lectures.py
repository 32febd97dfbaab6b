"""Run lectures on the sample data, for `make lectures`: executed notebooks, pages and results in build/lectures/.

`python publishing/lectures.py notebooks/29_lenet_mnist.ipynb …` says which lecture and cell it is at, and for how long.
The notebooks themselves stay as they are. The first cell that fails is shown, and ends it with exit status 1.
"""

import os
import sys
import time
from pathlib import Path

import nbformat
from finish import finish
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / "build" / "lectures"


def say(line: str, done: bool = False) -> None:
    """A line that the next one replaces, unless it is done. Where no terminal is, only what is done is printed."""
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="\n" if done else "", flush=True)
    elif done:
        print(line, flush=True)


def clock(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def execute(path: Path, which: str) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh run, in a kernel that starts beside it. Raises CellExecutionError."""
    notebook, start = nbformat.read(path, as_version=4), time.perf_counter()

    def show(cell, cell_index):
        at = f"cell {cell_index + 1} of {len(notebook.cells)}"
        say(f"{which}: {at}, {clock(time.perf_counter() - start)}")

    client = NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        on_cell_start=show,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    return client.execute()


def page(notebook: nbformat.NotebookNode, name: str) -> str:
    """One HTML file, complete without network, by the template in publishing/page/."""
    exporter = HTMLExporter(
        template_name="page",
        extra_template_basedirs=[str(HERE)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    return finish(exporter.from_notebook_node(notebook, {"metadata": {"name": name}})[0])


def run(path: Path, which: str) -> None:
    start = time.perf_counter()
    notebook = execute(path, which)
    nbformat.write(notebook, FOLDER / path.name)
    target = FOLDER / f"{path.stem}.html"
    target.write_text(page(notebook, path.stem), encoding="utf-8")
    shown = os.path.relpath(target)
    say(f"{which}: {clock(time.perf_counter() - start)}. Open {shown}", done=True)


if __name__ == "__main__":
    os.environ.setdefault("LECTURE_PROFILE", "quick")
    os.environ.setdefault("LECTURE_RESULTS", str(FOLDER / "results"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = [Path(name) for name in sys.argv[1:]]
    for number, path in enumerate(paths, 1):
        which = f"{path.stem} ({number} of {len(paths)})"
        if not sys.stdout.isatty():
            print(f"{which} …", flush=True)
        try:
            run(path, which)
        except CellExecutionError as error:
            say(f"{which} failed in this cell:", done=True)
            sys.exit(str(error))
