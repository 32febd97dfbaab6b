"""Damaged checkpoints that nobody thought of: a run ends as if nothing had happened, or one line says why not.

FUZZ_EXAMPLES sets how many are tried (`make soak`: 2000).
"""

import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.checkpoint import Checkpoint, CheckpointError
from helpers.data import Batches, ImageSet
from helpers.training import History, fit

EPOCHS = 4
FILES = ("run.0002.checkpoint", "run.0003.checkpoint", "run.0001.checkpoint", "other.0003.checkpoint")  # newest: 3


def train(where, epochs, seed=0):
    """A run of few numbers; all that it ends with."""
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (12, 1, 4, 4), dtype=torch.uint8)
    noise = ImageSet(images, torch.arange(12) % 3, ["a", "b", "c"], "noise", "torch.randint")
    batches = Batches(noise, 4, lambda images: images / 255, shuffle=True)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 3))
    adam, history = torch.optim.Adam(model.parameters(), lr=0.01), History()
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


def truncate(data, other, position, amount):
    return data[:position]


def empty(data, other, position, amount):
    return b""


def flip(data, other, position, amount):
    return data[:position] + bytes([data[position] ^ (1 << amount % 8)]) + data[position + 1 :]


def oversize(data, other, position, amount):
    return data + bytes(amount)


def insert(data, other, position, amount):
    return data[:position] + other[:amount] + data[position:]


def zeros(data, other, position, amount):
    return data[:position] + bytes(len(data[position : position + amount])) + data[position + amount :]


def swap(data, other, position, amount):
    return other


def splice(data, other, position, amount):
    return data[:position] + other[position:]


damages = st.tuples(
    st.integers(0, 1),
    st.sampled_from([truncate, empty, flip, oversize, insert, zeros, swap, splice]),
    st.integers(0, len(FILES) - 1),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 5000),
)


@settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", 60)),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(damage=st.lists(damages, min_size=1, max_size=3))
def test_never_a_wrong_result_and_never_only_a_library_error(folder, undisturbed, tmp_path_factory, damage):
    place = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    contents = {name: (folder / name).read_bytes() for name in FILES}
    for name in FILES[:2]:
        (place / name).write_bytes(contents[name])
    for target, change, other, share, amount in damage:
        path = place / FILES[target]
        data = path.read_bytes() or b"\0"
        path.write_bytes(change(data, contents[FILES[other]], int(share * len(data)), amount))
    try:
        ended = train(Checkpoint(place, "run", {}), EPOCHS)
    except CheckpointError as error:
        assert "\n" not in str(error) and "nothing was trained" in str(error).lower()
        assert sorted(path.name for path in place.iterdir()) == sorted(FILES[:2])  # kept
    else:
        assert ended == undisturbed
