"""Checkpoints: exact resume, damaged files, other settings, full disks, and files that would run code."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import checkpoint, checksummed, environment, results
from helpers.checkpoint import Checkpoint, CheckpointError
from helpers.data import Batches
from helpers.training import History, fit

SOAK = Path(__file__).with_name("soak.py")


def as_floats(images):
    return images.float() / 255


def new_run(noise_set, step_size=1e-3, width=4, seed=3, batch_size=10):
    """Model, optimizer, schedule and shuffled batches."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, width, 5), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width * 784, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=step_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 10 * step_size, total_steps=30)
    return model, optimizer, schedule, Batches(noise_set, batch_size, as_floats, shuffle=True)


def train(parts, where, epochs, history=None, **more):
    """Train to this epoch; the history."""
    model, optimizer, schedule, batches = parts
    history = History() if history is None else history
    fit(model, batches, batches, F.cross_entropy, optimizer, epochs, history, schedule, checkpoint=where, **more)
    return history


def weights(parts):
    return copy.deepcopy(parts[0].state_dict())


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture
def where(tmp_path):
    return Checkpoint(tmp_path / "run", "improved", {"profile": "laptop"})


@pytest.fixture(scope="module")
def soaked() -> str:
    """What the soak test says of each epoch's end and of a few kills."""
    result = subprocess.run([sys.executable, SOAK, "--kills", "5"], capture_output=True, text=True)
    return result.stdout + result.stderr


def test_resumed_after_each_epoch_in_a_new_process_equals_undisturbed(soaked):
    """AdamW, one-cycle schedule, dropout, batch norm, augmentation, channels_last: the same bits."""
    assert "4 runs stopped at an epoch's end and resumed, 0 differ" in soaked, soaked


def test_killed_at_random_moments_loses_no_finished_epoch(soaked):
    assert " kills in " in soaked and "; 0 problems" in soaked, soaked


def test_new_objects_go_on_and_then_are_complete(noise_set, where, capsys):
    first = new_run(noise_set)
    before = train(first, where, 3)
    assert sorted(where.files()) == [2, 3]  # the last two are kept
    capsys.readouterr()
    second = new_run(noise_set)
    calls = []
    after = train(second, where, 3, on_epoch_end=lambda history: calls.append(len(history)))
    out = capsys.readouterr().out
    assert (
        "Resumed after epoch 3" in out
        and "Complete: 3 of 3 epochs" in out
        and "after run.checkpoint('improved').remove()" in out
    )
    assert calls == [3] and after == before and same(weights(first), weights(second))
    train(second, where, 4, after)  # more epochs are no other setting
    assert sorted(where.files()) == [3, 4]
    third = new_run(noise_set)
    assert train(third, where, 4) == after and same(weights(second), weights(third))


def test_random_numbers_of_python_and_numpy_are_resumed(noise_set, where):
    import random

    train(new_run(noise_set), where, 1)
    expected = random.random(), np.random.rand()
    random.seed(1), np.random.seed(1)
    train(new_run(noise_set), where, 1)
    assert (random.random(), np.random.rand()) == expected


