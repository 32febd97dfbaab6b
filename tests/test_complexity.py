import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from helpers import complexity

PUBLISHED = {  # name: parameters, GMACs, as torchvision publishes them with the weights
    "alexnet": models.AlexNet_Weights.IMAGENET1K_V1.meta,
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1.meta,
    "densenet121": models.DenseNet121_Weights.IMAGENET1K_V1.meta,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_are_torchvisions_published_ones(name):
    model = models.get_model(name)
    layers = complexity.layer_table(model, (3, 224, 224))
    assert complexity.count_parameters(model) == sum(layer.parameters for layer in layers)
    assert complexity.count_parameters(model) == PUBLISHED[name]["num_params"]
    assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(PUBLISHED[name]["_ops"], abs=0.0006)


def test_lenet_layer_by_layer(lenet):
    layers = complexity.layer_table(lenet, (1, 32, 32))
    sizes = {layer.name: (layer.output_shape, layer.parameters, layer.macs) for layer in layers}
    assert sizes["0"] == ((6, 28, 28), 6 * (25 + 1), 6 * 28 * 28 * 25)
    assert sizes["3"] == ((16, 10, 10), 16 * (6 * 25 + 1), 16 * 10 * 10 * 6 * 25)
    assert sizes["7"] == ((120,), 400 * 120 + 120, 400 * 120)
    assert sum(layer.parameters for layer in layers) == 61_706
    assert layers[0].activation_bytes == 6 * 28 * 28 * 4


def test_macs_are_half_of_torchs_flops():
    model = nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), stride=2, padding=1, groups=2), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 64, 3)
    )
    model[3] = nn.Linear(model[:3](torch.zeros(1, 4, 16, 18)).shape[1], 3)
    counter = FlopCounterMode(display=False)
    with counter:
        model.eval()(torch.zeros(1, 4, 16, 18))
    assert 2 * sum(layer.macs for layer in complexity.layer_table(model, (4, 16, 18))) == counter.get_total_flops()


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    complexity.layer_table(model, (3, 8, 8))
    assert model.training and model[1].num_batches_tracked == 0 and not model[0]._forward_hooks


def test_trained_parameters_follow_requires_grad(lenet):
    lenet.requires_grad_(False)
    lenet[-1].requires_grad_(True)
    assert complexity.count_parameters(lenet, trained_only=True) == 850


def test_table_ends_with_totals(lenet):
    text = complexity.format_table(complexity.layer_table(lenet, (1, 32, 32)))
    assert text.splitlines()[-1].split()[:3] == ["total", "61,706", "416,520"]


def test_wrong_image_size_is_one_line(lenet):
    with pytest.raises(ValueError, match=r"\(1, 28, 28\).*Sequential.*mat1 and mat2") as error:
        complexity.layer_table(lenet, (1, 28, 28))
    assert "\n" not in str(error.value)


def test_saved_activations_by_hand():
    """Conv and linear layers keep their inputs, ReLU its output; flattening shares memory with what it flattens."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10))
    images, relu_output = 3 * 8 * 8, 4 * 6 * 6
    assert complexity.saved_activation_bytes(model, (3, 8, 8), batch_size=5) == 4 * (images + relu_output)


def test_counting_saved_activations_changes_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    complexity.saved_activation_bytes(model, (3, 8, 8))
    assert not model.training and model[1].num_batches_tracked == 0


def test_fixed_bytes_by_hand():
    """Weights, buffers, gradients and optimizer state; frozen parameters have neither of the last two."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 10))
    convolution, norm, linear, buffers = 4 * 3 * 9 * 4, 2 * 4 * 4, 37 * 10 * 4, 2 * 4 * 4 + 8  # the counter is int64
    assert complexity.fixed_bytes(model) == 4 * (convolution + norm + linear) + buffers
    model[0].requires_grad_(False)
    assert complexity.fixed_bytes(model, optimizer_copies=0) == convolution + 2 * (norm + linear) + buffers


class LiveBytes(TorchDispatchMode):
    """Adds up the memory of all living tensors, operation by operation, and keeps the peak."""

    def __init__(self, tensors):
        super().__init__()
        self.alive, self.peak = {}, 0
        for tensor in tensors:
            self.note(tensor)

    def note(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata, None)
            self.peak = max(self.peak, sum(self.alive.values()))

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, torch.Tensor):
                self.note(value)
        return output


