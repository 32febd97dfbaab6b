"""Damaged checkpoints that nobody thought of: a run ends as if nothing had happened, or one line says why not.

FUZZ_EXAMPLES sets how many are tried (`make soak`: 2000).
"""

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from common import noise
from damage import damage, damages
from hypothesis import given, settings
from torch import nn

from helpers.data import Batches
from helpers.keeping import guard
from helpers.keeping.checkpoint import Checkpoint, CheckpointError
from helpers.training import History, fit

EPOCHS = 4
FILES = ("run.0002.checkpoint", "run.0003.checkpoint", "run.0001.checkpoint", "other.0003.checkpoint")  # newest: 3


def train(where, epochs, seed=0):
    """A run of few numbers; all that it ends with."""
    torch.manual_seed(seed)
    batches = Batches(noise(12, 1, 4, 3), 4, lambda images: images / 255, shuffle=True)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 3))
    adam, history = torch.optim.Adam(model.parameters(), lr=0.01), History()
    with mock.patch.multiple(guard, PAUSE=-1, SHARE=0):  # every epoch is to be on disk
        fit(model, batches, batches, F.cross_entropy, adam, epochs, history, verbose=False, checkpoint=where)
    return [history.train_loss, history.test_loss, model[2].weight.tolist(), model[2].bias.tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Intact files: three of one run, and one of a run with another seed."""
    folder = tmp_path_factory.mktemp("intact")
    train(Checkpoint(folder, "run", {}), 1)
    shutil.copy(folder / FILES[2], folder / "kept")
    train(Checkpoint(folder, "run", {}), 3)
    (folder / "kept").rename(folder / FILES[2])
    train(Checkpoint(folder, "other", {}), 3, seed=1)
    return folder


@pytest.fixture(scope="module")
def undisturbed():
    return train(None, EPOCHS)


@settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", 60)), deadline=None)
@given(plan=damages)
def test_never_a_wrong_result_and_never_only_a_library_error(folder, undisturbed, tmp_path_factory, plan):
    place = tmp_path_factory.mktemp("damaged")
    paths = [Path(shutil.copy(folder / name, place)) for name in FILES[:2]]
    damage(paths, plan, [(folder / name).read_bytes() for name in FILES])
    left = sorted(place.iterdir())
    try:
        ended = train(Checkpoint(place, "run", {}), EPOCHS)
    except CheckpointError as error:
        assert "\n" not in str(error) and "nothing was trained" in str(error).lower()
        assert sorted(place.glob("*.checkpoint")) == left  # kept
    else:
        assert ended == undisturbed
