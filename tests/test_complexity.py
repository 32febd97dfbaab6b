import pytest
import torch
from torch import nn
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
