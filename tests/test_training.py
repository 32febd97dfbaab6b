"""Training, testing and the record of a run, against sums by hand, plain loops and undisturbed runs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from common import as_floats, noise, same, sgd, weights
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from helpers import training
from helpers.data import Batches
from helpers.training import History, Score, Step, estimate_seconds, evaluate, fit, predict, train_one_epoch


class Sign(nn.Module):
    """Two logits, (−w·x, w·x), so that losses can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return torch.cat([-self.weight * x, self.weight * x], dim=1)  # (B, 2)


# Losses of x = 0, 0, log(3)/2 with label 1: ln 2, ln 2 and ln(4/3). Accuracy 1/3: argmax of a tie is class 0.
HAND_BATCHES = [
    (torch.zeros(2, 1), torch.ones(2, dtype=torch.int64)),
    (torch.full((1, 1), 0.5493061443340549), torch.ones(1, dtype=torch.int64)),
]
HAND_LOSS = (2 * 0.6931471805599453 + 0.28768207245178085) / 3  # not the mean of the two batch means, 0.490


def test_a_short_last_batch_counts_as_what_it_is():
    model = Sign()
    assert evaluate(model, HAND_BATCHES, F.cross_entropy) == pytest.approx((HAND_LOSS, 1 / 3), abs=1e-6)
    assert train_one_epoch(model, HAND_BATCHES, F.cross_entropy, sgd(model, 0.0)) == pytest.approx(
        (HAND_LOSS, 1 / 3), abs=1e-6
    )


def test_equal_to_a_loop_with_a_dataloader(lenet, noise_set):
    """Weights after one epoch are those of the loop everybody knows."""
    expected = copy.deepcopy(lenet)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-3)
    for images, labels in DataLoader(TensorDataset(noise_set.images / 255, noise_set.labels), batch_size=10):
        optimizer.zero_grad()
        F.nll_loss(F.log_softmax(expected(images), dim=1), labels).backward()
        optimizer.step()
    adam = torch.optim.Adam(lenet.parameters(), lr=1e-3)
    train_one_epoch(lenet, Batches(noise_set, 10, as_floats), nn.CrossEntropyLoss(), adam)
    for ours, theirs in zip(lenet.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_evaluation_changes_nothing_and_uses_running_statistics(noise_set):
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(1024, 10))
    before = weights(model)
    batches = Batches(noise_set, 10, as_floats)
    logits, labels = predict(model, batches)
    assert same(model, before)
    model.eval()
    assert torch.allclose(logits, model(as_floats(noise_set.images)), atol=1e-5)
    assert torch.equal(labels, noise_set.labels)
    assert evaluate(model, batches, F.cross_entropy).loss == pytest.approx(F.cross_entropy(logits, labels).item())


def test_predict_leaves_each_module_in_its_mode_even_where_it_fails(noise_set):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1024, 10))
    model[0].eval()  # as a frozen one

    predict(model, Batches(noise_set, 10, as_floats))
    modes = [module.training for module in model.modules()]
    with pytest.raises(AttributeError):
        predict(model, Batches(noise_set, 10, lambda images: None))
    assert modes == [module.training for module in model.modules()] == [True, False, True, True]


def test_the_loss_of_a_test_is_computed_where_the_model_lives(lenet, monkeypatch):
    """As where a criterion has class weights on a GPU; here on the device without memory."""
    monkeypatch.setattr(training, "predict", lambda model, batches: (torch.eye(10), torch.arange(10)))
    devices = []

    def criterion(*given):
        devices.extend(one.device.type for one in given)
        return torch.tensor(0.5)

    assert evaluate(lenet.to("meta"), [], criterion) == (0.5, 1.0) and devices == ["meta", "meta"]


