"""Machines that lack something: a matching torchvision, open files, shared memory, processors, float64."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import helpers
from helpers import environment, training
from helpers.data import Batches, RandomAffine, RandomFlip

FOLDER = Path(helpers.__file__).parent
MODULES = sorted(FOLDER.glob("*.py"))


def python(code: str, *path: Path, cwd: Path = FOLDER.parent) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter with these folders first on its path."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environ, capture_output=True, text=True)


# torch and torchvision that do not match


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does not exist"),
        ("raise ImportError('undefined symbol: _ZN3c10\\n in _C.so')", "undefined symbol: _ZN3c10 in _C.so"),
        ("import no_such_part_of_torch", "No module named 'no_such_part_of_torch'"),
    ],
)
def test_torchvision_that_does_not_load_is_one_line_with_both_versions_and_the_fix(tmp_path, line, reason):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"import torch\n{line}")
    about = tmp_path / "torchvision-0.1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.2\n")
    (tmp_path / "torch.py").write_text("__version__ = '9.8.7+cpu'")  # the real one would take seconds
    done = python("from helpers import training", tmp_path)
    message = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert message.startswith("ImportError: torch 9.8.7+cpu and torchvision 0.1.2 do not work together")
    assert f"({reason}). Install the pair that requirements.txt names" in message and "--force-reinstall" in message


def test_a_torchvision_that_matches_costs_nothing_to_check():
    assert helpers.check_torchvision() is None


# Few open files, a small /dev/shm, and processes that begin by spawning: no workers, so none of it matters

LECTURE = """
import multiprocessing, os, resource
multiprocessing.set_start_method("spawn")
import torch
from helpers import samples, training
from helpers.data import Batches, RandomAffine
from helpers.environment import seed_everything, start_run
run = start_run("any", find_data=None)
train_set, test_set = samples.digits()
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


def test_a_lecture_runs_with_256_open_files_a_small_shared_memory_and_spawned_processes():
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small = [*mount, 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"', "sh"]
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        small = []  # the kernel refuses; the other two limits hold all the same
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*small, sys.executable, "-c", RUN_AS_NOTEBOOK]
    done = subprocess.run(command, cwd=FOLDER.parent, env=environ, capture_output=True, text=True)
    assert "lecture done" in done.stdout, done.stderr[-2000:]
    if not small:
        pytest.skip("ran, but a /dev/shm of 1 MB is not permitted here")
    assert "bytes of shared memory: 1048576" in done.stdout


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_helper_starts_worker_processes(path):
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(ast.parse(path.read_text("utf-8")))}
    assert not names & {"DataLoader", "num_workers", "Pool", "ProcessPoolExecutor", "share_memory_"}


# Processors


@pytest.fixture
def eight(monkeypatch):
    """A computer that shows eight processors."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "limits", "threads"),
    [
        ("0::/\n", {"cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "350000 100000"}, 3),  # the limit sits in between
        ("0::/a/b\n", {"a/b/cpu.max": "500000 100000", "cpu.max": "400000 100000"}, 4),  # the smallest one counts
        ("0::/a/b\n", {"a/other/cpu.max": "100000 100000"}, 8),  # somebody else's
        ("0::/../b\n", {"cpu.max": "max 100000"}, 8),
        ("0::/a\n", {"a/cpu.max": "20000 100000"}, 1),  # a fifth of a processor still needs a thread
        ("7:cpu,cpuacct:/a\n0::/\n", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2),
        ("7:cpu:/a/b\n", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("7:cpu:/host/a\n", {"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),  # as in Docker
        ("7:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
        ("nonsense", {"cpu.max": "nonsense"}, 8),
    ],
)
def test_threads_respect_the_quota_of_every_control_group_around_the_process(
    tmp_path, eight, membership, limits, threads
):
    write(tmp_path / "self", membership)
    for name, text in limits.items():
        write(tmp_path / "cgroup" / name, text)
    assert environment.available_threads(tmp_path / "cgroup", tmp_path / "self") == threads


def test_the_threads_of_a_run_are_set_and_shown(tmp_path):
    run = environment.start_run("any", lambda: tmp_path)
    assert run.threads == torch.get_num_threads()
    assert re.search(rf"^threads +{run.threads}$", run.banner("data"), re.MULTILINE)


# Devices


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_announced_but_cannot_compute_is_replaced_by_the_cpu_with_the_reason(monkeypatch, kind):
    if getattr(torch, kind).is_available():
        pytest.skip(f"{kind} works here")
    monkeypatch.setattr(getattr(torch, kind), "is_available", lambda: True)  # the first operation then really fails
    device, name = environment.choose_device()
    if torch.cuda.is_available() and kind == "mps":
        pytest.skip("CUDA comes first here")
    assert device.type == "cpu" and f"; {kind} not used: " in name and "\n" not in name


def test_the_known_training_step_agrees_with_torchs_modules_and_optimizer():
    convolution = nn.Conv2d(1, 3, 3, bias=False)
    convolution.weight.data = torch.linspace(-1, 1, 27).reshape(3, 1, 3, 3)
    network = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(6), nn.Flatten())
    descent = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        loss = nn.CrossEntropyLoss()(network(torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)), torch.tensor([0, 1]))
        descent.zero_grad()
        loss.backward()
        descent.step()
    assert loss.item() == pytest.approx(environment.KNOWN_LOSS, abs=1e-4)
    assert environment.loss_after_a_step("cpu") == pytest.approx(loss.item())


@pytest.mark.parametrize("factor", [1.1, torch.nan])
def test_a_device_that_computes_wrongly_is_not_used(monkeypatch, factor):
    """As of operations of MPS that gave wrong numbers without an error."""
    right = F.max_pool2d
    monkeypatch.setattr(F, "max_pool2d", lambda *args: factor * right(*args))
    with pytest.raises(RuntimeError, match="cpu not used: a training step gave a loss of"):
        environment.choose_device("cpu")


ON_THE_CPU = {"evaluate"}  # functions that count in float64 what is on the CPU already


@pytest.mark.parametrize("path", [p for p in MODULES if "torch" in p.read_text("utf-8")], ids=lambda path: path.stem)
def test_no_helper_asks_a_device_for_float64(path):
    """MPS has no float64. NumPy may use it; torch only where the tensor is on the CPU for certain."""
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef) or function.name in ON_THE_CPU:
            continue
        for node in ast.walk(function):
            name = getattr(node, "attr", None)
            of_numpy = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "np"
            assert name not in ("float64", "double") or of_numpy, f"line {node.lineno}: {name}"
            assert getattr(node, "value", None) != "float64", f"line {node.lineno}: float64"


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
