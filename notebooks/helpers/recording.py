"""A GPU's way through a network, recorded as a CUDA graph: one launch for a step instead of thousands.

Where layers are small and many, a GPU waits for Python: DenseNet-121 on 32 images. What a recording may not hold
(a number read by Python, memory that moves) is said in https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import warnings
from collections.abc import Callable

import torch
from torch import nn

SAME = 5  # steps alike before one is recorded: the first also choose kernels and take memory


class Recorded:
    """`passes`, which computes loss and logits of a batch and the model's gradients, replayed where nothing changed.

    Steps run as they are until some were alike; a last, shorter batch always does, and so does a model with hooks.
    """

    def __init__(self, passes: Callable):
        self.passes, self.alike, self.refused, self.circumstances, self.graph = passes, 0, False, None, None

    def __call__(self, model: nn.Module, images, labels, criterion) -> tuple[torch.Tensor, torch.Tensor]:
        batch, now = (model, images, labels, criterion), circumstances(model, images, labels, criterion)
        if now and not self.graph and not self.refused:
            self.alike = self.alike + 1 if now == self.circumstances else 1
            self.circumstances = now
            if self.alike == SAME:
                return self.watched(*batch)
            if self.alike > SAME:
                self.record(*batch)
        return self.replay(images, labels) if self.graph and now == self.circumstances else self.passes(*batch)

    def watched(self, *batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The passes as they are. Where Python waits for a number in them they are never recorded."""
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                results = self.passes(*batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        self.refused = any("synchroniz" in str(warning.message) for warning in said)
        return results

    def record(self, model, images, labels, criterion) -> None:
        """Record the passes, which computes nothing yet. Where that cannot be done steps stay as they are."""
        graph, self.images, self.labels = torch.cuda.CUDAGraph(), images.clone(), labels.clone()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.results = self.passes(model, self.images, self.labels, criterion)
        except RuntimeError:
            self.refused = True
            return
        self.gradients = [(weight, weight.grad) for weight in model.parameters() if weight.grad is not None]
        self.graph = graph

    def replay(self, images, labels) -> tuple[torch.Tensor, torch.Tensor]:
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        for weight, gradient in self.gradients:
            weight.grad = gradient  # which `zero_grad` had let go
        loss, logits = self.results
        return loss.clone(), logits.clone()  # the next step writes over them


def circumstances(model: nn.Module, images, labels, criterion):
    """All that a recording relies on: shapes, layout, modes, and where the weights lie. None where hooks look on."""
    layers = list(model.modules())
    if any(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks for layer in layers):
        return None
    shapes = [(part.shape, part.stride(), part.dtype) for part in (images, labels)]
    weights = [(weight.data_ptr(), weight.requires_grad) for weight in model.parameters()]
    return criterion, shapes, weights, [b.data_ptr() for b in model.buffers()], [layer.training for layer in layers]
