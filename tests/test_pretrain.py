"""`make pretrain`, on a few images of noise: it stops where asked, goes on, and writes what lecture 45 loads."""

import importlib.util

import pytest
import torch
from common import noise
from safetensors.torch import load_file
from torchvision import models

from helpers.keeping.environ import ROOT
from helpers.transfer import load_backbone


@pytest.fixture
def pretrain(tmp_path, monkeypatch):
    """The script, with two epochs, on noise of three classes, in an empty folder."""
    spec = importlib.util.spec_from_file_location("pretrain", ROOT / "data" / "weights" / "pretrain.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sets = noise(24, 3, 32, 6), noise(12, 3, 32, 6)
    for name, value in {"ROOT": tmp_path, "EPOCHS": 2, "BATCH": 8, "load_image_folder": lambda folder: sets}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "choose_device", lambda: (torch.device("cpu"), "a CPU"))
    return script


def test_it_stops_goes_on_and_writes_its_weights(pretrain, tmp_path, capsys):
    written = tmp_path / "build/weights/resnet18-tiny-imagenet-64px.safetensors"
    pretrain.main(tmp_path, stop_after=1)
    assert "stopped as asked, after 1 of 2 epochs" in capsys.readouterr().out and not written.exists()
    pretrain.main(tmp_path, stop_after=2)
    assert "epoch 2: top-1" in capsys.readouterr().out
    state = load_file(written)
    assert not any(name.startswith("fc.") for name in state) and state["conv1.weight"].dtype == torch.float16
    model = models.resnet18()
    load_backbone(model, state, new=("fc",))
    assert torch.equal(model.conv1.weight, state["conv1.weight"].float())
    assert not list((tmp_path / "build/checkpoints/pretrain").glob("*.checkpoint"))
