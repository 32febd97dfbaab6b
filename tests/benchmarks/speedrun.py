"""CIFAR-10 as fast as two CPU cores can: one straight script, every change over plain training behind a switch.

The ideas are those of Keller Jordan's airbench (2024): a frozen whitening convolution in front, few channels, identity
(Dirac) initialization, flips that alternate, steps with orthogonal directions (Muon), and answers averaged over flips
and shifts at the test; images grow on the way. Prints one line of JSON. docs/records.md keeps what was measured.
"""

import argparse
import json
import sys
import time

START = time.perf_counter()  # the whole process, imports and all

from pathlib import Path  # noqa: E402

sys.path.append(str(Path(__file__).parents[2] / "notebooks"))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from helpers import data  # noqa: E402
from helpers.device import choose_device, choose_threads, keep_freed_memory, plan_for, processor_name  # noqa: E402

CHANGES = ["whitening", "dirac", "smoothing", "alternating", "muon", "growing", "views"]  # as the ladder adds them
SMALL, SHARE_SMALL = 24, 0.6  # pixels of the images at first, and the share of the steps that see them so


class Group(nn.Module):
    """Two 3×3 convolutions with batch norm and GELU; the first one's maps are pooled to half the side."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = (nn.BatchNorm2d(channels_out, momentum=0.4) for _ in range(2))
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad = False  # only its shift is learned

    def forward(self, x):  # (B, in, H, W) to (B, out, H / 2, W / 2)
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Network(nn.Module):
    """2×2 convolution, three groups, one linear layer."""

    def __init__(self, widths: list[int], images: torch.Tensor, changes: set[str]):
        super().__init__()
        self.first = nn.Conv2d(3, 24, 2)
        self.groups = nn.Sequential(*[Group(*pair) for pair in zip([24, *widths], widths, strict=False)])
        self.head = nn.Linear(widths[-1], 10, bias=False)
        self.scale = 1 / 9
        if "whitening" in changes:
            whiten(self.first, images)
        if "dirac" in changes:
            for name, weight in self.groups.named_parameters():
                if "conv" in name:
                    nn.init.dirac_(weight[: weight.shape[1]])  # the first outputs hand their inputs on
        if "muon" in changes:
            nn.init.normal_(self.head.weight)
            self.scale = 0.64 / widths[-1] ** 0.5  # logits of about 1 at the start, whatever the width

    def forward(self, x):  # (B, 3, 32, 32), or smaller
        x = self.groups(F.gelu(self.first(x)))  # (B, width, 3, 3)
        return self.scale * self.head(x.amax(dim=(2, 3)))


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: torch.Tensor) -> None:
    """Set the 2×2 kernels to the principal directions of patches, each divided by its spread, and their negatives."""
    patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)  # (patches, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (vectors / torch.sqrt(values + 5e-4)).T.reshape(12, 3, 2, 2)
    layer.weight.copy_(torch.cat([kernels, -kernels]))
    layer.bias.zero_()
    layer.weight.requires_grad = False


class Muon(torch.optim.Optimizer):
    """Gradient descent with Nesterov momentum in orthogonal directions (Jordan 2024); kernels keep their norm."""

    def __init__(self, kernels: list[nn.Parameter], lr: float, momentum: float = 0.6):
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        group = self.param_groups[0]
        for kernel in group["params"]:  # (out, in, 3, 3)
            average = self.state[kernel].setdefault("average", torch.zeros_like(kernel))
            average.mul_(group["momentum"]).add_(kernel.grad)
            direction = orthogonal(kernel.grad.add(average, alpha=group["momentum"]).flatten(1)).view(kernel.shape)
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm()).add_(direction, alpha=-group["lr"])


def orthogonal(matrix: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """Roughly the nearest matrix whose singular values are 1, by Newton and Schulz's iteration."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


def optimizers(model: Network, options: argparse.Namespace, changes: set[str]) -> list[torch.optim.Optimizer]:
    """SGD for all, or Muon for the kernels and SGD for the rest."""
    kernels = [p for p in model.groups.parameters() if p.ndim == 4]
    shifts = [p for p in model.parameters() if p.requires_grad and p.ndim == 1]
    rest = [model.first.weight] if model.first.weight.requires_grad else []
    if "muon" not in changes:
        rest += [*kernels, model.head.weight]
        groups = [{"params": shifts, "lr": 48.0}, {"params": rest, "lr": 0.75, "weight_decay": 2e-6}]
        return [torch.optim.SGD(groups, momentum=0.85, nesterov=True, fused=True)]
    groups = [{"params": shifts, "lr": 0.053}, {"params": [*rest, model.head.weight], "lr": 0.67}]
    return [Muon(kernels, options.peak), torch.optim.SGD(groups, momentum=0.85, nesterov=True, fused=True)]