@pytest.mark.parametrize("where_broken", ["first byte", "middle", "last byte"])
def test_a_flipped_bit_falls_back_to_the_one_before(noise_set, where, capsys, where_broken):
    undisturbed = new_run(noise_set)
    train(undisturbed, None, 3)
    train(new_run(noise_set), where, 3)
    data = bytearray(where.files()[3].read_bytes())
    data[{"first byte": 0, "middle": len(data) // 2, "last byte": -1}[where_broken]] ^= 1
    where.files()[3].write_bytes(data)
    capsys.readouterr()
    parts = new_run(noise_set)
    train(parts, where, 3)
    out = capsys.readouterr().out
    assert "improved.0003.checkpoint is damaged" in out and "the one before is used. Resumed after epoch 2" in out
    assert same(weights(parts), weights(undisturbed)) and sorted(where.files()) == [2, 3]
    assert where.load(train(new_run(noise_set), where, 3).settings)[0]["epoch"] == 3  # the damaged one was replaced


def test_a_file_renamed_to_another_epoch_is_not_taken_for_it(noise_set, where, capsys):
    train(new_run(noise_set), where, 3)
    where.files()[2].rename(where.folder / "improved.0009.checkpoint")
    train(new_run(noise_set), where, 4)
    out = capsys.readouterr().out
    assert "improved.0009.checkpoint is damaged (not the checkpoint of this epoch)" in out
    assert "Resumed after epoch 3" in out and sorted(where.files()) == [3, 4]


def test_nothing_intact_is_said_and_never_a_silent_start(noise_set, where):
    train(new_run(noise_set), where, 3)
    for path in where.files().values():
        path.write_bytes(path.read_bytes()[:-7])
    parts = new_run(noise_set)
    before = weights(parts)
    with pytest.raises(
        CheckpointError, match=r"No checkpoint of 'improved'.*start over with run.checkpoint\('improved'\).remove\(\)"
    ) as error:
        train(parts, where, 3)
    assert "\n" not in str(error.value) and str(where.folder) in str(error.value)
    assert same(before, weights(parts)) and len(where.files()) == 2
    where.remove()
    assert len(train(parts, where, 1)) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"step_size": 2e-3}, "optimizer.initial_lr was 0.0004, now 0.0008"),
        ({"width": 5}, r"model.0.weight was \(4, 1, 5, 5\), trained, now \(5, 1, 5, 5\), trained"),
        ({"seed": 4}, "seed was 3, now 4"),
        ({"batch_size": 5}, "train.batch_size was 10, now 5"),
    ],
)
def test_other_settings_are_refused_with_the_difference(noise_set, where, change, named):
    train(new_run(noise_set), where, 2)
    parts = new_run(noise_set, **change)
    before = weights(parts)
    with pytest.raises(CheckpointError, match=named) as error:
        train(parts, where, 3)
    assert "\n" not in str(error.value) and "Set them back to go on after epoch 2" in str(error.value)
    assert same(before, weights(parts)) and sorted(where.files()) == [1, 2]


def settings_of(noise_set, where, **change):
    """The settings of a run whose parts are changed before it begins."""
    model, optimizer, schedule, batches = new_run(noise_set)
    given = {"criterion": nn.CrossEntropyLoss(), "scheduler": schedule, "precision": None, "batches": batches, **change}
    if "freeze" in change:
        model[0].requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        given["scheduler"] = None
    history = History()
    learn, rest = given["batches"], (given["criterion"], optimizer, 1, history, given["scheduler"], given["precision"])
    fit(model, learn, learn, *rest, verbose=False, checkpoint=where)
    where.remove()
    return history.settings


def test_what_decides_the_result_is_among_the_settings(noise_set, where):
    plain = settings_of(noise_set, where)
    assert plain == settings_of(noise_set, where)
    others = {
        "loss": {"criterion": nn.CrossEntropyLoss(label_smoothing=0.1)},
        "schedule": {"scheduler": None},
        "precision": {"precision": torch.float16},
        "order": {"batches": Batches(noise_set, 10, as_floats)},
        "transform": {"batches": Batches(noise_set, 10, lambda images: images / 128, shuffle=True)},
        "images": {"batches": Batches(noise_set.subset(slice(0, 24)), 10, as_floats, shuffle=True)},
        "choice of images": {"batches": Batches(noise_set.subset(torch.arange(24, -1, -1)), 10, as_floats, True)},
        "frozen": {"freeze": True},
    }
    for name, change in others.items():
        assert checkpoint.differences(plain, settings_of(noise_set, where, **change)), name


def test_pretrained_weights_are_another_run(noise_set, where):
    """Names, shapes and seed agree; the values at the start do not."""
    train(new_run(noise_set), where, 1)
    parts = new_run(noise_set)
    with torch.no_grad():
        parts[0][0].weight.add_(1)
    with pytest.raises(CheckpointError, match="weights before training was"):
        train(parts, where, 2)


