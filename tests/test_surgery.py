"""Loading under a new head, freezing, and optimizers that do not hold what they should."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torchvision import models

from helpers import surgery


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    """The state dict of a ResNet-18 with 1,000 classes whose running statistics are not the initial ones."""
    torch.manual_seed(1)
    model = models.resnet18()
    model(torch.randn(2, 3, 64, 64))
    return model.state_dict()


@pytest.fixture
def resnet() -> nn.Module:
    torch.manual_seed(2)
    return models.resnet18(num_classes=10)


class Small(nn.Module):
    """Batch norm, dropout, and a head. Input (B, 3)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.body(x))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Small()


def refused(call, *arguments, **named) -> str:
    with pytest.raises(ValueError) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    return str(error.value)


# loading


def test_backbone_is_torchs_and_the_head_its_own(resnet, trained):
    head = copy.deepcopy(resnet.fc.state_dict())
    loaded = surgery.load_backbone(resnet, trained)
    oracle = models.resnet18()
    oracle.load_state_dict(trained)
    oracle.fc = nn.Linear(512, 10)
    oracle.fc.load_state_dict(head)
    for key, value in oracle.state_dict().items():
        assert torch.equal(resnet.state_dict()[key], value), key
    assert (len(loaded.loaded), loaded.missing) == (120, ("fc.weight", "fc.bias"))
    assert loaded.unexpected == ("fc.weight", "fc.bias")
    assert str(loaded) == (
        "120 of 122 tensors loaded; new: fc.weight, fc.bias; left out: fc.weight (1000, 512), fc.bias (1000,)"
    )


def test_a_state_without_head_and_one_that_fits_whole(resnet, trained):
    body = {key: value for key, value in trained.items() if not key.startswith("fc.")}
    assert str(surgery.load_backbone(resnet, body)) == "120 of 122 tensors loaded; new: fc.weight, fc.bias"
    whole = surgery.load_backbone(models.resnet18(), trained, new=())
    assert str(whole) == "122 of 122 tensors loaded"


def test_other_modules_can_be_new(resnet, trained):
    before = copy.deepcopy(resnet.layer4.state_dict())
    loaded = surgery.load_backbone(resnet, trained, new=["layer4", "fc"])
    assert all(torch.equal(value, before[key]) for key, value in resnet.layer4.state_dict().items())
    assert len(loaded.loaded) == 90 and "and 29 more" in str(loaded)


def test_old_files_without_batch_counts_load_as_torch_loads_them(resnet, trained):
    """Torchvision's early files have none; torch accepts them, and so must we, but not in silence."""
    old = {key: value for key, value in trained.items() if not key.endswith("num_batches_tracked")}
    assert not models.resnet18().load_state_dict(old, strict=True).missing_keys
    loaded = surgery.load_backbone(resnet, old)
    assert len(loaded.loaded) == 100 and str(loaded).endswith("not in the file: 20 batch counters of batch norm")
    assert torch.equal(resnet.bn1.running_mean, trained["bn1.running_mean"])


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "_orig_mod.module."])
def test_a_prefix_is_recognised(resnet, trained, prefix):
    before = copy.deepcopy(resnet.state_dict())
    message = refused(surgery.load_backbone, resnet, {prefix + key: value for key, value in trained.items()})
    assert f"100 missing: conv1.weight, bn1.weight, bn1.bias and 97 more; 122 unexpected: {prefix}" in message
    assert f"removeprefix({prefix!r})" in message
    assert all(torch.equal(value, before[key]) for key, value in resnet.state_dict().items())


def test_data_parallel_on_either_side(trained):
    wrapped = nn.DataParallel(models.resnet18())
    message = refused(surgery.load_backbone, models.resnet18(), wrapped.state_dict(), new=())
    assert "removeprefix('module.')" in message
    assert "model's own names begin with 'module.'" in refused(surgery.load_backbone, wrapped, trained, new=())


@pytest.mark.parametrize("other", ["resnet34", "resnet50", "densenet121"])
def test_another_architecture(resnet, trained, other):
    before = copy.deepcopy(resnet.state_dict())
    model = models.get_model(other, num_classes=10)
    assert "another architecture" in refused(surgery.load_backbone, resnet, model.state_dict())
    head = "classifier" if other == "densenet121" else "fc"
    assert "another architecture" in refused(surgery.load_backbone, model, trained, new=(head,))
    assert all(torch.equal(value, before[key]) for key, value in resnet.state_dict().items())


def test_every_refused_state_is_also_refused_by_torch(trained):
    """And none that torch's strict loading takes is refused, as long as nothing is named as new."""
    model = models.resnet18()
    key = "layer1.0.conv1.weight"
    states = [trained, {k: v for k, v in trained.items() if k != key}, {**trained, "extra": trained[key]}]
    states += [{**trained, key: trained[key][:1]}, {}]
    for state in states:
        accepted = True
        try:
            copy.deepcopy(model).load_state_dict(state)
        except RuntimeError:
            accepted = False
        if accepted:
            surgery.load_backbone(model, state, new=())
        else:
            refused(surgery.load_backbone, model, state, new=())