def shifted(images: torch.Tensor, pixels: int = 2) -> torch.Tensor:
    """Each image moved by up to 2 pixels, edges mirrored."""
    size = images.shape[-1]
    padded = F.pad(images, [pixels] * 4, mode="reflect")
    shifts = torch.randint(0, 2 * pixels + 1, (2, len(images), 1))
    rows, columns = shifts + torch.arange(size)
    each = torch.arange(len(images))[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def seen(images: torch.Tensor, mirrored: torch.Tensor, size: int) -> torch.Tensor:
    """What a step sees of its images: moved, some of them mirrored, and scaled to `size` pixels."""
    images = shifted(images)
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if size < images.shape[-1]:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.contiguous(memory_format=torch.channels_last)


def rate(progress: float, warm_up: float) -> float:
    """The learning rate as a share of its peak: up from 0.2 while it warms up, then down to 0 in a straight line."""
    return 0.2 + 0.8 * progress / warm_up if progress < warm_up else (1 - progress) / (1 - warm_up)


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, views: bool) -> float:
    """Over all images; with `views` the answers to six views are averaged: mirrored, and moved by a pixel."""
    model.eval()
    correct = 0
    for part, truth in zip(images.split(500), labels.split(500), strict=True):
        padded = F.pad(part, [1] * 4, mode="reflect")
        moved = [(0.5, padded[:, :, :32, :32]), (0.5, padded[:, :, 2:, 2:])] if views else []
        views_of = [(1.0, part), *moved]
        views_of += [(weight, view.flip(-1)) for weight, view in views_of] if views else []
        logits = sum(weight * model(view.contiguous(memory_format=torch.channels_last)) for weight, view in views_of)
        correct += (logits.argmax(dim=1) == truth).sum().item()
    return correct / len(images)


def train(options: argparse.Namespace, images: torch.Tensor, labels: torch.Tensor, plan) -> tuple[nn.Module, float]:
    """The trained network, and the seconds of training (whitening and preparing the batches included)."""
    changes = set(CHANGES) - set(options.without)
    start = time.perf_counter()
    torch.manual_seed(options.seed)
    model = Network(options.widths, images[:5000], changes).to(memory_format=torch.channels_last)
    model.first.bias.requires_grad = "whitening" not in changes  # so that no gradient is needed before the groups
    both = optimizers(model, options, changes)
    warm_up = 0.0 if "muon" in changes else 0.23
    per_epoch = len(images) // options.batch
    total = options.epochs * per_epoch
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: rate(step / total, warm_up)) for each in both]
    criterion = nn.CrossEntropyLoss(label_smoothing=0.2 if "smoothing" in changes else 0)
    mirrored = torch.rand(len(images)) < 0.5
    model.train()
    for step in range(total):
        if step % per_epoch == 0:
            order = torch.randperm(len(images))
            mirrored = ~mirrored if "alternating" in changes else torch.rand(len(images)) < 0.5
        chosen = order[step % per_epoch * options.batch :][: options.batch]
        small = "growing" in changes and step < SHARE_SMALL * total
        batch = seen(images[chosen], mirrored[chosen], SMALL if small else 32)
        with torch.autocast("cpu", plan.precision, enabled=plan.precision != torch.float32):
            loss = criterion(model(batch), labels[chosen])
        model.zero_grad()
        loss.backward()
        for each in (*both, *schedules):
            each.step()
    return model, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--widths", type=int, nargs=3, default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--peak", type=float, default=0.24, help="Muon's largest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], choices=CHANGES)
    parser.add_argument("--validate", type=int, default=0, help="hold out so many training images, to choose settings")
    parser.add_argument("--images", type=int, help="train on so many only")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(choose_threads()[0])
    plan = plan_for(choose_device("cpu")[0])
    train_set, test_set = data.load_cifar10()
    name = train_set.name
    if options.validate:
        train_set, test_set = data.split(train_set, len(train_set) - options.validate, options.validate, seed=0)
    train_set = train_set.subset(slice(0, options.images))
    train_images, test_images = (part.images.float() / 255 for part in (train_set, test_set))
    mean, std = (each(train_images, dim=(0, 2, 3), keepdim=True) for each in (torch.mean, torch.std))
    train_images, test_images = ((part - mean) / std for part in (train_images, test_images))
    model, seconds = train(options, train_images, train_set.labels, plan)
    plain = accuracy(model, test_images, test_set.labels, views=False)
    views = "views" not in options.without
    final = accuracy(model, test_images, test_set.labels, views=True) if views else plain
    result = {"data": name, "accuracy": final, "one_view": plain, "training_seconds": seconds, **vars(options)}
    result |= {"threads": torch.get_num_threads(), "precision": str(plan.precision), "torch": torch.__version__}
    result |= {"processor": processor_name(), "process_seconds": time.perf_counter() - START}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