def test_numpy_numbers_do_not_break_loading(noise_set, where):
    named = Checkpoint(where.folder, "improved", {"images": np.int64(25)})
    train(new_run(noise_set, step_size=np.float64(1e-3)), named, 1)
    assert sorted(named.files()) == [1]
    assert len(train(new_run(noise_set, step_size=np.float64(1e-3)), named, 2)) == 2


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("pickled_by", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path, noise_set, where, pickled_by):
    train(new_run(noise_set), where, 1)
    path, trace = where.files()[1], tmp_path / "ran"
    with path.open("wb") as file:  # with a right checksum: anybody can work that out
        summing = checksummed.Summing(file, 0)
        content = {"epoch": 1, "settings": Malicious(trace), "history": {}, "states": []}
        torch.save(content, summing) if pickled_by == "torch" else pickle.dump(content, summing, protocol=2)
        file.write(checksummed.END.pack(file.tell(), summing.checksum))
    with pytest.raises(CheckpointError, match="is damaged"):
        train(new_run(noise_set), where, 2)
    assert not trace.exists()


def test_a_state_that_could_not_be_read_back_is_not_saved(where):
    assert "could not be read back safely" in where.begin(1, [{"path": Path()}]).finish({})
    assert "could not be read back safely" in where.begin(1, []).finish({"path": Path()})
    assert "torch cannot store it" in where.begin(1, [{"function": lambda: None}]).finish({})
    assert not any(where.folder.iterdir())


def test_a_file_of_which_only_the_first_block_was_written_is_damaged(noise_set, where, capsys):
    train(new_run(noise_set), where, 2)
    path = where.files()[2]
    data = path.read_bytes()
    length, _ = checksummed.END.unpack(data[-checksummed.END.size :])
    path.write_bytes(data[: -checksummed.END.size - length])
    content, reason = checksummed.read_verified(path)
    assert content.keys() == {"epoch", "states"} and reason == ""  # a block that is right, for itself
    train(new_run(noise_set), where, 2)
    assert "is damaged (not the checkpoint of this epoch): the one before is used" in capsys.readouterr().out


def test_two_halves_of_different_files_do_not_fit(noise_set, where):
    """Each block's own checksum would be right."""
    train(new_run(noise_set), where, 2)
    halves = []
    for path in where.files().values():
        data = path.read_bytes()
        length, _ = checksummed.END.unpack(data[-checksummed.END.size :])
        border = len(data) - length - checksummed.END.size
        halves.append((data[:border], data[border:]))
    newer, older = halves
    mixed = older[0] + newer[1]
    where.files()[2].write_bytes(mixed)
    assert checksummed.read_verified(where.files()[2]) == (None, f"{len(mixed):,} bytes, wrong checksum")


def test_a_stop_in_the_test_leaves_the_epoch_before_and_nothing_half_written(noise_set, where):
    """By then the states of the new epoch are on their way to the disk."""
    undisturbed = new_run(noise_set)
    train(undisturbed, None, 3)
    parts = new_run(noise_set)
    model, optimizer, schedule, batches = parts
    history = train(parts, where, 2)

    def stop(images):
        raise KeyboardInterrupt

    test = Batches(noise_set, 10, stop, shuffle=True)
    with pytest.raises(KeyboardInterrupt):
        fit(model, batches, test, F.cross_entropy, optimizer, 3, history, schedule, checkpoint=where)
    assert len(history) == 2 and 2 in where.files()
    assert not list(where.folder.glob("*.partial"))
    train(new_run(noise_set), where, 2)  # intact
    train(parts, where, 3, history)
    assert same(weights(parts), weights(undisturbed)) and sorted(where.files()) == [2, 3]


FULL_DISK = """
import sys
sys.path[:0] = ["notebooks", "tests"]
import torch
from pathlib import Path
from test_checkpoint import new_run, train, weights, same
from helpers.checkpoint import Checkpoint
from helpers.data import ImageSet
torch.manual_seed(1)
noise = ImageSet(torch.randint(0, 256, (25, 1, 32, 32)).byte(), torch.arange(25) % 10, list("0123456789"), "noise", "")
where = Checkpoint(Path(sys.argv[1]), "improved", {})
parts, alone = new_run(noise), new_run(noise)
def fill(history):
    if len(history) == 1:
        with open(where.folder / "filling", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)): pass
            except OSError: pass
history = train(parts, where, 3, on_epoch_end=fill)
again = new_run(noise)
(where.folder / "filling").unlink()
train(again, where, 3)
print("files", sorted(where.files()), [path.name for path in where.folder.glob("*.partial")])
print("as usual", same(weights(again), weights(parts)))
"""


