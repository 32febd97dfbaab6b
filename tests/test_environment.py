"""Profiles, switches and folders of the environment, the banner, seeds, and cells run out of order."""

import re
from pathlib import Path

import pytest
import torch
from common import FOLDER, python, refused

from helpers import environment
from helpers.keeping import environ


def found() -> Path:
    return Path("data")


def not_found() -> Path:
    raise OSError("MNIST: no mirror delivered it")


def test_unknown_profile_lists_the_known_ones(monkeypatch):
    monkeypatch.setenv("LECTURE_PROFILE", "fast")
    with refused(ValueError, r"LECTURE_PROFILE='fast'.*quick.*laptop.*evening.*lecture.*auto"):
        environment.start_run("any", found)


@pytest.mark.parametrize(
    ("requested", "cuda", "find", "seconds", "profile"),
    [
        ("auto", True, found, 3500, "lecture"),
        ("auto", True, found, 3700, "evening"),  # hours that nobody asked for
        ("lecture", True, found, 9e9, "lecture"),
        ("auto", False, found, 0, "laptop"),
        ("auto", True, not_found, 0, "quick"),
        ("laptop", True, found, 0, "laptop"),
        ("evening", False, found, 0, "evening"),
        ("quick", True, not_found, 0, "quick"),  # the sample needs no dataset
    ],
)
def test_profile_follows_request_device_data_and_estimate(requested, cuda, find, seconds, profile):
    assert environment.choose_profile(requested, cuda, find, seconds)[0] == profile


def test_auto_says_why_it_takes_less_and_a_profile_asked_for_is_never_replaced():
    assert "no mirror delivered it" in environment.choose_profile("auto", False, not_found)[1]
    assert re.search("2 h 30 min.*LECTURE_PROFILE=lecture", environment.choose_profile("auto", True, found, 9000)[1])
    with pytest.raises(OSError, match="no mirror"):
        environment.choose_profile("lecture", False, not_found)


def test_a_switch_has_the_usual_spellings_and_others_are_refused(monkeypatch):
    for on, values in {True: ["1", "true", "Yes", " on "], False: ["", "0", "False", "no", "off"]}.items():
        for value in values:
            monkeypatch.setenv("LECTURE_OFFLINE", value)
            assert environ.switch("LECTURE_OFFLINE") is on
    monkeypatch.setenv("LECTURE_OFFLINE", "perhaps")
    with refused(ValueError, "LECTURE_OFFLINE='perhaps' is not known. Set it to one of: 1, true, yes, on, 0, "):
        environ.switch("LECTURE_OFFLINE")


@pytest.mark.parametrize("name", ["LECTURE_DATA", "LECTURE_CHECKPOINTS", "LECTURE_RESULTS"])
def test_folders_are_whole_paths_and_nothing_is_created(monkeypatch, tmp_path, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value, expected in [("~/there", tmp_path / "there"), ("here", tmp_path / "here"), (" ", FOLDER.parent / "x")]:
        monkeypatch.setenv(name, value)
        assert environ.folder(name, "x") == expected
    assert not any(tmp_path.iterdir())


def test_every_variable_of_the_lectures_is_read_in_one_place():
    """So that one spelling of a switch, or of a folder, holds everywhere."""
    for path in FOLDER.glob("helpers/**/*.py"):
        reads = re.findall(r"environ\.get|getenv", path.read_text(encoding="utf-8"))
        assert not reads or path.name == "environ.py", path


def test_same_seed_same_bits_in_fresh_processes():
    code = """
import torch
from helpers.environment import seed_everything
from helpers.data import Batches, RandomAffine, digits
from helpers.training import train_one_epoch
seed_everything(7)
train_set, _ = digits()
model = torch.nn.Sequential(torch.nn.Conv2d(1, 6, 5), torch.nn.Flatten(), torch.nn.Linear(6 * 24 * 24, 10))
batches = Batches(train_set.subset(slice(0, 300)), 64, lambda x: RandomAffine(9, 0.1, 2)(x / 255), shuffle=True)
score = train_one_epoch(model, batches, torch.nn.functional.cross_entropy, torch.optim.SGD(model.parameters(), 0.1))
print(score.loss.hex(), [p.double().sum().item().hex() for p in model.parameters()])
"""
    first, second = python(code), python(code)
    assert first.stdout == second.stdout != "", first


def test_clock():
    assert [environment.clock(seconds) for seconds in (41.6, 185, 3725)] == ["42 s", "3 min 05 s", "1 h 02 min"]


def test_banner_names_what_it_must_and_the_plan_that_is_used():
    run = environment.start_run("29_lenet_mnist", not_found, seed=5, device="cpu", precision=torch.float16)
    banner = run.banner("sample digits")
    for part in ("29_lenet_mnist", "quick", "cpu", "sample digits", torch.__version__, "seed     5", "float16 ·"):
        assert part in banner
    assert re.search(rf"^threads +{torch.get_num_threads()} \(.+\)$", banner, re.MULTILINE)
    assert run.plan.precision == torch.float16
