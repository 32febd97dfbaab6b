"""Steps recorded as a CUDA graph: the same numbers as steps that are not, and no recording where it would not hold."""

import copy

import pytest
import torch
import torch.nn.functional as F
from common import noise
from torch import nn
from torchvision import models

from helpers.data import Batches
from helpers.recording import SAME, Recorded, circumstances
from helpers.training import Step, evaluate, train_one_epoch

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
IMAGES = noise(200, 3, 32, 4)  # 25 batches of 8


def small_network():
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 4))


def as_floats(images):
    return images / 255


def trained(model, step, device, batch=8, epochs=2):
    model = copy.deepcopy(model).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = Batches(IMAGES.to(device), batch, as_floats)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=epochs * len(batches))
    scores = [train_one_epoch(model, batches, F.cross_entropy, optimizer, schedule, step) for _ in range(epochs)]
    return model, [score.loss for score in scores]


def change(what):
    model, images, labels = small_network(), IMAGES.images[:8] / 255, IMAGES.labels[:8]
    before = circumstances(model, images, labels, F.cross_entropy)
    model, images, labels, criterion = what(model, images, labels)
    return before == circumstances(model, images, labels, criterion)


def frozen(model):
    model[0].weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("what", "same"),
    [
        (lambda model, images, labels: (model, images + 1, labels.flip(0), F.cross_entropy), True),
        (lambda model, images, labels: (model, images[:7], labels[:7], F.cross_entropy), False),
        (lambda model, images, labels: (model, images.double(), labels, F.cross_entropy), False),
        (lambda model, images, labels: (model, images, labels, nn.CrossEntropyLoss()), False),
        (lambda model, images, labels: (model.eval(), images, labels, F.cross_entropy), False),
        (lambda model, images, labels: (frozen(model), images, labels, F.cross_entropy), False),
        (lambda model, images, labels: (copy.deepcopy(model), images, labels, F.cross_entropy), False),
    ],
    ids=["other pixels", "fewer images", "other numbers", "other loss", "other mode", "frozen", "other weights"],
)
def test_what_a_recording_relies_on(what, same):
    assert change(what) is same


def test_a_model_that_somebody_looks_into_is_not_recorded():
    model = small_network()
    model[2].register_forward_hook(lambda *_: None)
    assert circumstances(model, IMAGES.images[:8], IMAGES.labels[:8], F.cross_entropy) is None


def test_recorded_is_what_was_alike_for_a_while_and_replayed_where_it_still_is():
    class OnPaper(Recorded):
        watched = property(lambda self: self.passes)

        def record(self, *batch):
            self.graph = "recorded"

        def replay(self, images, labels):
            return "replayed"

    step, model = OnPaper(lambda *batch: "as it is"), small_network()
    sizes = [8] * (SAME - 1) + [3] + [8] * (SAME + 2) + [3, 8]
    done = [step(model, IMAGES.images[:size], IMAGES.labels[:size], F.cross_entropy) for size in sizes]
    assert done == ["as it is"] * 2 * SAME + ["replayed"] * 2 + ["as it is", "replayed"]


@on_a_gpu
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_recorded_steps_give_the_numbers_of_plain_ones(precision):
    torch.manual_seed(0)
    model, cuda = models.resnet18(num_classes=4), torch.device("cuda")
    plain, recorded = Step(cuda, precision), Step(cuda, precision)
    plain.passes = plain.both_ways
    expected, losses = trained(model, plain, cuda, batch=24)  # the last batch of an epoch is shorter
    replayed, same = trained(model, recorded, cuda, batch=24)
    assert recorded.passes.graph is not None and same == pytest.approx(losses, rel=0.01)
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(replayed.state_dict()[name], tensor, atol=0.02, rtol=0.02, msg=name)
    counted = {n: t for n, t in replayed.state_dict().items() if n.endswith("num_batches_tracked")}
    assert all(count == 2 * 9 for count in counted.values())  # recording itself is no step


@on_a_gpu
def test_dropout_draws_anew_in_each_recorded_step():
    cuda = torch.device("cuda")
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, 4)).to(cuda)
    step, optimizer = Step(cuda, torch.bfloat16), torch.optim.SGD(model.parameters(), lr=0.0)
    images, labels = (IMAGES.images[:8] / 255).to(cuda), IMAGES.labels[:8].to(cuda)
    losses = [step(model, images, labels, F.cross_entropy, optimizer)[0].item() for _ in range(SAME + 10)]
    assert step.passes.graph is not None and len(set(losses)) == len(losses)


@on_a_gpu
def test_what_cannot_be_recorded_trains_as_it_is():
    cuda, asked = torch.device("cuda"), []

    def criterion(logits, labels):
        loss = F.cross_entropy(logits, labels)
        asked.append(loss.item())  # Python reads a number: not while recording
        return loss

    model, step = small_network().to(cuda), Step(cuda, torch.bfloat16)
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=0.1), Batches(IMAGES.to(cuda), 8, as_floats)
    before = evaluate(model, batches, F.cross_entropy).loss
    for _ in range(3):
        train_one_epoch(model, batches, criterion, optimizer, step=step)
    assert step.passes.graph is None and len(asked) >= 75
    assert evaluate(model, batches, F.cross_entropy).loss < before and torch.rand(3, device=cuda).isfinite().all()


@on_a_gpu
def test_weights_frozen_on_the_way_stay():
    cuda = torch.device("cuda")
    model, step = small_network().to(cuda), Step(cuda, torch.bfloat16)
    optimizer, batches = torch.optim.SGD(model.parameters(), lr=0.1), Batches(IMAGES.to(cuda), 8, as_floats)
    train_one_epoch(model, batches, F.cross_entropy, optimizer, step=step)
    assert step.passes.graph is not None
    model[0].weight.requires_grad_(False)
    kept, head = model[0].weight.clone(), model[5].weight.clone()
    train_one_epoch(model, batches, F.cross_entropy, optimizer, step=step)
    assert torch.equal(model[0].weight, kept) and not torch.equal(model[5].weight, head)
