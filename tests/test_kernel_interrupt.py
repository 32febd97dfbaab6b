"""Stop in a real Jupyter kernel: the epoch in progress is taken back, the others are in memory and on disk."""

import pytest
from common import FOLDER
from jupyter_client.manager import start_new_kernel

SETUP = """
import time
from pathlib import Path
import torch
from helpers.keeping.checkpoint import Checkpoint
from helpers.data import Batches, ImageSet
from helpers.training import History, fit
def slowly(images):
    time.sleep(0.02)
    return images / 255
noise = ImageSet(torch.randint(0, 256, (60, 1, 8, 8)).byte(), torch.arange(60) % 10, list("0123456789"), "noise", "")
batches = Batches(noise, 10, slowly, shuffle=True)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
given = model, batches, batches, torch.nn.functional.cross_entropy, torch.optim.Adam(model.parameters())
history = History()
"""


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(cwd=str(FOLDER), extra_arguments=["--log-level=50"])
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code, at=None, then=None) -> tuple[str, str]:
    """Run a cell; its status and all it showed. When it has shown `at`, `then` is called."""
    shown = []

    def show(message):
        shown.append(str(message["content"]))
        if at and at in shown[-1]:
            then()

    reply = client.execute_interactive(code, output_hook=show, timeout=60)
    return reply["content"].get("ename", "ok"), "\n".join(shown)


def test_stop_takes_the_epoch_back_and_the_cell_goes_on_when_run_again(kernel, tmp_path):
    manager, client = kernel
    assert run(client, f"{SETUP}where = Checkpoint(Path({str(tmp_path)!r}), 'run', {{}})")[0] == "ok"
    told = "fit(*given, 200, history, checkpoint=where, on_epoch_end=lambda history: print('done:', len(history)))"
    ended, shown = run(client, told, "done: 2", manager.interrupt_kernel)
    assert ended == "KeyboardInterrupt" and "Run this cell again to go on from there" in shown
    assert "True True" in run(client, "print(len(history) > 1, max(where.files()) == len(history))")[1]
    ended, shown = run(client, "more = len(history) + 1; fit(*given, more, history); print(len(history) == more)")
    assert ended == "ok" and "True" in shown
    assert "Complete: " in run(client, "fit(*given, more, history)")[1]