def test_a_full_disk_is_said_and_training_goes_on(tmp_path):
    """A file system of 2 MB, full after the first epoch; then there is room again, and the run goes on from disk."""
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=2m none {small}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    script = tmp_path / "script.py"
    script.write_text(FULL_DISK)
    command = f'{mount} && exec "{sys.executable}" "{script}" "{small}"'
    root = Path(__file__).parents[1]
    result = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, cwd=root)
    out = result.stdout
    assert "The checkpoint of epoch 2 is not saved: No space left on device (0." in out, out + result.stderr
    assert "MB needed, 0.0 MB free in" in out and "Training goes on" in out and "Resumed after epoch 1" in out
    assert "files [2, 3] []" in out and "as usual True" in out


def test_a_folder_that_cannot_be_made_is_said_and_training_goes_on(noise_set, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    history = train(new_run(noise_set), Checkpoint(tmp_path / "file", "improved", {}), 2, verbose=False)
    out = capsys.readouterr().out
    assert len(history) == 2 and "checkpoint of epoch 2 is not saved" in out  # even though verbose is False


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_takes_the_run_back_and_the_files_hold_every_finished_epoch(noise_set, where, sent, capsys):
    """In the middle of the third epoch. Afterwards the handlers are those of before."""
    undisturbed = new_run(noise_set)
    expected = train(undisturbed, None, 4)
    parts = new_run(noise_set)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    history, batches = History(), 0

    def watch(images):
        nonlocal batches
        batches += 1
        if len(history) == 2 and batches % 4 == 0:
            os.kill(os.getpid(), sent)
        return images

    parts[3].transform = lambda images: watch(as_floats(images))
    with pytest.raises(KeyboardInterrupt):
        train(parts, where, 4, history)
    assert "all is back at the end of epoch 2. Run this cell again" in capsys.readouterr().out
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert len(history) == 2 and sorted(where.files()) == [1, 2]
    parts[3].transform = as_floats
    train(parts, where, 4, history)
    assert history.test_loss == expected.test_loss and same(weights(parts), weights(undisturbed))


def test_a_signal_while_saving_waits_until_the_file_is_whole(noise_set, where, monkeypatch):
    whole = checkpoint.write_block

    def write(file, content, before=0):
        if before:  # the end of the file, after the test
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        return whole(file, content, before)

    monkeypatch.setattr(checkpoint, "write_block", write)
    history = History()
    with pytest.raises(KeyboardInterrupt):
        train(new_run(noise_set), where, 3, history)
    assert len(history) == 1 and sorted(where.files()) == [1]
    monkeypatch.undo()
    assert len(train(new_run(noise_set), where, 2)) == 2


def test_training_in_a_thread_leaves_signals_alone(noise_set):
    problems = []

    def work():
        try:
            train(new_run(noise_set), None, 1, verbose=False)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not problems


def test_a_run_keeps_checkpoints_until_its_results_are_saved(noise_set, tmp_path, monkeypatch, lenet):
    monkeypatch.setenv("LECTURE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("LECTURE_RESULTS", str(tmp_path / "results"))
    quick = environment.start_run("29_lenet_mnist", lambda: None)
    assert quick.checkpoint("improved") is None
    monkeypatch.setenv("LECTURE_PROFILE", "laptop")
    run = environment.start_run("29_lenet_mnist", lambda: None)
    where = run.checkpoint("improved")
    train(new_run(noise_set), where, 1, verbose=False)
    assert [path.parent.name for path in where.files().values()] == ["29_lenet_mnist"]
    (where.folder / "improved.0002.1.partial").touch()
    results.save_results(quick, noise_set, noise_set, 32, {})
    assert where.files()  # of another run
    results.save_results(run, noise_set, noise_set, 32, {})
    assert not where.folder.exists()


def test_checkpoints_are_below_build_by_default(monkeypatch):
    monkeypatch.delenv("LECTURE_CHECKPOINTS", raising=False)
    assert checkpoint.checkpoint_folder("x") == Path(__file__).parents[1] / "build" / "checkpoints" / "x"
