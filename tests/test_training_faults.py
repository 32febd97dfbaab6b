"""Faults in training: each is provoked for real, ends in one clear line, and leaves the last good state."""

import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from common import as_floats, noise, refused, same, sgd
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from helpers import training
from helpers.data import Batches
from helpers.keeping import states
from helpers.keeping.checkpoint import Checkpoint
from helpers.training import History, fit, train_one_epoch


def small_net(channels=1, classes=10):
    torch.manual_seed(0)
    body = nn.Conv2d(channels, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(4 * 784, classes))


def run(model, batches, epochs=2, history=None, optimizer=None, test=None, criterion=F.cross_entropy, **more):
    history = History() if history is None else history
    given = criterion, optimizer or sgd(model), epochs, history
    fit(model, batches, test or batches, *given, verbose=False, **more)
    return history


def from_call(number, error=None):
    """A transform that from its `number`th call on raises the error, or without one makes images of NaN."""
    calls = []

    def transform(images):
        calls.append(1)
        if len(calls) >= number and error:
            raise error
        return as_floats(images) * (math.nan if len(calls) >= number else 1)

    return transform


# Calls of one epoch: 3 for training, 3 for the test; 2 before the first, for the checks.
def test_a_nan_loss_stops_at_its_batch_with_the_last_good_weights(noise_set):
    undisturbed, model, history = small_net(), small_net(), History()
    torch.manual_seed(1)
    run(undisturbed, Batches(noise_set, 10, as_floats, shuffle=True), epochs=1)
    torch.manual_seed(1)
    said = r"Epoch 2, batch 2: the loss is nan at learning rate 0\.01.*back at the end of epoch 1"
    with refused(FloatingPointError, said):
        run(model, Batches(noise_set, 10, from_call(10), shuffle=True), history=history)
    assert len(history) == 1 and same(model, undisturbed)


@pytest.mark.parametrize("every", [2, 100])
def test_the_first_bad_batch_is_named_where_losses_are_looked_at_rarely(noise_set, every):
    """As on a GPU, where each look would have to wait: at the latest at the end of the epoch."""
    step, model = training.Step(torch.device("cpu")), small_net()
    step.every = every
    train_one_epoch(model, Batches(noise_set, 5, as_floats), F.cross_entropy, sgd(model), step=step)
    with pytest.raises(FloatingPointError, match=r"^batch 3: the loss is nan at learning rate 0\.01"):
        train_one_epoch(model, Batches(noise_set, 5, from_call(3)), F.cross_entropy, sgd(model), step=step)


def test_an_infinite_loss_stops_too(noise_set):
    model = small_net()
    with refused(FloatingPointError, "Epoch 1, batch 1: the loss is inf", model):
        run(model, Batches(noise_set, 10, as_floats), criterion=lambda *given: 1e39 * F.cross_entropy(*given))


def test_nan_in_the_test_is_an_error_and_not_an_accuracy(noise_set):
    broken, model = Batches(noise_set, 10, from_call(1)), small_net()
    with refused(FloatingPointError, r"Epoch 1, test: the logits of 25 of 25 images are NaN.*end of epoch 0", model):
        run(model, Batches(noise_set, 10, as_floats), test=broken)
    with refused(FloatingPointError, "logits of 25 of 25 images are NaN"):
        training.evaluate(model, broken, F.cross_entropy)


NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


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


OTHER_WORDS = "[alloc_cpu.cpp:117] can't allocate memory", "MPS backend out of memory", "CUDA error: out of memory"


@pytest.mark.parametrize("error", [NO_MEMORY, *map(RuntimeError, OTHER_WORDS)])
def test_out_of_memory_names_a_batch_that_fits_and_takes_everything_back(noise_set, error):
    model = Limited(6, error)
    optimizer, random = torch.optim.AdamW(model.parameters()), torch.get_rng_state()
    said = "Epoch 1: out of memory.*Batches of 5 images fit: start over"
    with refused(torch.OutOfMemoryError, said, model) as caught:
        run(model, Batches(noise_set, 20, as_floats, shuffle=True), optimizer=optimizer)
    assert not optimizer.state and torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert caught.value.__suppress_context__ and model.failed() is None  # although the first error is still known
    model.room = 25
    assert len(run(model, Batches(noise_set, 5, as_floats))) == 2


