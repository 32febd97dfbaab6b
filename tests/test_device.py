"""The device of a run: chosen by what it computes, its plan changes rounding only, threads by a short trial."""

import os
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from common import noise, python, refused
from torch import nn

from helpers import device
from helpers.data import Batches
from helpers.device import Plan, choose_device, choose_threads, plan_for
from helpers.training import Step, train_one_epoch

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("has_bfloat16", "name", "has_amx", "expected"),
    [(True, "AMD EPYC 9B14", False, torch.bfloat16), (False, "AMD EPYC 7B12", False, torch.float32),
     (True, "Intel(R) Xeon(R)", True, torch.bfloat16), (True, "Intel(R) Xeon(R)", False, torch.float32)],
    ids=["AMD", "older AMD", "Intel with AMX", "Intel that is slower with bfloat16"],
)  # fmt: skip
def test_the_plan_follows_the_processor(monkeypatch, has_bfloat16, name, has_amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(device, "processor_name", lambda: name)
    assert plan_for(CPU) == Plan(expected, torch.channels_last, fused=True)


def test_the_plan_can_be_overruled():
    assert plan_for(CPU, torch.bfloat16).precision == torch.bfloat16
    assert str(plan_for(torch.device("mps"))) == "float32 · contiguous_format · plain optimizer"


@pytest.mark.parametrize(
    ("capability", "plan"),
    [((6, 1), "float32 · contiguous_format"), ((7, 0), "float16 · channels_last"), ((7, 5), "float16 · channels_last"),
     ((8, 0), "bfloat16 · channels_last"), ((9, 0), "bfloat16 · channels_last")],
    ids=["GTX 10, no tensor cores", "V100", "T4", "A100", "H100"],
)  # fmt: skip
def test_the_plan_of_every_generation_of_gpus(monkeypatch, capability, plan):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert str(plan_for(CUDA)) == f"{plan} · fused optimizer"


COLOURS = noise(40, 3, 16, 4)


def epoch(plan) -> tuple[nn.Module, float]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(64, 4)).to(memory_format=plan.memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=plan.fused)
    batches = Batches(COLOURS.to(CPU, plan.memory_format), 8, lambda images: images / 255, shuffle=True)
    step = Step(CPU, plan.precision)
    return model, train_one_epoch(model, batches, F.cross_entropy, optimizer, step=step).loss


def test_layout_and_fused_optimizer_change_rounding_only():
    slow, slow_loss = epoch(Plan())
    fast, fast_loss = epoch(Plan(torch.float32, torch.channels_last, fused=True))
    assert fast_loss == pytest.approx(slow_loss, rel=1e-5)
    for ours, theirs in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_fewer_digits_give_the_same_loss_and_keep_float32_weights(precision):
    plan = plan_for(CPU)
    _, exact = epoch(replace(plan, precision=torch.float32))
    model, rounded = epoch(replace(plan, precision=precision))
    assert rounded == pytest.approx(exact, rel=0.01) and rounded != exact
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_announced_but_cannot_compute_is_replaced_by_the_cpu_with_the_reason(monkeypatch, kind):
    if torch.cuda.is_available() or getattr(torch, kind).is_available():
        pytest.skip(f"{kind} works here, or CUDA comes first")
    monkeypatch.setattr(getattr(torch, kind), "is_available", lambda: True)  # the first operation then really fails
    chosen, name = choose_device()
    assert chosen.type == "cpu" and f"; {kind} not used: " in name and "\n" not in name


def test_a_device_that_is_not_there_is_one_line():
    with refused(RuntimeError, r"Leave `device` out"):
        choose_device("cuda" if torch.cuda.device_count() == 0 else "mps")


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
    assert loss.item() == pytest.approx(device.KNOWN_LOSS, abs=1e-4)
    assert device.loss_after_steps("cpu") == pytest.approx(loss.item())


@pytest.mark.parametrize("factor", [1.1, torch.nan])
def test_a_device_that_computes_wrongly_is_not_used(monkeypatch, factor):
    """As of operations of MPS that gave wrong numbers without an error."""
    right = F.max_pool2d
    monkeypatch.setattr(F, "max_pool2d", lambda *args: factor * right(*args))
    with pytest.raises(RuntimeError, match="cpu not used: a training step gave a loss of"):
        choose_device("cpu")


def test_the_fastest_number_of_threads_is_used_and_why(monkeypatch):
    """Eight processors; `seconds[threads]` is what a trial takes. The number of threads is not really set."""
    used, seconds = [0], {8: 1.0, 4: 2.0, 1: 6.0}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: used.__setitem__(0, threads))
    monkeypatch.setattr(device.joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr(device, "trial_seconds", lambda: seconds[used[0]])
    assert choose_threads() == (8, "all that this process may use; the fastest in a short trial")
    seconds[8] = 20.0
    threads, why = choose_threads()
    assert threads == 4 and "of 8; 8 were 10.0 times slower" in why
    monkeypatch.setattr(device.joblib, "cpu_count", lambda: 1)  # the quota of a container
    assert choose_threads() == (1, "all that this process may use")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
@pytest.mark.parametrize("by", ["affinity", "OMP_NUM_THREADS"])
def test_threads_respect_affinity_and_omp_num_threads(by, monkeypatch):
    code = "from helpers.device import choose_threads; print(*choose_threads())"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if by == "affinity":
        monkeypatch.delenv("OMP_NUM_THREADS")
        code = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); {code}"
    done = python(code)
    assert done.stdout.startswith("1 all that this process may use"), done


FAULTS = """
import resource, statistics, sys, torch
from helpers.device import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
counts = []
for _ in range(21):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16_000_000)  # 64 MB: more than the C library keeps by itself
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(int(statistics.median(counts)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux's C library")
def test_freed_memory_is_used_again_instead_of_asked_for_page_by_page():
    kept, default = (int(python(FAULTS, mode).stdout) for mode in ("keep", "default"))
    assert kept < 10 < default
