"""Checkpoints: exact resume, damaged files, other settings, full disks, and files that would run code."""

import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import isolated
import numpy as np
import pytest
import torch
from common import as_floats, noise, refused, same
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from helpers import environment
from helpers.data import Batches
from helpers.keeping import guard, states, store
from helpers.keeping.checkpoint import Checkpoint, CheckpointError
from helpers.training import History, fit

NOISE = noise(25, 1, 32)


def new_run(batches=None, step_size=1e-3, width=4, seed=3, batch_size=10, added=0.0, frozen=False, one_cycle=True):
    """Model, optimizer, schedule and shuffled batches."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, width, 5), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 784, 10))
    model[0].requires_grad_(not frozen).weight.data += added
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=step_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 10 * step_size, total_steps=30) if one_cycle else None
    return model, optimizer, schedule, batches or Batches(NOISE, batch_size, as_floats, shuffle=True)


def train(parts, where, epochs, history=None, criterion=None, test=None, **more):
    """Train to this epoch; the history."""
    model, optimizer, schedule, batches = parts
    history = History() if history is None else history
    given = criterion or nn.CrossEntropyLoss(), optimizer, epochs, history, schedule
    fit(model, batches, test or batches, *given, checkpoint=where, **more)
    return history


@pytest.fixture
def where(tmp_path):
    return Checkpoint(tmp_path / "run", "improved", {"profile": "laptop"})


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Epochs here take milliseconds, and each is to be on disk."""
    monkeypatch.setattr(guard, "PAUSE", -1)
    monkeypatch.setattr(guard, "SHARE", 0)


@pytest.fixture(scope="module")
def undisturbed():
    """The network and the history after three epochs without checkpoints."""
    parts = new_run()
    return parts[0], train(parts, None, 3)