def test_out_of_memory_even_for_one_image_or_in_the_test(noise_set):
    learn, test = Batches(noise_set, 10, as_floats), Batches(noise_set, 20, as_floats)
    with refused(torch.OutOfMemoryError, "Make the batches, the images or the network smaller"):
        run(Limited(0, NO_MEMORY), learn)
    with refused(torch.OutOfMemoryError, "In the test: make its batches smaller"):
        run(Limited(10, NO_MEMORY), learn, test=test)


def test_out_of_memory_before_the_first_step_leaves_the_network_untouched(noise_set, monkeypatch):
    """In the transform of a training batch, whatever its size; or in the first copy of the states."""
    model, whole = small_net(), states.copied
    with refused(torch.OutOfMemoryError, r"back at the end of epoch 0\. Make the batches", model):
        run(model, Batches(noise_set, 20, from_call(3, NO_MEMORY)))  # two are checks before training

    def no_copies(value, into=None):
        if isinstance(value, torch.Tensor):
            raise NO_MEMORY
        return whole(value, into)

    monkeypatch.setattr(states, "copied", no_copies)
    with refused(torch.OutOfMemoryError, "Make the batches, the images or the network smaller", model):
        run(model, Batches(noise_set, 20, as_floats))


class Asserts(nn.Module):
    """Fails like a CUDA device after an assert, from the `call`th batch on; and so does every later use."""

    def __init__(self, call, error):
        super().__init__()
        self.net, self.left, self.error = small_net(), call, error

    def forward(self, x):
        self.left -= 1
        return self.net(x) if self.left > 0 else self.load_state_dict()

    def load_state_dict(self, *args, **more):
        raise RuntimeError(f"CUDA error: {self.error}\nCUDA kernel errors might be reported later")


@pytest.mark.parametrize("error", ["device-side assert triggered", "an illegal memory access was encountered"])
@pytest.mark.parametrize(
    ("saved", "goes_on"), [(True, "goes on after epoch 1, which is on disk"), (False, "begins anew")]
)
def test_a_lost_gpu_says_restart_and_how_to_resume(noise_set, tmp_path, saved, goes_on, error):
    where = Checkpoint(tmp_path, "run", {}) if saved else None
    with refused(RuntimeError, f"Epoch 2: the GPU reported .*{error}.*Restart the kernel.*{goes_on}"):
        run(Asserts((4 if saved else 2) + 6 + 2, error), Batches(noise_set, 10, as_floats), checkpoint=where)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_out_of_memory_is_freed_and_a_batch_is_named():
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        model = models.resnet18(num_classes=10).cuda()
        batches = Batches(noise(4096, 3, 64).to("cuda"), 4096, as_floats)
        with pytest.raises(torch.OutOfMemoryError, match=r"Batches of \d+ images fit"):
            run(model, batches)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_any_other_error_takes_the_run_back_too(noise_set):
    model = small_net()
    with refused(KeyError, "mistake", model):
        run(model, Batches(noise_set, 10, from_call(4, KeyError("a mistake in a student's transform"))))


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (small_net(3), noise(6, 1, 32), r"cannot take training images of shape \(1, 32, 32\): its first convolution "
         r"takes 3 channels.*expand\(-1, 3, -1, -1\)"),
        (small_net(1), noise(6, 3, 32), r"shape \(3, 32, 32\): its first convolution takes 1 channels"),
        (models.alexnet(num_classes=10), noise(6, 3, 32), r"AlexNet cannot take.*\(3, 32, 32\).*Resize the images"),
        (small_net(), noise(6, 1, 28), r"shape \(1, 28, 28\): .*cannot be multiplied.*Resize the images"),
        (small_net(classes=4), noise(6, 1, 32), "have 10 classes, Sequential has 4 outputs: replace its last layer"),
        (nn.Conv2d(1, 10, 5), noise(6, 1, 32), r"must give logits of shape \(B, classes\); got \(1, 10, 28, 28\)"),
    ],
    ids=["grey", "colour", "too small", "other size", "head", "no head"],
)  # fmt: skip
def test_data_and_network_that_do_not_fit_are_said_before_training(model, data, message):
    random = torch.get_rng_state()
    with refused(ValueError, message, model):
        run(model, Batches(data, 4, as_floats))
    assert torch.equal(torch.get_rng_state(), random) and model.training


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
    with refused(ValueError, message):
        run(small_net(), DataLoader(TensorDataset(images, labels), batch_size=4))


def test_fewer_images_than_a_batch(noise_set):
    """A short batch is a batch; none at all is an error before training."""
    assert len(run(small_net(), Batches(noise_set, 100, as_floats), epochs=1)) == 1
    loader = DataLoader(TensorDataset(torch.zeros(6, 1, 32, 32), torch.zeros(6).long()), 8, drop_last=True)
    with pytest.raises(ValueError, match=r"no training batch \(6 images, batches of 8\)"):
        run(small_net(), loader)


