"""What a network costs, layer by layer: parameters, operations, memory and the batch that fits; and what it sees."""

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

Shape = tuple[int, int, int]  # of an image: channels, height, width


class Layer(NamedTuple):
    """One layer's sizes for one image."""

    name: str
    kind: str  # class name, e.g. "Conv2d"
    output_shape: tuple[int, ...]  # without the batch dimension
    parameters: int  # not counted in a layer before
    macs: int  # multiply–accumulate operations; bias, activation and pooling count as 0
    activation_bytes: int  # of the output


def count_parameters(model: nn.Module, trained_only: bool = False) -> int:
    """Number of weights and biases; with `trained_only` just those with requires_grad."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained_only)


def layer_table(model: nn.Module, image_shape: Shape) -> list[Layer]:
    """Each call of a layer as one image of shape (C, H, W) goes through the model, in the order of execution.

    Parameters that are used again count in the first call alone. ValueError for images that the model cannot take.
    """
    model, layers, counted = copy.deepcopy(model).eval(), [], set()  # a copy, which may change mode and get hooks

    def note(name, layer, output):
        new = set(layer.parameters()) - counted
        counted.update(new)
        sizes = sum(p.numel() for p in new), macs(layer, output), output.nbytes
        layers.append(Layer(name, type(layer).__name__, tuple(output.shape[1:]), *sizes))

    for name, layer in model.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
    try:
        with torch.inference_mode():
            forward(model, 1, image_shape)
    except RuntimeError as error:
        shape, reason = tuple(image_shape), str(error).splitlines()[0]
        raise ValueError(f"An image of shape {shape} does not fit through {type(model).__name__}: {reason}") from error
    return layers


def forward(model: nn.Module, count: int, image_shape: Shape, precision=torch.float32) -> None:
    """Send `count` images of zeros through the model. Dropout draws, but leaves the random numbers as they were."""
    device = next(model.parameters(), torch.empty(0)).device
    autocast = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), autocast:
        model(torch.zeros(count, *image_shape, device=device))


def macs(layer: nn.Module, output: torch.Tensor) -> int:
    """Multiply–accumulate operations of a convolution or linear layer that gave `output`, (1, …); else 0."""
    if isinstance(layer, nn.Conv2d):
        height, width = layer.kernel_size
        return output.numel() * layer.in_channels // layer.groups * height * width
    return output.numel() * layer.in_features if isinstance(layer, nn.Linear) else 0


def saved_activation_bytes(model: nn.Module, image_shape: Shape, batch_size=2, precision=torch.float32) -> int:
    """Bytes a training step keeps in memory for the backward pass, for each image of shape (C, H, W).

    Measured: what autograd saves in a forward pass in training mode, autocast to `precision`, with the batch itself.
    """
    model = copy.deepcopy(model).train()  # a copy: batch norm's running statistics change in training mode
    for parameter in [p for p in model.parameters() if p.ndim > 1]:  # autocast would copy them, once for all images
        parameter.data = parameter.data.to(precision)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    saved = {}  # by address; holding them keeps an address from being used twice

    def note(tensor):
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        forward(model, batch_size, image_shape, precision)
    return sum(storage.nbytes() for address, storage in saved.items() if address not in own) // batch_size


def fixed_bytes(model: nn.Module, optimizer_copies=2) -> int:
    """Bytes that training in float32 needs whatever the batch: weights, buffers, gradients and the optimizer's state.

    `optimizer_copies` is how many numbers the optimizer keeps for each trained parameter: Adam and AdamW 2, SGD with
    momentum 1, plain SGD 0. Autocast's copies of weights and, on a CPU, `fit`'s copy of all states are not counted.
    """
    kept = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    return kept + (1 + optimizer_copies) * sum(p.nbytes for p in model.parameters() if p.requires_grad)


def largest_batch(model: nn.Module, image_shape: Shape, memory_bytes: int, optimizer_copies=2) -> int:
    """How many images of shape (C, H, W) one training step in float32 can hold in `memory_bytes`; 0 for none.

    That is `fixed_bytes` and the saved activations; what a library takes (a CUDA context: about 0.5 GB) is not counted.
    """
    return max(0, memory_bytes - fixed_bytes(model, optimizer_copies)) // saved_activation_bytes(model, image_shape)


class Field(NamedTuple):
    """What one output of a layer sees of the image, along each side, in pixels."""

    name: str
    size: int  # the receptive field: pixels that can change the output
    step: int  # pixels between the fields of two neighbouring outputs


def receptive_field(path: Mapping[str, nn.Module]) -> list[Field]:
    """The receptive field after each convolution or pooling of `path`, layers by name in the order of execution.

    Where a network branches, take the longest branch. Ends at global pooling. ValueError for kernels not square.
    """
    fields, size, step = [], 1, 1
    for name, layer in path.items():
        if isinstance(layer, nn.AdaptiveAvgPool2d | nn.Flatten | nn.Linear):
            break
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            sizes = [layer.kernel_size, layer.stride, getattr(layer, "dilation", 1)]  # each a number or a pair
            if any(isinstance(pair, tuple) and pair[0] != pair[1] for pair in sizes):
                raise ValueError(f"{name}: receptive fields are worked out for square kernels and strides only.")
            kernel, stride, dilation = (pair[0] if isinstance(pair, tuple) else pair for pair in sizes)
            size, step = size + (kernel - 1) * dilation * step, step * stride
            fields.append(Field(name, size, step))
    return fields


def format_table(layers: list[Layer]) -> str:
    """The layers as aligned text with a line of totals."""
    total = Layer("total", "", (), *map(sum, list(zip(*layers, strict=True))[3:]))  # of the columns with numbers
    width = max(len(layer.name) for layer in layers)
    lines = [f"{'layer':{width}}  {'kind':12} {'output':>14} {'parameters':>12} {'MACs':>15} {'activations':>12}"]
    for layer in [*layers, total]:
        shape = "×".join(map(str, layer.output_shape))
        sizes = f"{layer.parameters:12,} {layer.macs:15,} {layer.activation_bytes:10,} B"
        lines.append(f"{layer.name:{width}}  {layer.kind:12} {shape:>14} {sizes}")
    return "\n".join(lines)