@pytest.fixture(scope="module")
def soaked() -> str:
    """What the soak test says of each epoch's end and of a few kills."""
    command = [sys.executable, Path(__file__).with_name("soak.py"), "--kills", "6"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout + result.stderr


def test_resumed_after_each_epoch_in_a_new_process_equals_undisturbed(soaked):
    """AdamW, one-cycle schedule, dropout, batch norm, augmentation, channels_last: the same bits."""
    assert "4 runs stopped at an epoch's end and resumed, 0 differ" in soaked, soaked


def test_killed_at_random_moments_loses_no_finished_epoch(soaked):
    assert " kills in " in soaked and "; 0 problems" in soaked, soaked


def test_new_objects_go_on_and_then_are_complete(where, capsys):
    first, second, third = new_run(), new_run(), new_run()
    before = train(first, where, 3)
    assert sorted(where.files()) == [2, 3]  # the last two are kept
    capsys.readouterr()
    calls = []
    after = train(second, where, 3, on_epoch_end=lambda history: calls.append(len(history)))
    out = capsys.readouterr().out
    assert "Resumed after epoch 3" in out and "Complete: 3 of 3 epochs" in out
    assert "start afresh with a new model, optimizer and History() after run.checkpoint('improved').remove()" in out
    assert calls == [3] and after == before and same(first[0], second[0])
    train(second, where, 4, after)  # more epochs are no other setting
    assert sorted(where.files()) == [3, 4]
    assert train(third, where, 4) == after and same(second[0], third[0])


def test_numbers_of_python_and_numpy_are_resumed(where):
    """Random ones, and those that settings are made of."""
    named = Checkpoint(where.folder, "improved", {"images": np.int64(25)})
    train(new_run(step_size=np.float64(1e-3)), named, 1)
    expected = random.random(), np.random.rand()
    random.seed(1), np.random.seed(1)
    train(new_run(step_size=np.float64(1e-3)), named, 1)
    assert (random.random(), np.random.rand()) == expected


@pytest.mark.parametrize("where_broken", ["first byte", "middle", "end"])
def test_a_flipped_bit_falls_back_to_the_one_before(where, capsys, undisturbed, where_broken):
    train(new_run(), where, 3)
    data = bytearray(where.files()[3].read_bytes())
    data[{"first byte": 0, "middle": len(data) // 2, "end": -20}[where_broken]] ^= 1
    where.files()[3].write_bytes(data)
    capsys.readouterr()
    parts = new_run()
    settings = train(parts, where, 3).settings
    out = capsys.readouterr().out
    assert "improved.0003.checkpoint is damaged" in out and "the one before is used. Resumed after epoch 2" in out
    assert same(parts[0], undisturbed[0]) and sorted(where.files()) == [2, 3]
    assert where.load(settings)[0]["epoch"] == 3  # the damaged one was replaced


def test_nothing_intact_is_said_and_never_a_silent_start(where):
    train(new_run(), where, 3)
    for path in where.files().values():
        path.write_bytes(path.read_bytes()[:-7])
    parts = new_run()
    way_out = r"No checkpoint of 'improved'.*start afresh with run.checkpoint\('improved'\).remove\(\)"
    with refused(CheckpointError, way_out, parts[0]) as error:
        train(parts, where, 3)
    assert str(where.folder) in str(error.value) and len(where.files()) == 2
    where.remove()
    assert len(train(parts, where, 1)) == 1


EXCHANGED = replace(NOISE, images=NOISE.images.flip(0))  # same counts, sizes and labels


@pytest.mark.parametrize(
    ("change", "how", "named"),
    [
        ({"step_size": 2e-3}, {}, "optimizer.initial_lr was 0.0004"),
        ({"width": 5}, {}, r"model.0.weight was \(4, 1, 5, 5\), trained, now \(5, 1, 5, 5\), trained"),
        ({"frozen": True}, {}, r"model.0.weight was \(4, 1, 5, 5\), trained, now \(4, 1, 5, 5\), frozen"),
        ({"added": 1}, {}, "weights before training was"),  # as of pretrained ones
        ({"seed": 4}, {}, "seed was 3, now 4"),
        ({"one_cycle": False}, {}, "optimizer.lr was 0.0003.*, now 0.001"),
        ({"batch_size": 5}, {}, "train.batch_size was 10, now 5"),
        ({"batches": Batches(NOISE, 10, as_floats)}, {}, "train.shuffle was True, now False"),
        ({"batches": Batches(NOISE.subset(slice(0, 24)), 10, as_floats, True)}, {}, "train.images was"),
        ({"batches": Batches(EXCHANGED, 10, as_floats, True)}, {}, "train.images was"),
        ({}, {"criterion": nn.CrossEntropyLoss(label_smoothing=0.1)}, "first batch was .*loss of fixed logits"),
        ({}, {"precision": torch.float16}, r"precision was torch\.float32, now torch\.float16"),
    ],
)
def test_other_settings_are_refused_with_the_difference(where, change, how, named):
    train(new_run(), where, 2)
    parts = new_run(**change)
    with refused(CheckpointError, f"{named}.*Set them back to go on after epoch 2", parts[0]):
        train(parts, where, 3, **how)
    assert sorted(where.files()) == [1, 2]


def divided(by):
    return lambda images: images / by


def transformed(transform):
    return new_run(Batches(NOISE, 10, transform, shuffle=True))


def loaded(images):
    return new_run(DataLoader(TensorDataset(as_floats(images), NOISE.labels), batch_size=10))


def multiplied(factor):
    """A run with an own network, whose `forward` was edited."""
    parts, forward = new_run(), {"forward": lambda self, x: nn.Sequential.forward(self, x) * factor}
    parts[0].__class__ = type("Own", (nn.Sequential,), forward)
    return parts


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [
        (transformed, lambda images: images / 255, lambda images: images / 254),
        (transformed, v2.Lambda(lambda images: images / 255), v2.Lambda(lambda images: 255 / images.clamp(1))),
        (transformed, divided(255), divided(254)),
        (transformed, v2.Compose([as_floats, v2.RandomErasing(0.9)]), v2.Compose([as_floats, v2.RandomErasing(0.1)])),
        (loaded, NOISE.images, EXCHANGED.images),
        (multiplied, 1, 2),
    ],
    ids=["lambda", "v2.Lambda", "closure", "object", "pictures of a DataLoader", "network"],
)
def test_what_was_edited_or_exchanged_is_refused_and_the_same_resumed(where, make, first, second):
    assert len(train(make(first), where, 1)) == 1 and len(train(make(first), where, 2)) == 2
    with refused(CheckpointError, r"train.first batch was .*, now .*; test.first batch was"):
        train(make(second), where, 3)


def test_the_scaler_of_float16_is_part_of_a_checkpoint(where, monkeypatch):
    """It doubles its factor after some steps; a resumed run has the same bits only with the same factor."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *given, **more: scaler(*given, growth_interval=4, **more))
    alone, parts = new_run(), new_run()
    expected = train(alone, None, 3, precision=torch.float16)
    train(new_run(), where, 2, precision=torch.float16)
    history = train(parts, where, 3, precision=torch.float16)
    assert history.train_loss == expected.train_loss and expected.train_loss[2] < expected.train_loss[0]
    assert same(parts[0], alone[0])
    assert where.load(history.settings)[0]["states"][3]["scale"] == 2.0**10 * 2 ** (9 // 4)


@pytest.mark.parametrize("pickled_by", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path, where, pickled_by):
    train(new_run(), where, 1)
    path, trace = where.files()[1], tmp_path / "ran"
    malicious = type("Malicious", (), {"__reduce__": lambda self: (Path.touch, (trace,))})()
    content = {"epoch": 1, "settings": malicious, "history": {}, "states": []}
    with path.open("wb") as file:
        torch.save(content, file) if pickled_by == "torch" else pickle.dump(content, file, protocol=2)
    with pytest.raises(CheckpointError, match="is damaged"):
        train(new_run(), where, 2)
    assert not trace.exists()


def test_a_state_that_could_not_be_read_back_is_not_saved(where):
    assert "could not be read back safely" in where.save({"epoch": 1, "states": [{"path": Path()}]})
    assert "is not saved" in where.save({"epoch": 1, "states": [{"function": lambda: None}]})
    assert not any(where.folder.iterdir())


def test_a_full_disk_is_said_and_training_goes_on(tmp_path):
    """A file system of 2 MB, full after the first epoch; then there is room again, and the run goes on from disk."""
    where, parts, again = Checkpoint(tmp_path, "improved", {}), new_run(), new_run()
    filling = tmp_path / "filling"

    def fill(history):
        with filling.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while len(history) == 1 and file.write(bytes(4096)):
                pass

    def on_a_small_disk():
        isolated.small_disk(tmp_path, "2m")
        train(parts, where, 3, on_epoch_end=fill)
        filling.unlink()
        train(again, where, 3)
        return sorted(where.files()), list(tmp_path.glob("*.partial")), same(again[0], parts[0])

    outcome = isolated.run(on_a_small_disk)
    assert outcome.value == ([2, 3], [], True), outcome
    assert "The checkpoint of epoch 2 is not saved" in outcome.printed
    for part in (" bytes needed, 0 free: No space left on device", "Training goes on", "Resumed after epoch 1"):
        assert part in outcome.printed


def test_a_folder_that_cannot_be_made_is_said_and_training_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    history = train(new_run(), Checkpoint(tmp_path / "file", "improved", {}), 2, verbose=False)
    out = capsys.readouterr().out
    assert len(history) == 2 and "checkpoint of epoch 2 is not saved" in out  # even though verbose is False


@pytest.mark.parametrize(
    ("sent", "batch"), [(signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGINT, 5)], ids=["Stop", "SIGTERM", "test"]
)
def test_a_signal_takes_the_run_back_and_the_files_hold_every_finished_epoch(where, sent, batch, capsys, undisturbed):
    """In the third epoch: three batches of training, three of the test. Afterwards the handlers are those of before."""
    parts, history, batches = new_run(), History(), []
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def watch(images):
        batches.append(1)
        if len(batches) == 4 + 2 * 6 + batch:  # four are looks before training
            os.kill(os.getpid(), sent)
        return as_floats(images)

    parts[3].transform = lambda images: watch(images)
    with pytest.raises(KeyboardInterrupt):
        train(parts, where, 3, history)
    assert "all is back at the end of epoch 2. Run this cell again" in capsys.readouterr().out
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert len(history) == 2 and sorted(where.files()) == [1, 2] and parts[0][1].num_batches_tracked == 2 * 3
    assert not list(where.folder.glob("*.partial"))
    train(new_run(), where, 2)  # intact
    parts[3].transform = as_floats
    train(parts, where, 3, history)
    assert history.test_loss == undisturbed[1].test_loss and same(parts[0], undisturbed[0])


def test_a_signal_while_saving_waits_until_the_file_is_whole(where, monkeypatch):
    whole = torch.save

    def save(content, file):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        whole(content, file)

    monkeypatch.setattr(torch, "save", save)
    history = History()
    with pytest.raises(KeyboardInterrupt):
        train(new_run(), where, 3, history)
    assert len(history) == 1 and sorted(where.files()) == [1]
    monkeypatch.undo()
    assert len(train(new_run(), where, 2)) == 2


def test_files_are_written_after_a_pause_and_always_at_the_end_and_on_stop(where, monkeypatch):
    saved, wait = [], fake_clock(monkeypatch)

    def save(self, content):
        saved.append(content["epoch"])
        wait(1)
        return ""

    monkeypatch.setattr(guard, "PAUSE", 30)
    monkeypatch.setattr(guard, "SHARE", 50)
    monkeypatch.setattr(Checkpoint, "save", save)
    train(new_run(), where, 9, on_epoch_end=lambda history: wait(10))
    assert saved == [4, 9]  # after 30 s; then not before 50 times the second that took; at the end
    saved.clear()
    with pytest.raises(KeyboardInterrupt):
        train(new_run(), where, 9, on_epoch_end=lambda history: len(history) < 3 or signal.raise_signal(signal.SIGINT))
    assert saved == [3]


def test_a_second_kernel_of_one_lecture_trains_without_checkpoints_and_harms_none(where, capsys, undisturbed):
    """What the second does happens at the end of an epoch of the first."""
    first, second, calls = new_run(), new_run(), []
    before = torch.get_rng_state()

    def meanwhile(history):
        if len(history) == 2 and not calls:
            calls.append(sorted(where.files()))
            between = states.snapshot([])
            torch.set_rng_state(before)
            assert train(second, where, 3, verbose=False).test_loss == undisturbed[1].test_loss
            where.remove()
            states.restore([], between)
            calls.append(sorted(where.files()))

    history = train(first, where, 3, on_epoch_end=meanwhile)
    out = capsys.readouterr().out
    assert "Another kernel is training 'improved'" in out and str(where.lock_file()) in out
    assert calls == [[1, 2], [1, 2]] and sorted(where.files()) == [2, 3] and same(first[0], undisturbed[0])
    assert history.test_loss == undisturbed[1].test_loss
    where.remove()
    assert not any(where.folder.iterdir())


def test_a_folder_without_locks_is_used_all_the_same(where, monkeypatch):
    def no_locks(*arguments, **more):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(store.FileLock, "acquire", no_locks)
    train(new_run(), where, 2)
    assert sorted(where.files()) == [1, 2]
    where.remove()  # as at the end of a lecture
    assert not where.files()


def test_the_number_of_threads_is_resumed(where, capsys):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train(new_run(), where, 1)
        torch.set_num_threads(1)
        train(new_run(), where, 2)
        assert torch.get_num_threads() == 2 and "Now 2 CPU threads" in capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)


def fake_clock(monkeypatch):
    """A function that lets time go by; by itself it hardly does."""
    now = [0.0]

    def wait(seconds=1e-6):
        now[0] += seconds
        return now[0]

    monkeypatch.setattr(guard.time, "perf_counter", wait)
    return wait


def test_a_slow_epoch_is_said_once_with_the_way_out(capsys, monkeypatch):
    wait, seconds = fake_clock(monkeypatch), iter([0, 10, 10, 30, 30, 10])  # the first is a check

    def test_images(images):
        wait(next(seconds))
        return as_floats(images)

    train(new_run(), None, 5, test=Batches(NOISE, 25, test_images))
    out = capsys.readouterr().out
    assert out.count("times as long as the fastest") == 1 and "Epoch 3 took 3.0 times" in out
    assert "restart the kernel" in out


def test_a_run_keeps_checkpoints_until_it_is_started_afresh(tmp_path, monkeypatch):
    monkeypatch.setenv("LECTURE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    quick = environment.start_run("29_lenet_mnist", lambda: None)
    assert quick.checkpoint("improved") is None
    monkeypatch.setenv("LECTURE_PROFILE", "laptop")
    run = environment.start_run("29_lenet_mnist", lambda: None)
    where = run.checkpoint("improved")
    train(new_run(), where, 1, verbose=False)
    assert [path.parent.name for path in where.files().values()] == ["29_lenet_mnist"]
    (where.folder / "improved.1.partial").touch()
    quick.start_afresh()
    assert where.files()  # of another run
    run.start_afresh()
    assert not where.folder.exists()