def test_head_of_another_width_that_is_not_named_as_new(resnet, trained):
    message = refused(surgery.load_backbone, resnet, trained, new=())
    assert "fc.weight (1000, 512) for (10, 512)" in message and "new=('fc',)" in message


def test_a_whole_checkpoint_and_an_unknown_module(resnet, trained):
    message = refused(surgery.load_backbone, resnet, {"model": trained, "epoch": 3})
    assert message.startswith("This is no state dict: model, epoch")
    assert "no module 'head'" in refused(surgery.load_backbone, resnet, trained, new=("head",))


# freezing


def test_freeze_leaves_the_named_modules_to_train(resnet):
    for _ in range(2):  # again: the same
        surgery.freeze(resnet)
        assert [name for name, p in resnet.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    surgery.freeze(resnet, but=("layer4.1", "fc"))
    names = {name for name, p in resnet.named_parameters() if p.requires_grad}
    assert names == {f"layer4.1.{name}" for name, _ in resnet.layer4[1].named_parameters()} | {"fc.weight", "fc.bias"}
    surgery.freeze(resnet, but=())
    assert not any(p.requires_grad for p in resnet.parameters())


def test_freeze_refuses_unknown_names_and_forgives_a_missing_comma(resnet):
    message = refused(surgery.freeze, resnet, but=("fc", "head"))
    assert "no module 'head'" in message and "layer4, avgpool, fc" in message
    assert all(p.requires_grad for p in resnet.parameters())
    surgery.freeze(resnet, but=("fc"))
    assert resnet.fc.weight.requires_grad and not resnet.conv1.weight.requires_grad


def test_frozen_parameters_do_not_move_by_old_gradients_or_weight_decay(net):
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    net(torch.randn(8, 3)).sum().backward()
    optimizer.step()
    surgery.freeze(net)
    before = net.body[0].weight.clone()
    optimizer.step()  # the gradients of before were not zeroed
    assert torch.equal(net.body[0].weight, before)


# the optimizer


def test_good_optimizers_pass(net):
    groups = [{"params": net.body.parameters(), "lr": 1e-3}, {"params": net.fc.parameters()}]
    surgery.check_optimizer(net, torch.optim.SGD(groups, lr=0.1))
    surgery.check_optimizer(nn.DataParallel(net), torch.optim.SGD(net.parameters(), lr=0.1))
    surgery.freeze(net)
    surgery.check_optimizer(net, torch.optim.SGD(net.fc.parameters(), lr=0.1))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    surgery.check_optimizer(tied, torch.optim.SGD(tied.parameters(), lr=0.1))


def test_head_replaced_after_the_optimizer_was_built(resnet):
    optimizer = torch.optim.Adam(resnet.parameters())
    resnet.fc = nn.Linear(512, 7)
    message = refused(surgery.check_optimizer, resnet, optimizer)
    assert "2 tensors that are not the model's (of shape (10, 512), (10,)) and lacks fc.weight, fc.bias" in message
    assert "Build the optimizer after" in message


def test_missing_frozen_and_doubled_parameters(net):
    assert "lacks 2 trainable parameters (fc.weight, fc.bias)" in refused(
        surgery.check_optimizer, net, torch.optim.SGD(net.body.parameters(), lr=0.1)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch only warns of it
        double = torch.optim.SGD([*net.parameters(), net.fc.bias], lr=0.1)
    assert "more than once (fc.bias)" in refused(surgery.check_optimizer, net, double)
    every = torch.optim.SGD(net.parameters(), lr=0.1)
    surgery.freeze(net)
    assert "4 frozen parameters (body.0.weight, " in refused(surgery.check_optimizer, net, every)


# what moves


def test_unmoved_names_what_stands_still_and_touches_nothing(net):
    groups = [{"params": [net.body[0].weight], "lr": 0.0}, {"params": [*net.body[1].parameters(), net.fc.weight]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)  # wraps optimizer.step
    images, labels = torch.randn(16, 3), torch.randint(0, 2, (16,))
    net.eval()
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    still = surgery.unmoved(net, optimizer, nn.CrossEntropyLoss(), images, labels)
    assert still == ["body.0.weight", "body.0.bias", "fc.bias"]  # step size 0; not in the optimizer, twice
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not optimizer.state and not net.training and scheduler.last_epoch == 0
    assert all(p.grad is None for p in net.parameters())


def test_a_layer_that_no_gradient_reaches_is_unmoved(net):
    nn.init.zeros_(net.fc.weight)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    arguments = nn.CrossEntropyLoss(), torch.randn(16, 3), torch.randint(0, 2, (16,))
    assert set(surgery.unmoved(net, optimizer, *arguments)) == {f"body.{n}" for n, _ in net.body.named_parameters()}
    surgery.freeze(net)
    assert surgery.unmoved(net, torch.optim.Adam(net.fc.parameters(), lr=0.1), *arguments) == []
