import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers import environment


def found() -> Path:
    return Path("data")


def not_found() -> Path:
    raise OSError("MNIST: no mirror delivered it")


def test_unknown_profile_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"LECTURE_PROFILE='fast'.*quick.*laptop.*lecture.*auto") as error:
        environment.choose_profile("fast", False, found)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("requested", "cuda", "find", "profile"),
    [
        ("auto", True, found, "lecture"),
        ("auto", False, found, "laptop"),
        ("auto", True, not_found, "quick"),
        ("laptop", True, found, "laptop"),
        ("quick", True, not_found, "quick"),  # the sample needs no dataset
    ],
)
def test_profile_follows_request_device_and_data(requested, cuda, find, profile):
    assert environment.choose_profile(requested, cuda, find)[0] == profile


def test_auto_says_why_it_fell_back_to_the_sample():
    assert "no mirror delivered it" in environment.choose_profile("auto", False, not_found)[1]


def test_a_profile_asked_for_is_never_replaced():
    with pytest.raises(OSError, match="no mirror"):
        environment.choose_profile("lecture", False, not_found)


@pytest.mark.parametrize(("content", "limit"), [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1)])
def test_threads_respect_a_container_quota(tmp_path, monkeypatch, content, limit):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    (tmp_path / "cpu.max").write_text(content)
    assert environment.available_threads(tmp_path) == (limit or 8)


def test_threads_respect_a_version_1_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("300000\n")
    assert environment.available_threads(tmp_path) == 3
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert environment.available_threads(tmp_path) == 8


def test_cuda_that_cannot_compute_is_not_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as with a driver that is too old
    if torch.cuda.device_count():
        pytest.skip("this machine has a CUDA device that works")
    device, name = environment.choose_device()
    assert device.type != "cuda"
    assert "cuda not used" in name


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(RuntimeError, match=r"Leave `device` out") as error:
        environment.choose_device("cuda" if torch.cuda.device_count() == 0 else "mps")
    assert "\n" not in str(error.value)


def test_same_seed_same_bits_in_fresh_processes():
    code = """
import torch
from helpers.environment import seed_everything
from helpers.samples import digits
from helpers.data import Batches, RandomAffine
from helpers.training import train_one_epoch
seed_everything(7)
train_set, _ = digits()
model = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.Flatten(), torch.nn.Linear(6 * 24 * 24, 10))
batches = Batches(train_set.subset(slice(0, 300)), 64, lambda x: RandomAffine(9, 0.1, 2)(x / 255), shuffle=True)
score = train_one_epoch(model, batches, torch.nn.functional.cross_entropy, torch.optim.SGD(model.parameters(), 0.1))
print(score.loss.hex(), [p.double().sum().item().hex() for p in model.parameters()])
"""
    folder = Path(environment.__file__).parents[1]
    outputs = [subprocess.check_output([sys.executable, "-c", code], cwd=folder, text=True) for _ in range(2)]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(("seconds", "text"), [(41.6, "42 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")])
def test_clock(seconds, text):
    assert environment.clock(seconds) == text


def test_banner_names_what_it_must():
    run = environment.start_run("29_lenet_mnist", not_found, seed=5)
    banner = run.banner("sample digits")
    for part in ("29_lenet_mnist", "quick", run.device.type, "sample digits", torch.__version__, str(run.threads), "5"):
        assert part in banner
