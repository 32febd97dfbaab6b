"""Faults in training: each is provoked for real, ends in one clear line, and leaves the last good state."""

import copy
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from helpers import safety, training
from helpers.checkpoint import Checkpoint
from helpers.data import Batches, ImageSet
from helpers.training import History, fit, train_one_epoch


def as_floats(images):
    return images.float() / 255


def small_net(channels=1, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 784, classes)
    )


def colour_set(size, channels=3, count=6, classes=10):
    images = torch.zeros(count, channels, size, size, dtype=torch.uint8)
    return ImageSet(images, torch.arange(count) % classes, [str(i) for i in range(classes)], "black", "torch.zeros")


def run(model, batches, epochs=2, history=None, optimizer=None, **more):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    history = History() if history is None else history
    fit(model, batches, batches, F.cross_entropy, optimizer, epochs, history, verbose=False, **more)
    return history


def one_line(error):
    return "\n" not in str(error.value)


class TurnsBad:
    """A transform whose images hold `value` from the `call`th call on."""

    def __init__(self, call, value=math.nan):
        self.left, self.value = call, value

    def __call__(self, images):
        self.left -= 1
        images = as_floats(images)
        return images if self.left > 0 else images * self.value


# Calls of one epoch: 3 for training, 3 for the test; 2 before the first, for the checks.
def test_a_nan_loss_stops_at_its_batch_with_the_last_good_weights(noise_set):
    undisturbed, model, history = small_net(), small_net(), History()
    torch.manual_seed(1)
    run(undisturbed, Batches(noise_set, 10, as_floats, shuffle=True), epochs=1)
    torch.manual_seed(1)
    with pytest.raises(FloatingPointError, match=r"Epoch 2, batch 2: the loss is nan at step size 0\.01") as error:
        run(model, Batches(noise_set, 10, TurnsBad(10), shuffle=True), history=history)
    assert one_line(error) and "back at the end of epoch 1" in str(error.value) and len(history) == 1
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), undisturbed.state_dict().values(), strict=True)
    )


def test_a_nan_loss_is_found_where_the_loss_is_looked_at_only_at_the_end(noise_set, monkeypatch):
    """As on a GPU, where each look would have to wait."""
    monkeypatch.setitem(training.CHECK_EVERY, "cpu", 100)
    with pytest.raises(FloatingPointError, match=r"Epoch 2, batch 2: the loss is nan at step size 0\.01"):
        run(small_net(), Batches(noise_set, 10, TurnsBad(10)))


def test_a_step_size_that_is_too_large_stops_at_the_first_infinite_loss(noise_set):
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match=r"Epoch 1, batch \d: the loss is (inf|nan) at step size 1e\+30"):
        run(model, Batches(noise_set, 10, as_floats), optimizer=torch.optim.SGD(model.parameters(), lr=1e30))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_first_bad_batch_is_the_one_that_is_named():
    losses = [torch.tensor(value) for value in (1.0, math.inf, math.nan, 2.0)]
    trail = list(zip(losses, [0.4, 0.3, 0.2, 0.1], strict=True))
    with pytest.raises(FloatingPointError, match=r"batch 2: the loss is inf at step size 0.3"):
        training.check_finite(sum(losses), trail)
    training.check_finite(torch.tensor(3.0), trail[:1])


def test_nan_in_the_test_is_an_error_and_not_an_accuracy(noise_set):
    batches = Batches(noise_set, 10, as_floats)
    broken = Batches(noise_set, 10, TurnsBad(1))
    model = small_net()
    with pytest.raises(
        FloatingPointError, match=r"Epoch 1, test: the logits of 25 of 25 images are NaN.*end of epoch 0"
    ):
        fit(
            *(model, batches, broken, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.01), 1, History()),
            verbose=False,
        )
    with pytest.raises(FloatingPointError, match="logits of 25 of 25 images are NaN"):
        training.evaluate(model, broken, F.cross_entropy)