@pytest.mark.parametrize(
    ("name", "batch_size", "expected"),
    [("none", 10, [10, 10, 1]), ("frozen", 10, [10, 10, 1]), ("learns", 10, [10, 10]), ("learns", 1, [1] * 21)],
)
@pytest.mark.parametrize("mode", [True, False])
def test_a_last_batch_of_one_is_left_out_only_where_batch_norm_learns_and_said_once(
    noise_set, lenet, capsys, name, batch_size, expected, mode
):
    """As of ResNet-18, which cannot learn from one image of 32 pixels. In the test it counts like any other."""
    model, sizes = lenet if name == "none" else small_net(), []
    if name == "frozen":
        model[1].requires_grad_(False)

    def criterion(logits, labels):
        sizes.extend([len(labels)] * torch.is_grad_enabled())
        return F.cross_entropy(logits, labels)

    batches = Batches(noise_set.subset(slice(0, 21)), batch_size, as_floats)
    run(model.train(mode), batches, criterion=criterion)
    assert sizes == 2 * expected and capsys.readouterr().out.count("it is left out") == (expected == [10, 10])
    assert len(training.predict(model, batches)[1]) == 21


def test_the_optimizer_is_checked_before_training(noise_set):
    model = small_net()
    optimizer = sgd(model)
    model[4] = nn.Linear(4 * 784, 10)  # too late
    with refused(ValueError, "Build it after the head was replaced", model):
        run(model, Batches(noise_set, 10, as_floats), optimizer=optimizer)


def test_a_trained_optimizer_with_an_empty_history_is_not_trained_on_silently(noise_set):
    """The cell with `History()` and `fit` was run again, the one with the model was not."""
    model, batches = small_net(), Batches(noise_set, 10, as_floats)
    adam = torch.optim.Adam(model.parameters())
    run(model, batches, optimizer=adam)
    with refused(ValueError, r"the optimizer has trained before.*start over with a new model", model):
        run(model, batches, optimizer=adam)


LR = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda sgd: LR.StepLR(sgd, 7), "falls to"),
        (lambda sgd: LR.ExponentialLR(sgd, 0.9), "falls to"),
        (lambda sgd: LR.MultiStepLR(sgd, [3, 8]), "falls to"),
        (lambda sgd: LR.CosineAnnealingLR(sgd, T_max=10), "falls and rises"),
        (lambda sgd: LR.CosineAnnealingWarmRestarts(sgd, 3), "falls and rises"),
        (lambda sgd: LR.OneCycleLR(sgd, 0.1, total_steps=10), "ends after"),
        (lambda sgd: LR.SequentialLR(sgd, [LR.LinearLR(sgd), LR.StepLR(sgd, 2)], [3]), "falls"),
        (LR.ReduceLROnPlateau, "ends after"),
    ],
)
def test_a_schedule_that_was_meant_for_epochs_is_said_before_training(noise_set, make, problem):
    model = small_net()
    optimizer = sgd(model, 0.1)
    with refused(ValueError, rf"stepped after every batch, 25 times an epoch.*{problem}", model):
        run(model, Batches(noise_set, 1, as_floats), epochs=10, optimizer=optimizer, scheduler=make(optimizer))
    assert optimizer.param_groups[0]["lr"] <= 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda sgd: LR.OneCycleLR(sgd, 0.1, total_steps=15),
        lambda sgd: LR.CosineAnnealingLR(sgd, 15),
        lambda sgd: LR.StepLR(sgd, 5),
        lambda sgd: LR.LambdaLR(sgd, lambda step: min(1.0, step / 3)),
        lambda sgd: LR.SequentialLR(sgd, [LR.LinearLR(sgd, 0.1, total_iters=3), LR.CosineAnnealingLR(sgd, 12)], [3]),
    ],
)
def test_a_schedule_in_batches_is_trained_with_to_its_end(noise_set, make):
    model = small_net()
    optimizer = sgd(model)
    scheduler, alone = make(optimizer), make(sgd(model))
    history = run(model, Batches(noise_set, 5, as_floats), epochs=3, optimizer=optimizer, scheduler=scheduler)
    alone.optimizer.step()
    for _ in range(15):
        alone.step()
    assert len(history) == 3 and scheduler.get_last_lr() == alone.get_last_lr()
