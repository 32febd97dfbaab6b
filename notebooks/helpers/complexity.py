"""What a network costs, layer by layer: parameters, operations, memory and the batch that fits; and what it sees."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass(frozen=True)
class Layer:
    """One layer's sizes for one image."""

    name: str
    kind: str  # class name, e.g. "Conv2d"
    output_shape: tuple[int, ...]  # without the batch dimension
    parameters: int
    macs: int  # multiply–accumulate operations for one image; bias, activation and pooling count as 0
    activation_bytes: int  # of the output for one image


def count_parameters(model: nn.Module, trained_only: bool = False) -> int:
    """Number of weights and biases; with `trained_only` just those with requires_grad."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained_only)


def layer_table(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """Send one image of shape (C, H, W) through the model and note every layer in the order of execution.

    Raises ValueError when the model cannot take images of this shape.
    """
    layers, hooks = [], []

    def note(name):
        def hook(layer, inputs, output):
            parameters = sum(p.numel() for p in layer.parameters())
            size = output.numel() * output.element_size()
            layers.append(
                Layer(name, type(layer).__name__, tuple(output.shape[1:]), parameters, macs(layer, output), size)
            )

        return hook

    for name, layer in model.named_modules():
        if not list(layer.children()):
            hooks.append(layer.register_forward_hook(note(name)))
    was_training = model.training
    model.eval()  # batch statistics of a single image would be of no use, and must not be stored
    try:
        with torch.inference_mode():
            model(torch.zeros(1, *image_shape, device=next(model.parameters()).device))
    except RuntimeError as error:
        shape, reason = tuple(image_shape), str(error).splitlines()[0]
        raise ValueError(f"An image of shape {shape} does not fit through {type(model).__name__}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return layers


def macs(layer: nn.Module, output: torch.Tensor) -> int:
    """Multiply–accumulate operations of a convolution or linear layer that gave `output`, (1, …); else 0."""
    if isinstance(layer, nn.Conv2d):
        height, width = layer.kernel_size
        return output.numel() * layer.in_channels // layer.groups * height * width
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    return 0


def saved_activation_bytes(model: nn.Module, image_shape: tuple[int, int, int], batch_size: int = 2) -> int:
    """Bytes a training step keeps in memory for the backward pass, for each image of shape (C, H, W).

    Measured, not estimated: every tensor that autograd saves during a forward pass in training mode is counted
    once, the batch itself included, parameters and buffers not.
    """
    model = copy.deepcopy(model).train()  # a copy: batch norm's running statistics change in training mode
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    sizes = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(batch_size, *image_shape, device=next(model.parameters()).device)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(images)
    assert logits.requires_grad  # keeps the graph, and with it every counted tensor, alive until here
    return sum(sizes.values()) // batch_size


def fixed_bytes(model: nn.Module, optimizer_copies: int = 2) -> int:
    """Bytes that training needs whatever the batch: weights, buffers, gradients and the optimizer's state.

    `optimizer_copies` counts numbers kept for each trained parameter: Adam and AdamW 2, SGD with momentum 1, plain
    SGD 0. Frozen parameters have neither a gradient nor a state.
    """
    stored = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    trained = sum(tensor.nbytes for tensor in model.parameters() if tensor.requires_grad)
    return stored + trained * (1 + optimizer_copies)


def largest_batch(
    model: nn.Module, image_shape: tuple[int, int, int], memory_bytes: int, optimizer_copies: int = 2
) -> int:
    """How many images of shape (C, H, W) one training step can hold in `memory_bytes`; 0 when not even one fits.

    Memory is fullest at the end of the forward pass, with `fixed_bytes` and the activations saved for the backward
    pass. The backward pass frees them as it goes, so that its own tensors find room. What a library takes for itself
    (a CUDA context: about 0.5 GB; work space of convolutions) and the optimizer's short-lived copies are not counted.
    """
    left = memory_bytes - fixed_bytes(model, optimizer_copies)
    return max(0, left) // saved_activation_bytes(model, image_shape)


class Field(NamedTuple):
    """What one output of a layer sees of the image, along each side, in pixels."""

    name: str
    size: int  # the receptive field: pixels that can change the output
    step: int  # pixels between the fields of two neighbouring outputs


def receptive_field(path: Mapping[str, nn.Module]) -> list[Field]:
    """The receptive field after each convolution or pooling of `path`, layers by name in the order of execution.

    `dict(model.features.named_modules())` is such a path; containers and layers that work on single positions are
    passed over. Where a network branches, put only the longest branch into it. Ends at global pooling, after which
    every output sees the whole image. Raises ValueError for kernels that are not square.
    """
    fields, size, step = [], 1, 1
    for name, layer in path.items():
        if isinstance(layer, nn.AdaptiveAvgPool2d | nn.Flatten | nn.Linear):
            break
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            sizes = [layer.kernel_size, layer.stride, getattr(layer, "dilation", 1)]  # each a number or a pair
            pairs = [pair if isinstance(pair, tuple) else (pair, pair) for pair in sizes]
            if any(height != width for height, width in pairs):
                raise ValueError(f"{name}: receptive fields are worked out for square kernels and strides only.")
            (kernel, _), (stride, _), (dilation, _) = pairs
            size, step = size + (kernel - 1) * dilation * step, step * stride
            fields.append(Field(name, size, step))
    return fields


def format_table(layers: list[Layer]) -> str:
    """The layers as aligned text with a line of totals."""
    total = Layer(
        "total",
        "",
        (),
        sum(layer.parameters for layer in layers),
        sum(layer.macs for layer in layers),
        sum(layer.activation_bytes for layer in layers),
    )
    width = max(len(layer.name) for layer in layers)
    lines = [f"{'layer':{width}}  {'kind':12} {'output':>14} {'parameters':>12} {'MACs':>15} {'activations':>12}"]
    for layer in [*layers, total]:
        shape = "×".join(str(size) for size in layer.output_shape)
        lines.append(
            f"{layer.name:{width}}  {layer.kind:12} {shape:>14} {layer.parameters:12,} {layer.macs:15,}"
            f" {layer.activation_bytes:10,} B"
        )
    return "\n".join(lines)
