"""The plan per device: it changes speed, and results only by rounding."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from helpers.data import Batches, ImageSet
from helpers.environment import start_run
from helpers.plan import plan_for, use_plan
from helpers.training import train_one_epoch

CPU = torch.device("cpu")


def test_the_plan_follows_the_processor(monkeypatch):
    flags = Path("/proc/cpuinfo")
    if flags.exists():  # what the system says, not torch
        expected = torch.bfloat16 if "avx512_bf16" in flags.read_text() else torch.float32
        assert plan_for(CPU).precision == expected
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert str(plan_for(CPU)) == "float32 · channels_last · fused optimizer"
    assert str(plan_for(torch.device("mps"))) == "float32 · contiguous_format · plain optimizer"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert plan_for(torch.device("cuda")).precision == torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert str(plan_for(torch.device("cuda"))) == "bfloat16 · channels_last · fused optimizer"


def epoch(plan, image_set: ImageSet, **precision) -> tuple[torch.nn.Module, float]:
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(3, 16, 3, bias=False),
        torch.nn.BatchNorm2d(16),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2),
    ]
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64, 4))
    model = model.to(memory_format=plan.memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=plan.fused)
    batches = Batches(image_set, 8, lambda images: images / 255, shuffle=True)
    return model, train_one_epoch(
        model, batches, F.cross_entropy, optimizer, **({"precision": plan.precision} | precision)
    ).loss


@pytest.fixture
def colours() -> ImageSet:
    numbers = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 16, 16), generator=numbers, dtype=torch.uint8)
    return ImageSet(images, torch.randint(0, 4, (40,), generator=numbers), list("abcd"), "noise", "torch.randint")


def test_layout_and_fused_optimizer_change_rounding_only(colours):
    plan = replace(plan_for(CPU), precision=torch.float32)
    slow, slow_loss = epoch(replace(plan, memory_format=torch.contiguous_format, fused=False), colours)
    fast, fast_loss = epoch(plan, colours)
    assert fast_loss == pytest.approx(slow_loss, rel=1e-5)
    for ours, theirs in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_bfloat16_gives_the_same_loss_to_its_digits_and_keeps_float32_weights(colours):
    plan = plan_for(CPU)
    _, exact = epoch(replace(plan, precision=torch.float32), colours)
    model, rounded = epoch(replace(plan, precision=torch.bfloat16), colours)
    assert rounded == pytest.approx(exact, rel=0.01) and rounded != exact
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_plan_of_ones_own_is_used_by_training_and_named_in_the_banner(colours, monkeypatch):
    monkeypatch.setattr("helpers.plan._wished", {})
    run = start_run("29_lenet_mnist", lambda: None, device="cpu")
    exact = replace(run.plan, precision=torch.float32)
    use_plan(run.device, exact)
    assert run.plan == exact and "float32 · channels_last" in run.banner("noise")
    _, expected = epoch(exact, colours)
    _, default = epoch(exact, colours, precision=None)
    assert default == expected


def test_batches_come_with_the_channels_of_a_pixel_side_by_side(colours):
    for shuffle in (False, True):
        images, _ = next(iter(Batches(colours, 8, lambda images: images, shuffle)))
        assert images.shape == (8, 3, 16, 16) and images.is_contiguous(memory_format=torch.channels_last)
    first, _ = next(iter(Batches(colours, 8, lambda images: images)))
    assert torch.equal(first, colours.images[:8])


FAULTS = """
import resource, statistics, sys, torch
from helpers.plan import keep_freed_memory
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
    faults = {}
    for mode in ("keep", "default"):
        command = [sys.executable, "-c", FAULTS, mode]
        folder = Path(__file__).parents[1] / "notebooks"
        faults[mode] = int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout)
    assert faults["keep"] < 10 < faults["default"]