class Limited(nn.Module):
    """Has room for `room` images; beyond that it fails as CUDA does, or as the CPU does."""

    def __init__(self, room, error):
        super().__init__()
        self.net, self.room, self.error = small_net(), room, error

    def forward(self, x):
        activations = torch.zeros(3)
        self.last = weakref.ref(activations)
        if len(x) > self.room:
            self.failed = self.last
            raise type(self.error)(*self.error.args)
        return self.net(x)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_names_a_batch_that_fits_and_takes_everything_back(noise_set, error):
    model = Limited(6, error)
    optimizer = torch.optim.AdamW(model.parameters())
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(torch.OutOfMemoryError, match=r"Batches of 5 images fit: start over") as caught:
        run(model, Batches(noise_set, 20, as_floats, shuffle=True), optimizer=optimizer)
    assert one_line(caught) and "Epoch 1: out of memory" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not optimizer.state and torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert caught.value.__suppress_context__ and model.failed() is None  # although the first error is still known
    model.room, history = 25, History()
    run(model, Batches(noise_set, 5, as_floats), history=history, optimizer=torch.optim.AdamW(model.parameters()))
    assert len(history) == 2


def test_out_of_memory_even_for_one_image_or_in_the_test(noise_set):
    error = torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(torch.OutOfMemoryError, match="Not even one image fits"):
        run(Limited(0, error), Batches(noise_set, 20, as_floats))
    model = Limited(10, error)
    learn, test = Batches(noise_set, 10, as_floats), Batches(noise_set, 20, as_floats)
    with pytest.raises(torch.OutOfMemoryError, match="In the test: make its batches smaller"):
        fit(model, learn, test, F.cross_entropy, torch.optim.SGD(model.parameters(), 0.1), 1, History(), verbose=False)


class Asserts(nn.Module):
    """Fails like a CUDA device after an assert, from the `call`th batch on; and so does every later use."""

    def __init__(self, call):
        super().__init__()
        self.net, self.left = small_net(), call

    def forward(self, x):
        self.left -= 1
        if self.left <= 0:
            raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")
        return self.net(x)

    def load_state_dict(self, *args, **more):
        raise RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("saved", "goes_on"), [(True, "goes on after epoch 1, which is on disk"), (False, "begins anew")]
)
def test_a_lost_gpu_says_restart_and_how_to_resume(noise_set, tmp_path, saved, goes_on):
    where = Checkpoint(tmp_path, "run", {}) if saved else None
    with pytest.raises(RuntimeError, match=f"Epoch 2: the GPU reported .*Restart the kernel.*{goes_on}") as error:
        run(Asserts(2 + 6 + 2), Batches(noise_set, 10, as_floats), checkpoint=where)
    assert one_line(error)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_out_of_memory_is_freed_and_a_batch_is_named():
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        model = models.resnet18(num_classes=10).cuda()
        batches = Batches(colour_set(64, count=4096).to("cuda"), 4096, as_floats)
        with pytest.raises(torch.OutOfMemoryError, match=r"Batches of \d+ images fit"):
            run(model, batches)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_any_other_error_takes_the_run_back_too(noise_set):
    model, calls = small_net(), []
    before = copy.deepcopy(model.state_dict())

    def breaks(images):
        calls.append(1)
        if len(calls) == 4:
            raise KeyError("a mistake in a student's transform")
        return as_floats(images)

    with pytest.raises(KeyError, match="mistake"):
        run(model, Batches(noise_set, 10, breaks))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (small_net(3), colour_set(32, 1), r"cannot take training images of shape \(1, 32, 32\): its first convolution "
         r"takes 3 channels.*expand\(-1, 3, -1, -1\)"),
        (small_net(1), colour_set(32, 3), r"shape \(3, 32, 32\): its first convolution takes 1 channels"),
        (models.alexnet(num_classes=10), colour_set(32), r"AlexNet cannot take.*\(3, 32, 32\).*Resize the images"),
        (small_net(), colour_set(28, 1), r"shape \(1, 28, 28\): .*cannot be multiplied.*Resize the images"),
        (small_net(classes=4), colour_set(32, 1), "have 10 classes, Sequential has 4 outputs: replace its last layer"),
        (nn.Conv2d(1, 10, 5), colour_set(32, 1), r"must give logits of shape \(B, classes\); got \(1, 10, 28, 28\)"),
    ],
    ids=["grey", "colour", "too small", "other size", "head", "no head"],
)  # fmt: skip
def test_data_and_network_that_do_not_fit_are_said_before_training(model, data, message):
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(ValueError, match=message) as error:
        run(model, Batches(data, 4, as_floats))
    assert one_line(error) and torch.equal(torch.get_rng_state(), random) and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(6, 1, 32, 32).byte(), torch.zeros(6).long(), "hold torch.uint8, a network takes floats"),
        (torch.zeros(6, 1, 32, 32), torch.zeros(6), "labels must be torch.int64.*got torch.float32"),
        (torch.zeros(6, 1, 32, 32), torch.zeros(6, 10).long(), r"got torch.int64 of shape \(4, 10\)"),
        (torch.zeros(6, 1, 32, 32), torch.full((6,), -100), "label is -100: class numbers start at 0"),
        (torch.zeros(6, 1, 32, 32), torch.full((6,), 10), "have 11 classes, Sequential has 10 outputs"),
    ],
    ids=["bytes", "float labels", "one-hot", "-100", "10"],
)
def test_batches_of_a_dataloader_are_checked_too(images, labels, message):
    with pytest.raises(ValueError, match=message) as error:
        run(small_net(), DataLoader(TensorDataset(images, labels), batch_size=4))
    assert one_line(error)