def test_a_gradient_that_overflows_float16_is_skipped_and_the_scale_lowered(lenet, noise_set):
    step, before = Step(torch.device("cpu"), torch.float16), weights(lenet)
    images, labels, optimizer = as_floats(noise_set.images), noise_set.labels, sgd(lenet)
    step(lenet, images, labels, lambda logits, labels: 1e4 * F.cross_entropy(logits, labels), optimizer)
    assert step.scaler.get_scale() == 2.0**9 and same(lenet, before)
    step(lenet, images, labels, F.cross_entropy, optimizer)
    assert not torch.equal(lenet[0].weight, before["0.weight"])


TWO_BATCHES = Batches(noise(8, 3, 32), 4, as_floats)


def test_a_frozen_network_does_not_drift():
    """Weights and running statistics of all but the head stay what they were, to the bit."""
    model = models.resnet18(num_classes=10).requires_grad_(False)
    model.fc.requires_grad_(True)
    before = weights(model)
    train_one_epoch(model, TWO_BATCHES, F.cross_entropy, sgd(model))
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["fc.weight", "fc.bias"]
    assert model.layer1.training and not model.layer1[0].bn1.training


def test_batch_norm_that_is_not_frozen_trains():
    model = models.resnet18(num_classes=10).eval()  # trained in training mode all the same
    model.conv1.requires_grad_(False)
    model.bn1.bias.requires_grad_(False)  # its weight still trains, so it is not frozen
    model.layer1[0].bn1 = nn.BatchNorm2d(64, affine=False)  # nothing to freeze
    train_one_epoch(model, TWO_BATCHES, F.cross_entropy, sgd(model))
    counts = [buffer.item() for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [2] * 20


def test_no_batches_are_an_error(lenet):
    with pytest.raises(ValueError, match="There was no batch"):
        train_one_epoch(lenet, [], F.cross_entropy, sgd(lenet))
    with pytest.raises(ValueError, match="no batch to evaluate"):
        evaluate(lenet, [], F.cross_entropy)


def whole_run(noise_set):
    """Model, optimizer, one-cycle schedule and shuffled batches with dropout: everything that has a state."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 784, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=4 * 3)
    return model, optimizer, schedule, Batches(noise_set, 10, as_floats, shuffle=True)


def run(parts, history, verbose=False, **more):
    model, optimizer, schedule, batches = parts
    fit(model, batches, batches, F.cross_entropy, optimizer, 4, history, schedule, verbose=verbose, **more)


def test_a_complete_run_is_not_trained_on(noise_set, capsys):
    parts, history = whole_run(noise_set), History()
    run(parts, history)
    before = weights(parts[0])
    run(parts, history, verbose=True)
    assert same(parts[0], before) and "Complete: 4 of 4 epochs" in capsys.readouterr().out


def test_history_is_what_training_and_evaluation_returned(noise_set):
    parts, history, seen = whole_run(noise_set), History(), []
    run(parts, history, on_epoch_end=lambda so_far: seen.append(len(so_far)))
    assert seen == [1, 2, 3, 4] and len(history) == 4
    assert history.test_loss[-1] == pytest.approx(evaluate(parts[0], parts[3], F.cross_entropy).loss)  # other order
    assert all(time > 0 for time in history.seconds) and all(speed > 0 for speed in history.images_per_second)
    assert history.table().count("\n") == 4 and "4 epochs in" in history.summary()


def test_history_table_shows_percent_and_means():
    history = History()
    history.append(Score(2.5, 0.125), Score(2.25, 0.5), seconds=3.0, images_per_second=100.0)
    line = history.table().splitlines()[1]
    assert line.split() == ["1", "2.5000", "12.50%", "2.2500", "50.00%", "3.0", "s"]


def test_estimate_changes_nothing_and_grows_with_epochs(noise_set):
    model, optimizer, _, batches = whole_run(noise_set)
    before, random = weights(model), torch.get_rng_state()
    seconds = estimate_seconds(model, batches, batches, F.cross_entropy, optimizer, epochs=1000)
    assert 0.5 < seconds < 1000 and same(model, before)
    assert torch.equal(torch.get_rng_state(), random) and not optimizer.state
