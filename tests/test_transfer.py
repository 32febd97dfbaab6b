"""Loading under a new head, freezing, and the optimizer that must know of both."""

import copy
from collections import OrderedDict
from functools import partial

import pytest
import torch
from common import same, weights
from small_data import refusal
from torch import nn
from torchvision import models

from helpers import transfer


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    """The state dict of a ResNet-18 with 1,000 classes whose running statistics are not the initial ones."""
    model = models.resnet18()
    model(torch.randn(2, 3, 64, 64))
    return model.state_dict()


@pytest.fixture
def resnet() -> nn.Module:
    return models.resnet18(num_classes=10)


@pytest.fixture
def net() -> nn.Module:
    """A body and a head. Input (B, 3)."""
    return nn.Sequential(OrderedDict(body=nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), fc=nn.Linear(4, 2)))


refused = partial(refusal, kind=ValueError)


def test_backbone_is_torchs_and_the_head_its_own(resnet, trained):
    oracle = models.resnet18()
    oracle.load_state_dict(trained)
    oracle.fc = copy.deepcopy(resnet.fc)
    loaded = transfer.load_backbone(resnet, trained)
    assert same(resnet, oracle) and len(loaded.loaded) == 120 and loaded.missing == ("fc.weight", "fc.bias")
    left_out = "fc.weight (1000, 512), fc.bias (1000,)"
    assert str(loaded) == f"120 of 122 tensors loaded; new: fc.weight, fc.bias; left out: {left_out}"


def test_other_choices_of_what_is_new(resnet, trained):
    assert str(transfer.load_backbone(models.resnet18(), trained, new=())) == "122 of 122 tensors loaded"
    body = {key: value for key, value in trained.items() if not key.startswith("fc.")}
    assert "left out" not in str(transfer.load_backbone(models.resnet18(), body))
    before = weights(resnet.layer4)
    loaded = transfer.load_backbone(resnet, trained, new=["layer4", "fc"])
    assert same(resnet.layer4, before) and len(loaded.loaded) == 90 and "and 29 more" in str(loaded)
    # torchvision's early files have no batch counts; torch accepts them, and so must we, but not in silence
    old = {key: value for key, value in trained.items() if not key.endswith("num_batches_tracked")}
    assert "100 of 122" in (text := str(transfer.load_backbone(resnet, old))) and "20 batch counters" in text


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "_orig_mod.module."])
def test_a_prefix_is_recognised_and_nothing_loaded(resnet, trained, prefix):
    before = weights(resnet)
    message = refused(transfer.load_backbone, resnet, {prefix + key: value for key, value in trained.items()})
    assert "100 missing: conv1.weight, " in message and f"122 unexpected: {prefix}conv1.weight, " in message
    assert f"removeprefix({prefix!r})" in message and len(message) < 500 and same(resnet, before)


def test_other_reasons_are_named(resnet, trained):
    wrapped = nn.DataParallel(models.resnet18())
    assert "model's own names begin with 'module.'" in refused(transfer.load_backbone, wrapped, trained, new=())
    assert "another architecture" in refused(transfer.load_backbone, resnet, models.densenet121().state_dict())
    message = refused(transfer.load_backbone, resnet, trained, new=())
    assert "fc.weight (1000, 512) for (10, 512)" in message and "new=('fc',)" in message
    assert "no state dict: model, epoch" in refused(transfer.load_backbone, resnet, {"model": trained, "epoch": 3})
    assert "The state is empty" in refused(transfer.load_backbone, resnet, {})


def test_what_torch_refuses_is_refused_and_nothing_else(trained):
    model, key = models.resnet18(), "layer1.0.conv1.weight"
    less = {k: v for k, v in trained.items() if k != key}
    for state in [trained, less, {**trained, "extra": trained[key]}, {**trained, key: trained[key][:1]}, {}]:
        try:
            copy.deepcopy(model).load_state_dict(state)
        except RuntimeError:
            refused(transfer.load_backbone, model, state, new=())
        else:
            transfer.load_backbone(model, state, new=())


def test_freeze_leaves_the_named_modules_to_train(resnet):
    transfer.freeze(resnet)
    assert [name for name, p in resnet.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    transfer.freeze(resnet, but=("layer4.1", "fc"))
    trained = [name for name, p in resnet.named_parameters() if p.requires_grad]
    assert len(trained) == 8 and all(name.startswith(("layer4.1.", "fc.")) for name in trained)
    assert "no module 'head'. Its outermost are conv1," in refused(transfer.freeze, resnet, but=("fc", "head"))
    transfer.freeze(resnet, but=("fc"))  # a missing comma
    assert resnet.fc.weight.requires_grad and not resnet.conv1.weight.requires_grad


def test_frozen_parameters_do_not_move_by_old_gradients_or_weight_decay(net):
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    net(torch.randn(8, 3)).sum().backward()
    transfer.freeze(net)
    before = net.body[0].weight.clone()
    optimizer.step()  # the gradients of before were not zeroed
    assert torch.equal(net.body[0].weight, before)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate")  # all that torch does
def test_an_optimizer_that_does_not_fit_is_refused_and_no_other(net):
    groups = [{"params": net.body.parameters(), "lr": 1e-3}, {"params": net.fc.parameters()}]
    transfer.check_optimizer(nn.DataParallel(net), torch.optim.SGD(groups, lr=0.1))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    transfer.check_optimizer(tied, torch.optim.SGD(tied.parameters(), lr=0.1))
    every, part = torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.SGD(net.body.parameters(), lr=0.1)
    double = torch.optim.SGD([*net.parameters(), net.fc.bias], lr=0.1)
    assert "parameters more than once (fc.bias)" in refused(transfer.check_optimizer, net, double)
    assert "lacks 2 trainable parameters (fc.bias, fc.weight)" in refused(transfer.check_optimizer, net, part)
    transfer.freeze(net)
    transfer.check_optimizer(net, torch.optim.SGD(net.fc.parameters(), lr=0.1))
    assert "4 frozen parameters (body.0.bias, " in refused(transfer.check_optimizer, net, every)
    net.fc = nn.Linear(4, 7)
    message = refused(transfer.check_optimizer, net, every)
    assert "2 tensors that are not the model's ((2, 4), (2,)) and lacks fc.weight, fc.bias" in message
