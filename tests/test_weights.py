"""Weights files: found, downloaded, altered, malicious."""

import contextlib
import io
import pickle
import re
from pathlib import Path

import pytest
import torch
from mirrors import Mirror, serve
from small_data import Trap, contents, refusal, sha256, write
from torchvision import models

from helpers.datasets import weights
from helpers.transfer import load_backbone

STATE = {"conv1.weight": torch.arange(108.0).reshape(4, 3, 3, 3), "bn1.num_batches_tracked": torch.tensor(7)}


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def right(pretrained) -> bool:
    return all(torch.equal(pretrained.state[key], value) for key, value in STATE.items())


@pytest.fixture
def folder(home) -> Path:
    """`weights/` of an empty data folder, without network."""
    (home / "weights").mkdir()
    return home / "weights"


@pytest.fixture
def published(monkeypatch) -> bytes:
    """A small file in place of ResNet-18's, checksum and all."""
    content = saved(STATE)
    monkeypatch.setattr(weights, "RESNET18_CHECKSUM", sha256(content))
    monkeypatch.setattr(weights, "RESNET18_BYTES", len(content))
    return content


def test_file_is_the_one_that_torchvision_names():
    theirs = models.ResNet18_Weights.IMAGENET1K_V1
    assert theirs.url == weights.RESNET18_MIRRORS[0] + weights.RESNET18_FILE
    assert weights.RESNET18_CHECKSUM[:8] in weights.RESNET18_FILE and len(weights.RESNET18_CHECKSUM) == 64
    transform = theirs.transforms()
    assert list(weights.IMAGENET_MEAN) == transform.mean and list(weights.IMAGENET_STD) == transform.std


def test_good_file_is_only_read(folder, published):
    write(folder, {weights.RESNET18_FILE: published})
    pretrained = weights.imagenet_resnet18()
    assert right(pretrained)
    assert pretrained.name == "ImageNet (IMAGENET1K_V1)" and "SHA-256 verified" in pretrained.made
    assert [path.name for path in folder.iterdir()] == [weights.RESNET18_FILE]  # not even a lock: may be read-only


@pytest.mark.parametrize("content", [None, b"", b"not the weights"])
def test_missing_or_damaged_weights_are_named_or_downloaded(folder, published, content, monkeypatch):
    path = folder / weights.RESNET18_FILE
    if content is not None:
        path.write_bytes(content)
    message = refusal(weights.imagenet_resnet18)
    assert "OFFLINE is on. Copy resnet18-f37072fd.pth " in message and "from https://" in message
    assert ("(missing" if content is None else "kept, not used") in message
    monkeypatch.setenv("LECTURE_OFFLINE", "0")
    files = {weights.RESNET18_FILE: published}
    with serve(Mirror(files, "flips")) as bad, serve(Mirror(files)) as good:
        monkeypatch.setattr(weights, "RESNET18_MIRRORS", [bad.address])
        assert "wrong SHA-256" in refusal(weights.imagenet_resnet18)
        assert contents(folder) == ({} if content is None else {weights.RESNET18_FILE: content})
        monkeypatch.setattr(weights, "RESNET18_MIRRORS", [good.address])
        assert right(weights.imagenet_resnet18()) and right(weights.imagenet_resnet18())
    assert len(good.asked) == 1  # found the second time


@pytest.mark.parametrize("kind", ["bare", "zip"])
def test_a_malicious_pickle_of_the_right_name_does_not_run(tmp_path, folder, published, kind, monkeypatch):
    trap = tmp_path / "trap"
    content = pickle.dumps(Trap(trap), 2) if kind == "bare" else saved({"w": Trap(trap)})
    path = write(folder, {weights.RESNET18_FILE: content}) / weights.RESNET18_FILE
    assert "kept, not used" in refusal(weights.imagenet_resnet18)
    monkeypatch.setattr(weights, "find_imagenet_resnet18", lambda: path)  # changed between finding and reading
    assert "was changed" in refusal(weights.imagenet_resnet18)
    monkeypatch.setattr(weights, "RESNET18_CHECKSUM", sha256(content))
    with pytest.raises(Exception, match=r"(?i)weights.only"):  # not even with the right checksum
        weights.imagenet_resnet18()
    assert not trap.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no file of torch's, but has run by then
        torch.load(io.BytesIO(content), weights_only=False)
    assert trap.exists()  # it was a real trap


def test_the_projects_own_weights_come_with_it_and_fit_all_but_the_head(home):
    pretrained = weights.tiny_imagenet_resnet18()
    model = models.resnet18(num_classes=10)
    loaded = load_backbone(model, pretrained.state)
    assert (len(loaded.loaded), loaded.missing, loaded.unexpected) == (120, ("fc.weight", "fc.bias"), {})
    published = re.findall(r"[0-9a-f]{64}", (weights.OWN_FOLDER / "README.md").read_text())
    assert published == [sha256(path.read_bytes()) for path in sorted(weights.OWN_FOLDER.glob("*.safetensors"))[::-1]]
    assert published[0] == weights.OWN_CHECKSUM
    assert all(t.dtype in (torch.float32, torch.int64) and t.isfinite().all() for t in pretrained.state.values())


def test_altered_or_missing_weights_of_the_project_are_not_used(folder, monkeypatch):
    write(folder, {weights.OWN_FILE: b"not the weights"})
    assert "was changed (SHA-256) and not used" in refusal(weights.tiny_imagenet_resnet18)
    (folder / weights.OWN_FILE).unlink()
    monkeypatch.setattr(weights, "OWN_FOLDER", folder)
    assert f"{weights.OWN_FILE} is not in {folder}" in refusal(weights.tiny_imagenet_resnet18)
