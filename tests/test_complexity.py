import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from helpers import complexity

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize("name", ["AlexNet", "ResNet18", "DenseNet121"])
def test_totals_are_torchvisions_published_ones(name):
    model, published = models.get_model(name), models.get_model_weights(name).IMAGENET1K_V1.meta
    layers = complexity.layer_table(model, (3, 224, 224))
    assert complexity.count_parameters(model) == sum(layer.parameters for layer in layers) == published["num_params"]
    assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(published["_ops"], abs=0.0006)


def test_lenet_layer_by_layer(lenet):
    layers = complexity.layer_table(lenet, (1, 32, 32))
    assert layers[3] == ("3", "Conv2d", (16, 10, 10), 16 * (6 * 25 + 1), 16 * 10 * 10 * 6 * 25, 16 * 10 * 10 * 4)
    assert complexity.format_table(layers).splitlines()[-1].split()[:3] == ["total", "61,706", "416,520"]
    with pytest.raises(ValueError, match=r"^.*\(1, 28, 28\).*Sequential.*mat1 and mat2.*$"):
        complexity.layer_table(lenet, (1, 28, 28))


def test_macs_are_half_of_torchs_flops():
    model = nn.Sequential(nn.Conv2d(4, 8, (3, 5), 2, 1, groups=2), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(512, 3))
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 4, 16, 18))
    assert 2 * sum(layer.macs for layer in complexity.layer_table(model, (4, 16, 18))) == counter.get_total_flops()


@pytest.mark.parametrize(("whole", "parameters"), [(True, [38, 0]), (False, [38, 2])])
def test_tied_parameters_count_once_and_their_work_twice(whole, parameters):
    """Two 3×3 convolutions are one and the same, or share their 36 weights and have 2 biases each."""
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Sequential(nn.Conv2d(2, 2, 3, padding=1)))
    model[1][0].weight = model[0].weight
    model[1][0] = model[0] if whole else model[1][0]
    layers = complexity.layer_table(model, (2, 5, 5))
    assert [layer.parameters for layer in layers] == parameters
    assert [layer.macs for layer in layers] == [36 * 25] * 2
    assert sum(parameters) == complexity.count_parameters(model)
    assert complexity.fixed_bytes(model, optimizer_copies=0) == 2 * 4 * sum(parameters)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("measure", [complexity.layer_table, complexity.saved_activation_bytes])
def test_measuring_changes_nothing(measure, device):
    """Neither modes, one frozen layer's among them, nor statistics, hooks or random numbers."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).to(device)
    model[1].eval()
    torch.manual_seed(0)
    expected = torch.rand(3, device=device)
    torch.manual_seed(0)
    measure(model, (3, 8, 8))
    assert torch.equal(torch.rand(3, device=device), expected)
    assert [module.training for module in model] == [True, False, True]
    assert model[1].num_batches_tracked == 0 and not model[0]._forward_hooks


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_saved_activations_by_hand(precision):
    """Conv and linear layers keep their inputs, ReLU its output. Autocast's copies of weights do not grow with it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 1000))
    saved = complexity.saved_activation_bytes(model, (3, 8, 8), batch_size=5, precision=precision)
    assert saved == precision.itemsize * (3 * 8 * 8 + 4 * 6 * 6)  # images, ReLU's output
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_fixed_bytes_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 10))
    convolution, norm, linear, buffers = 4 * 3 * 9 * 4, 2 * 4 * 4, 37 * 10 * 4, 2 * 4 * 4 + 8  # the counter is int64
    assert complexity.fixed_bytes(model) == 4 * (convolution + norm + linear) + buffers
    model[0].requires_grad_(False)
    assert 4 * complexity.count_parameters(model, trained_only=True) == norm + linear
    assert complexity.fixed_bytes(model, optimizer_copies=0) == convolution + 2 * (norm + linear) + buffers
    assert complexity.largest_batch(model, (3, 5, 5), convolution + 3 * (norm + linear)) == 0


class LiveBytes(TorchDispatchMode):
    """Adds up the memory of all living tensors after every operation, and keeps the peak."""

    def __init__(self, tensors):
        super().__init__()
        self.alive, self.peak = {}, 0  # bytes of each storage
        self.note(tensors)

    def note(self, tensors):
        for storage in [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, torch.Tensor)]:
            if storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.alive.values()))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        self.note(tree_leaves(output))
        return output


def training_step(model, optimizer, batch_size, side):
    """One step as `training.train_one_epoch` takes it, on images of zeros."""
    logits = model(torch.zeros(batch_size, 3, side, side, device=next(model.parameters()).device))
    optimizer.zero_grad()
    nn.functional.cross_entropy(logits, torch.zeros_like(logits).softmax(dim=1)).backward()
    optimizer.step()


SIZES = [("squeezenet1_1", 64, 60e6, "cpu"), ("densenet121", 32, 150e6, "cpu")]
SIZES += [pytest.param(name, 224, 4e9, "cuda", marks=needs_cuda) for name in ["alexnet", "resnet18", "densenet121"]]


@pytest.mark.parametrize(("name", "side", "memory", "device"), SIZES)
def test_largest_batch_fills_the_memory(name, side, memory, device):
    """One step of Adam with this batch peaks within 15 % of the memory; on a GPU that is what the allocator says."""
    model = models.get_model(name, num_classes=10).to(device)
    optimizer = torch.optim.Adam(model.parameters())
    training_step(model, optimizer, 2, side)  # now gradients and states exist
    live = LiveBytes(tree_leaves([model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]]))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batch_size = complexity.largest_batch(model, (3, side, side), int(memory))
    with live:
        training_step(model, optimizer, batch_size, side)
    peak = live.peak if device == "cpu" else torch.cuda.max_memory_allocated()
    assert peak == pytest.approx(memory, rel=0.15)


PATHS = {
    "alexnet": [nn.Conv2d(1, 1, 11, 4, 2), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, 5, padding=2), nn.AvgPool2d(3, 2)],
    "densenet": [nn.Conv2d(1, 1, 7, 2, 3), nn.AvgPool2d(3, 2, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=1)],
    "dilated": [nn.Conv2d(1, 1, 3, dilation=2), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, stride=2, dilation=3)],
}


@pytest.mark.parametrize("path", PATHS)
def test_receptive_field_is_where_the_gradient_reaches(path):
    """The gradient of one output pixel is not zero exactly within its field; its neighbour's is one step further."""
    model = nn.Sequential(*PATHS[path]).double()
    for parameter in model.parameters():
        parameter.data.abs_()
    images = torch.ones(1, 1, 160, 160, dtype=torch.float64, requires_grad=True)
    outputs = model(images)[0, 0, 5]
    gradients = [torch.autograd.grad(output, images, retain_graph=True)[0][0, 0] for output in outputs[4:6]]
    first, second = ((gradient != 0).any(dim=0).nonzero().flatten() for gradient in gradients)
    _, size, step = complexity.receptive_field(dict(model.named_modules()))[-1]
    assert first[-1] - first[0] + 1 == size and second[0] - first[0] == step


def test_receptive_field_stops_where_everything_is_seen():
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(3, 2, dilation=2), nn.AdaptiveAvgPool2d(6), nn.MaxPool2d(2))
    assert complexity.receptive_field(dict(model.named_modules())) == [("0", 5, 1), ("1", 9, 2)]
    with pytest.raises(ValueError, match=r"odd: .*square"):
        complexity.receptive_field({"odd": nn.Conv2d(3, 4, (3, 5))})
