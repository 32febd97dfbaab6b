import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from helpers.data import Batches
from helpers.training import (
    History,
    Score,
    estimate_seconds,
    evaluate,
    fit,
    predict,
    restore,
    snapshot,
    train_one_epoch,
)


def as_floats(images):
    return images.float() / 255


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
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    assert train_one_epoch(model, HAND_BATCHES, F.cross_entropy, still) == pytest.approx((HAND_LOSS, 1 / 3), abs=1e-6)


def test_one_epoch_takes_the_steps_of_plain_sgd():
    model = Sign()
    train_one_epoch(model, HAND_BATCHES, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.4))
    # first batch: x = 0, no gradient. Second: d loss / d w = −2x · p(class 0) = −2x / 4
    assert model.weight.item() == pytest.approx(1 + 0.4 * 2 * 0.5493061443340549 / 4, abs=1e-6)


def test_equal_to_a_loop_with_a_dataloader(lenet, noise_set):
    """Weights after one epoch are those of the loop everybody knows."""
    expected = copy.deepcopy(lenet)
    optimizer = torch.optim.Adam(expected.parameters(), lr=1e-3)
    for images, labels in DataLoader(TensorDataset(noise_set.images / 255, noise_set.labels), batch_size=10):
        optimizer.zero_grad()
        F.nll_loss(F.log_softmax(expected(images), dim=1), labels).backward()
        optimizer.step()
    adam = torch.optim.Adam(lenet.parameters(), lr=1e-3)
    train_one_epoch(lenet, Batches(noise_set, 10, as_floats), nn.CrossEntropyLoss(), adam, precision=torch.float32)
    for ours, theirs in zip(lenet.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_scheduler_steps_after_every_batch(lenet, noise_set):
    optimizer = torch.optim.SGD(lenet.parameters(), lr=1.0)
    halve = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    train_one_epoch(lenet, Batches(noise_set, 10, as_floats), F.cross_entropy, optimizer, halve)
    assert optimizer.param_groups[0]["lr"] == 0.5**3


def test_evaluation_changes_nothing_and_uses_running_statistics(noise_set):
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(1024, 10))
    before = copy.deepcopy(model.state_dict())
    batches = Batches(noise_set, 10, as_floats)
    logits, labels = predict(model, batches)
    assert model.training  # back in the mode it was in
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    assert torch.allclose(logits, model(as_floats(noise_set.images)), atol=1e-5)
    assert torch.equal(labels, noise_set.labels)
    assert evaluate(model, batches, F.cross_entropy).loss == pytest.approx(F.cross_entropy(logits, labels).item())


def test_training_runs_in_training_mode(noise_set):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1024, 10)).eval()
    train_one_epoch(
        model, Batches(noise_set, 10, as_floats), F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1)
    )
    assert model[0].num_batches_tracked == 3


def test_a_frozen_network_does_not_drift():
    """Weights and running statistics of all but the head stay what they were, to the bit."""
    torch.manual_seed(0)
    model = models.resnet18(num_classes=10).requires_grad_(False)
    model.fc.requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    batches = [(torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))) for _ in range(2)]
    train_one_epoch(model, batches, F.cross_entropy, torch.optim.SGD(model.fc.parameters(), lr=0.1))
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["fc.weight", "fc.bias"]
    assert model.layer1.training and not model.layer1[0].bn1.training