def test_fewer_images_than_a_batch(noise_set):
    """A short batch is a batch; none at all is an error before training."""
    assert len(run(small_net(), Batches(noise_set, 100, as_floats), epochs=1)) == 1
    loader = DataLoader(TensorDataset(torch.zeros(6, 1, 32, 32), torch.zeros(6).long()), 8, drop_last=True)
    with pytest.raises(ValueError, match=r"no training batch \(6 images, batches of 8\)"):
        run(small_net(), loader)


def test_a_last_batch_of_one_is_left_out_in_training_only_and_said_once(noise_set, capsys):
    """ResNet-18 cannot learn from a single image of 32 pixels: torch itself refuses it."""
    images = torch.rand(9, 3, 32, 32)
    batches = DataLoader(TensorDataset(images, torch.arange(9)), batch_size=4)
    torch.manual_seed(0)
    model = models.resnet18(num_classes=10)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(images[:1])
    fit(
        *(model, batches, batches, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.01), 2, History()),
        verbose=False,
    )
    assert capsys.readouterr().out.count("Of 9 images the last batch would hold one: in training it is left out") == 1
    assert model.bn1.num_batches_tracked == 2 + 2 * 2 - 1  # the refused image was counted; then two batches an epoch
    assert len(training.predict(model, batches)[1]) == 9


def test_a_batch_of_one_stays_where_nothing_forbids_it(noise_set, lenet, capsys):
    twenty_one = noise_set.subset(slice(0, 21))
    seen = []
    count = {"on_batch": seen.append}
    sgd = torch.optim.SGD(lenet.parameters(), lr=0.01)
    train_one_epoch(lenet, Batches(twenty_one, 10, as_floats), F.cross_entropy, sgd, **count)
    assert seen == [10, 10, 1]  # no batch norm
    seen.clear()
    model = small_net()
    model[1].requires_grad_(False)  # frozen batch norm does not learn from batches
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    train_one_epoch(model, Batches(twenty_one, 10, as_floats), F.cross_entropy, sgd, **count)
    seen.append("batches of one")
    train_one_epoch(small_net(), Batches(twenty_one, 1, as_floats), F.cross_entropy, sgd, **count)
    assert seen == [10, 10, 1, "batches of one"] + [1] * 21


def test_the_optimizer_is_checked_before_training(noise_set):
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[4] = nn.Linear(4 * 784, 10)  # too late
    with pytest.raises(ValueError, match="Build the optimizer after that"):
        run(model, Batches(noise_set, 10, as_floats), optimizer=optimizer)


def test_a_trained_optimizer_with_an_empty_history_is_not_trained_on_silently(noise_set):
    """The cell with `History()` and `fit` was run again, the one with the model was not."""
    model = small_net()
    batches, adam = Batches(noise_set, 10, as_floats), torch.optim.Adam(model.parameters())
    run(model, batches, optimizer=adam)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"the optimizer has trained before.*start over with a new model") as error:
        run(model, batches, optimizer=adam)
    assert one_line(error) and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_random_numbers_of_the_run_are_those_without_the_checks(noise_set):
    """The checks before training draw batches; the training that follows is the same as without them."""
    first, second = small_net(), small_net()
    batches = Batches(noise_set, 10, as_floats, shuffle=True)
    torch.manual_seed(4)
    run(first, batches, epochs=1)
    torch.manual_seed(4)
    sgd = torch.optim.SGD(second.parameters(), lr=0.01, momentum=0.9)
    train_one_epoch(second, batches, F.cross_entropy, sgd)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_what_is_out_of_memory_and_what_is_a_lost_device():
    assert safety.out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert not safety.out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not safety.device_lost(RuntimeError("CUDA error: out of memory"))
    assert safety.device_lost(RuntimeError("CUDA error: an illegal memory access was encountered"))
