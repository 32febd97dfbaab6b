"""CIFAR-10 as fast as two CPU cores can: one straight script, every change over plain training behind a switch.

The ideas are those of Keller Jordan's airbench (2024): a frozen whitening convolution in front, few channels, identity
(Dirac) initialization, flips that alternate, a triangular learning rate, weights averaged on the way (Lookahead), and
answers averaged over flips and shifts at the test. Prints one line of JSON. docs/records.md keeps what was measured.
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
from helpers.device import choose_device, choose_threads, keep_freed_memory, plan_for  # noqa: E402

CHANGES = ["whitening", "dirac", "alternating", "lookahead", "smoothing", "views"]
MOMENTUM = 0.85


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
        if "whitening" in changes:
            whiten(self.first, images)
        if "dirac" in changes:
            for name, weight in self.groups.named_parameters():
                if "conv" in name:
                    nn.init.dirac_(weight[: weight.shape[1]])  # the first outputs hand their inputs on

    def forward(self, x):  # (B, 3, 32, 32)
        x = self.groups(F.gelu(self.first(x)))  # (B, width, 3, 3)
        return self.head(x.amax(dim=(2, 3))) / 9


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: torch.Tensor) -> None:
    """Set the 2×2 kernels to the principal directions of patches, each divided by its spread, and their negatives."""
    patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 12)  # (patches, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (vectors / torch.sqrt(values + 5e-4)).T.reshape(12, 3, 2, 2)
    layer.weight.copy_(torch.cat([kernels, -kernels]))
    layer.bias.zero_()
    layer.weight.requires_grad = False


def shifted(images: torch.Tensor, pixels: int = 2) -> torch.Tensor:
    """Each image moved by up to 2 pixels, edges mirrored."""
    size = images.shape[-1]
    padded = F.pad(images, [pixels] * 4, mode="reflect")
    shifts = torch.randint(0, 2 * pixels + 1, (2, len(images), 1))
    rows, columns = shifts + torch.arange(size)
    each = torch.arange(len(images))[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def epoch_images(images: torch.Tensor, epoch: int, first_flips: torch.Tensor, alternating: bool) -> torch.Tensor:
    """What one epoch sees: every image moved, and half of them mirrored, in turn or at random."""
    flips = first_flips if epoch % 2 == 0 else ~first_flips
    if not alternating:
        flips = torch.rand(len(images)) < 0.5
    moved = torch.cat([shifted(part) for part in images.split(5000)])
    return torch.where(flips[:, None, None, None], moved.flip(-1), moved)


def triangle(progress: float) -> float:
    """The learning rate as a share of its peak: up from 0.2 in a quarter of the run, then down to 0.05."""
    return 0.2 + 0.8 * progress / 0.23 if progress < 0.23 else 1 - 0.95 * (progress - 0.23) / 0.77


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, views: bool) -> float:
    """Over all images; with `views` the answers to six views of an image are averaged: mirrored, and moved by 1."""
    model.eval()
    correct = 0
    for part, truth in zip(images.split(1000), labels.split(1000), strict=True):
        seen = [part]
        if views:
            padded = F.pad(part, [1] * 4, mode="reflect")
            seen += [padded[:, :, :32, :32], padded[:, :, 2:, 2:]]
            seen += [view.flip(-1) for view in seen]
        logits = sum(model(view.contiguous(memory_format=torch.channels_last)) for view in seen)
        correct += (logits.argmax(dim=1) == truth).sum().item()
    return correct / len(images)


def train(options: argparse.Namespace, sets: tuple, plan) -> tuple[nn.Module, float]:
    """The trained network, and the seconds of training (whitening and preparing the epochs included)."""
    changes = set(CHANGES) - set(options.without)
    train_images, train_labels, _, _ = sets
    start = time.perf_counter()
    torch.manual_seed(options.seed)
    model = Network(options.widths, train_images[:5000], changes).to(memory_format=torch.channels_last)
    shifts = [p for p in model.parameters() if p.requires_grad and p.ndim == 1]
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    groups = [{"params": shifts, "lr": 64 * options.peak, "weight_decay": 0}, {"params": weights}]
    optimizer = torch.optim.SGD(groups, options.peak, MOMENTUM, weight_decay=2e-6, nesterov=True, fused=True)
    per_epoch = len(train_images) // options.batch
    total, step = options.epochs * per_epoch, 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: triangle(step / total))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.2 if "smoothing" in changes else 0)
    slow = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}
    first_flips = torch.rand(len(train_images)) < 0.5
    for epoch in range(options.epochs):
        model.train()
        images = epoch_images(train_images, epoch, first_flips, "alternating" in changes)
        order = torch.randperm(len(images))
        for i in range(per_epoch):
            chosen = order[i * options.batch : (i + 1) * options.batch]
            batch = images[chosen].contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", plan.precision, enabled=plan.precision != torch.float32):
                loss = criterion(model(batch), train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if "lookahead" in changes and step % 5 == 0:
                look_ahead(model, slow, keep=0.95**5 * (step / total) ** 3)
    if "lookahead" in changes:
        look_ahead(model, slow, keep=1.0)
    return model, time.perf_counter() - start


@torch.no_grad()
def look_ahead(model: nn.Module, slow: dict[str, torch.Tensor], keep: float) -> None:
    """Move the slow weights towards the fast ones, and set the fast ones to them."""
    for name, value in model.state_dict().items():
        if name in slow:
            slow[name].lerp_(value, 1 - keep)
            value.copy_(slow[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--widths", type=int, nargs=3, default=[64, 128, 256])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--peak", type=float, default=0.75, help="largest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], choices=CHANGES)
    parser.add_argument("--validate", action="store_true", help="hold out 5,000 training images, for choosing settings")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(choose_threads()[0])
    plan = plan_for(choose_device("cpu")[0])
    train_set, test_set = data.load_cifar10()
    name = train_set.name
    if options.validate:
        train_set, test_set = data.split(train_set, 45_000, 5000, seed=options.seed)
    train_images, test_images = (part.images.float() / 255 for part in (train_set, test_set))
    mean, std = (each(train_images, dim=(0, 2, 3), keepdim=True) for each in (torch.mean, torch.std))
    sets = (train_images - mean) / std, train_set.labels, (test_images - mean) / std, test_set.labels
    model, seconds = train(options, sets, plan)
    plain = accuracy(model, *sets[2:], views=False)
    final = accuracy(model, *sets[2:], views=True) if "views" not in options.without else plain
    result = {"data": name, "accuracy": final, "one_view": plain, "training_seconds": seconds, **vars(options)}
    result |= {"process_seconds": time.perf_counter() - START, "threads": torch.get_num_threads()}
    print(json.dumps({**result, "precision": str(plan.precision), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