def test_batch_norm_that_is_not_frozen_trains():
    torch.manual_seed(0)
    model = models.resnet18(num_classes=10)
    model.conv1.requires_grad_(False)
    model.bn1.bias.requires_grad_(False)  # its weight still trains, so it is not frozen
    model.layer1[0].bn1 = nn.BatchNorm2d(64, affine=False)  # nothing to freeze
    batches = [(torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))) for _ in range(2)]
    train_one_epoch(model, batches, F.cross_entropy, torch.optim.SGD(model.parameters(), lr=0.1))
    counts = [buffer.item() for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [2] * 20


def test_one_batch_overfits(lenet, noise_set):
    batches = Batches(noise_set, 25, as_floats)
    optimizer = torch.optim.Adam(lenet.parameters(), lr=3e-3)
    for _ in range(150):
        train_one_epoch(lenet, batches, F.cross_entropy, optimizer)
    assert evaluate(lenet, batches, F.cross_entropy) == pytest.approx((0.0, 1.0), abs=0.01)


def test_bfloat16_stays_close_to_float32(lenet, noise_set):
    twin = copy.deepcopy(lenet)
    scores = [
        train_one_epoch(
            model,
            Batches(noise_set, 10, as_floats),
            F.cross_entropy,
            torch.optim.SGD(model.parameters(), lr=0.01),
            precision=precision,
        )
        for model, precision in [(lenet, torch.float32), (twin, torch.bfloat16)]
    ]
    assert scores[0].loss == pytest.approx(scores[1].loss, rel=0.02)
    assert all(weight.dtype == torch.float32 for weight in twin.parameters())


def test_no_batches_are_an_error(lenet):
    with pytest.raises(ValueError, match="no batch to train on"):
        train_one_epoch(lenet, [], F.cross_entropy, torch.optim.SGD(lenet.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="no batch to evaluate"):
        evaluate(lenet, [], F.cross_entropy)


def training(noise_set, epochs=4):
    """Model, optimizer, one-cycle schedule and shuffled batches with dropout: everything that has a state."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 784, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * 3)
    return model, optimizer, schedule, Batches(noise_set, 10, as_floats, shuffle=True)


def run(parts, history, epochs=4, batches=None, **more):
    model, optimizer, schedule, usual = parts
    fit(model, batches or usual, usual, F.cross_entropy, optimizer, epochs, history, schedule, **more, verbose=False)


class Interrupted:
    """Batches that raise KeyboardInterrupt at the second batch of the `epoch`th pass."""

    def __init__(self, batches, epoch):
        self.batches, self.dataset, self.epoch = batches, batches.dataset, epoch

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for i, batch in enumerate(self.batches):
            self.epoch -= i == 1
            if self.epoch == 0 and i == 1:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.parametrize("epoch", [1, 3])
def test_interrupted_and_continued_equals_undisturbed(noise_set, epoch):
    undisturbed, history = training(noise_set), History()
    run(undisturbed, history)

    parts, resumed = training(noise_set), History()
    with pytest.raises(KeyboardInterrupt):  # raised again, so that "run all cells" stops
        run(parts, resumed, batches=Interrupted(parts[3], epoch))
    assert len(resumed) == epoch - 1
    run(parts, resumed)
    assert resumed.train_loss == history.train_loss and resumed.test_loss == history.test_loss
    for ours, theirs in zip(parts[0].state_dict().values(), undisturbed[0].state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_complete_run_is_not_trained_on(noise_set, capsys):
    parts, history = training(noise_set), History()
    run(parts, history)
    before = copy.deepcopy(parts[0].state_dict())
    fit(parts[0], parts[3], parts[3], F.cross_entropy, parts[1], 4, history, parts[2])
    assert all(torch.equal(value, before[name]) for name, value in parts[0].state_dict().items())
    assert "Complete: 4 of 4 epochs" in capsys.readouterr().out


def test_history_is_what_training_and_evaluation_returned(noise_set):
    parts, history, seen = training(noise_set), History(), []
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
    model, optimizer, _, batches = training(noise_set)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    seconds = estimate_seconds(model, batches, batches, F.cross_entropy, optimizer, epochs=1000)
    assert 0.5 < seconds < 1000
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random) and not optimizer.state


def test_restore_brings_back_weights_and_random_numbers(noise_set):
    parts = list(training(noise_set)[:3])
    saved = snapshot(parts)
    first = torch.rand(3)
    with torch.no_grad():
        parts[0][0].weight.zero_()
    restore(parts, saved)
    assert parts[0][0].weight.abs().sum() > 0 and torch.equal(torch.rand(3), first)
