"""Lecture 29 in JupyterLab, as a student runs it: restart and run all by keys, to the end; then a digit is drawn."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from .conftest import CHROMIUM, playwright

ROOT = Path(__file__).parents[2]
LECTURE = "29_lenet_mnist.ipynb"
MODEL = "JSON.stringify(jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON())"
LIVE = """() => {  // the last output that lives in the page, brought to the screen
  const notebook = jupyterapp.shell.currentWidget.content;
  const index = notebook.widgets.findLastIndex(cell => cell.model.type === 'code' && cell.model.outputs &&
    JSON.stringify(cell.model.outputs.toJSON()).includes('live-lenet'));
  notebook.activeCellIndex = index;
  return notebook.scrollToItem(index, 'start').then(() => index);
}"""


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab in a copy of the notebooks without their outputs, with settings of its own."""
    home = shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data" / "weights", tmp_path / "data" / "weights")
    notebook = json.loads((home / LECTURE).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell.update({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
    (home / LECTURE).write_text(json.dumps(notebook), encoding="utf-8")
    folders = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR"]
    folders += ["JUPYTERLAB_WORKSPACES_DIR", "LECTURE_RESULTS", "LECTURE_CHECKPOINTS", "LECTURE_DATA"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, token = free.getsockname()[1], secrets.token_hex()
    options = ["--no-browser", f"--port={port}", f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0"]
    options += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--allow-root"]
    command = [sys.executable, "-m", "jupyterlab", *options]
    environ = {**os.environ, **{name: str(tmp_path / name.lower()) for name in folders}}
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=home, env=environ, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={token}")
        yield f"http://127.0.0.1:{port}/lab/tree/{LECTURE}?token={token}"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str, seconds: int = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return urllib.request.urlopen(address).close()
        except OSError:
            assert time.monotonic() < end, "JupyterLab did not start"
            time.sleep(0.5)


def run_all(page) -> None:
    """Restart the kernel and run all cells, by keys: from the command palette; Enter answers "Restart"."""
    page.locator(".jp-NotebookPanel .jp-Cell").first.click()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+C")
    page.wait_for_selector(".lm-CommandPalette-input:focus")
    page.keyboard.type("restart kernel and run all cells")
    page.wait_for_selector(".lm-CommandPalette-item.lm-mod-active")
    page.keyboard.press("Enter")
    page.wait_for_selector(".jp-Dialog")
    page.keyboard.press("Enter")


def finished(page, seconds: int = 500) -> list[dict]:
    """The code cells once the last of them has been run, or one has failed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        cells = [cell for cell in json.loads(page.evaluate(MODEL))["cells"] if cell["cell_type"] == "code"]
        if cells[-1]["execution_count"] or "'error'" in str([o["output_type"] for c in cells for o in c["outputs"]]):
            return cells
        page.wait_for_timeout(1000)
    raise AssertionError(f"not finished after {seconds} s")


def test_a_student_runs_lecture_29_and_draws_a_digit(lab):
    with playwright.sync_playwright() as engine:
        page = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]).new_page()
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(lab)
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=60_000)
        page.wait_for_function("jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
        run_all(page)
        cells = finished(page)
        outputs = [output for cell in cells for output in cell["outputs"]]
        failed = [output for output in outputs if output["output_type"] == "error"]
        assert not failed, "\n".join(failed[0]["traceback"])
        assert all(cell["execution_count"] for cell in cells if "".join(cell["source"]).strip())
        assert not re.search(r"░|% · .* left", json.dumps(outputs, ensure_ascii=False)), "a frozen bar"
        page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
        assert page.evaluate(LIVE) >= 0
        network = page.locator(".live-lenet:visible").last
        before, pad = network.locator(".bars").inner_text(), network.locator(".pad")
        pad.scroll_into_view_if_needed()
        box = pad.bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + 50)
        page.mouse.down()
        page.mouse.move(box["x"] + 160, box["y"] + 180, steps=5)
        page.mouse.up()
        drawn = network.locator(".bars").inner_text()
        assert drawn != before and drawn.count("%") == 10
        active = page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex")
        pad.press(" ")  # by keys as well: they draw, and select no other cell
        for _ in range(5):
            pad.press("ArrowUp")
        assert network.locator(".bars").inner_text() != drawn
        assert page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex") == active