def training_step(model, optimizer, batch_size, image_shape):
    """One step as `training.train_one_epoch` takes it, on images of zeros."""
    device = next(model.parameters()).device
    images = torch.zeros(batch_size, *image_shape, device=device)
    loss = nn.functional.cross_entropy(model(images), torch.zeros(batch_size, dtype=torch.int64, device=device))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


NETWORKS = [("squeezenet1_1", 64, 60e6), ("resnet18", 64, 300e6), ("densenet121", 32, 180e6)]


@pytest.mark.parametrize(("name", "side", "memory_bytes"), NETWORKS)
def test_largest_batch_fills_the_memory(name, side, memory_bytes):
    """The living tensors of one step of Adam with this batch peak within 15 % of the memory that was given."""
    model = models.get_model(name, num_classes=10)
    optimizer = torch.optim.Adam(model.parameters())
    training_step(model, optimizer, 2, (3, side, side))  # now gradients and optimizer state exist
    batch_size = complexity.largest_batch(model, (3, side, side), int(memory_bytes))
    states = [value for state in optimizer.state.values() for value in state.values()]
    mine = [*model.parameters(), *model.buffers(), *states]
    with LiveBytes([*mine, *(parameter.grad for parameter in model.parameters())]) as live:
        training_step(model, optimizer, batch_size, (3, side, side))
    assert live.peak == pytest.approx(memory_bytes, rel=0.15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["alexnet", "resnet18", "densenet121"])
def test_largest_batch_on_cuda(name):
    """As above, with the allocator's own peak and 4 GB."""
    model = models.get_model(name, num_classes=10).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    batch_size = complexity.largest_batch(model, (3, 224, 224), 4_000_000_000)
    training_step(model, optimizer, 2, (3, 224, 224))
    torch.cuda.reset_peak_memory_stats()
    training_step(model, optimizer, batch_size, (3, 224, 224))
    assert torch.cuda.max_memory_allocated() == pytest.approx(4e9, rel=0.15)


def test_no_batch_fits_where_the_weights_do_not():
    model = nn.Linear(100, 10)
    assert complexity.largest_batch(nn.Sequential(nn.Flatten(), model), (1, 10, 10), 1000) == 0


PATHS = {
    "alexnet": [nn.Conv2d(1, 1, 11, 4, 2), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, 5, padding=2), nn.AvgPool2d(3, 2)],
    "densenet": [nn.Conv2d(1, 1, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3, padding=1)],
    "dilated": [nn.Conv2d(1, 1, 3, dilation=2), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3, stride=2, dilation=3)],
}


@pytest.mark.parametrize("path", PATHS)
def test_receptive_field_is_where_the_gradient_reaches(path):
    """The gradient of one output pixel is not zero exactly within its field; its neighbour's is one step further."""
    model = nn.Sequential(*PATHS[path]).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    reached = [torch.zeros(160, dtype=torch.bool), torch.zeros(160, dtype=torch.bool)]
    for seed in range(40):  # max-pooling sends its gradient to one pixel only: with many images to each once
        torch.manual_seed(seed)
        images = torch.rand(1, 1, 160, 160, dtype=torch.float64, requires_grad=True)
        output = model(images)
        for i in range(2):
            middle = output[0, 0, output.shape[2] // 2, output.shape[3] // 2 + i]
            (gradient,) = torch.autograd.grad(middle, images, retain_graph=True)
            reached[i] |= (gradient[0, 0] != 0).any(dim=0)
    first, second = ([columns.nonzero().min().item(), columns.nonzero().max().item()] for columns in reached)
    _, size, step = complexity.receptive_field(dict(model.named_modules()))[-1]
    assert first[1] - first[0] + 1 == size and second[0] - first[0] == step


def test_receptive_field_stops_where_everything_is_seen():
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(6), nn.Conv2d(4, 4, 3))
    assert complexity.receptive_field(dict(model.named_modules())) == [("0", 5, 1)]
    with pytest.raises(ValueError, match=r"odd: .*square"):
        complexity.receptive_field({"odd": nn.Conv2d(3, 4, (3, 5))})
