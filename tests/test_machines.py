"""Machines that lack something: a matching torchvision, open files, shared memory, float64."""

import subprocess
import sys

import pytest
import torch
from common import python
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import training
from helpers.data import Batches, RandomAffine, RandomFlip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does not exist"),
        ("raise ImportError('undefined symbol: _ZN3c10\\n in _C.so')", "undefined symbol: _ZN3c10 in _C.so"),
        ("import no_such_part_of_torch", "No module named 'no_such_part_of_torch'"),
    ],
)
def test_torchvision_that_does_not_load_is_one_line_with_both_versions_and_the_fix(tmp_path, line, reason):
    (tmp_path / "torchvision.py").write_text(f"import torch\n{line}")
    (tmp_path / "torchvision-0.1.2.dist-info").mkdir()
    about = "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\n"
    (tmp_path / "torchvision-0.1.2.dist-info" / "METADATA").write_text(about)
    (tmp_path / "torch.py").write_text("__version__ = '9.8.7+cpu'")  # the real one would take seconds
    done = python("from helpers import training", path=tmp_path)
    message = done.stderr.splitlines()[-1]
    assert message.startswith("ImportError: torch 9.8.7+cpu and torchvision 0.1.2 do not work together")
    assert f"({reason}). Install a pair that requirements.txt allows" in message and "--force-reinstall" in message


# Few open files, a small /dev/shm, and processes that begin by spawning: no workers, so none of it matters

LECTURE = """
import multiprocessing, os, resource
multiprocessing.set_start_method("spawn")
import torch
from helpers import training
from helpers.data import Batches, RandomAffine, digits
from helpers.environment import start_run
run = start_run("any", find_data=None)
train_set, test_set = digits()
affine = RandomAffine(9, 0.1, 2)
transform = lambda images: affine(images / 255)  # could not be pickled for a worker
model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 5), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(10))
model(torch.zeros(1, 1, 28, 28))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
criterion = torch.nn.CrossEntropyLoss()
for epoch in range(2):
    score = training.train_one_epoch(model, Batches(train_set, 32, transform, shuffle=True), criterion, optimizer)
    assert training.evaluate(model, Batches(test_set, 100, transform), criterion).loss < 3
assert multiprocessing.active_children() == []
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
shared = os.statvfs("/dev/shm")
print("lecture done; bytes of shared memory:", shared.f_blocks * shared.f_frsize)
"""

RUN_AS_NOTEBOOK = f"""
import nbclient, nbformat, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
cells = [nbformat.v4.new_code_cell(part) for part in {LECTURE!r}.split("criterion = ")]
cells[1].source = "criterion = " + cells[1].source
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
print(notebook.cells[-1].outputs[-1].text)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_lecture_runs_with_256_open_files_a_small_shared_memory_and_spawned_processes():
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small = [*mount, 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        small = []  # the kernel refuses; the other two limits hold all the same
    done = python(RUN_AS_NOTEBOOK, before=small)
    assert "lecture done" in done.stdout, done.stderr[-2000:]
    if not small:
        pytest.skip("ran, but a /dev/shm of 1 MB is not permitted here")
    assert "bytes of shared memory: 1048576" in done.stdout


class NoDouble(TorchDispatchMode):
    """Fails like MPS at the first operation that makes a float64 tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"{function} made a float64 tensor, which MPS does not have")
        return result


def test_training_makes_no_float64(lenet, noise_set):
    affine, flip = RandomAffine(9, 0.1, 2), RandomFlip()
    batches = Batches(noise_set, 10, lambda images: affine(flip(images) / 255), shuffle=True)
    with NoDouble():
        optimizer = torch.optim.Adam(lenet.parameters())
        score = training.train_one_epoch(lenet, batches, nn.CrossEntropyLoss(), optimizer)
        training.predict(lenet, batches)
    assert score.loss > 0
    with pytest.raises(TypeError, match="float64"), NoDouble():
        torch.ones(2).double()
