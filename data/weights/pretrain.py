"""Train the project's own weights: ResNet-18 on Tiny ImageNet, 60 epochs at 64 pixels. `make pretrain` runs this.

Hours on a CPU (an epoch is 100,000 images), minutes on a GPU. Stopped, it goes on after the last epoch that was saved.
It writes resnet18-tiny-imagenet-64px.safetensors (all tensors but the head, float16) into build/weights/, and prints
what the card in README.md says of it.
"""

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision import models

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "notebooks"))

from helpers.data import Batches, RandomFlip, load_image_folder  # noqa: E402
from helpers.datasets.weights import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from helpers.device import choose_device, keep_freed_memory, plan_for  # noqa: E402
from helpers.environment import seed_everything  # noqa: E402
from helpers.keeping.checkpoint import Checkpoint  # noqa: E402
from helpers.training import History, fit, predict  # noqa: E402

NAME = "resnet18-tiny-imagenet-64px"
EPOCHS, BATCH, PEAK, DECAY, SMOOTHING = 60, 256, 0.4, 2e-4, 0.05


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Bytes (B, 3, H, W) as floats with ImageNet's mean 0 and standard deviation 1 in each colour."""
    mean, std = (torch.tensor(each, device=images.device).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (images / 255 - mean) / std


def random_resized_crop(images: torch.Tensor, smallest: float = 0.25) -> torch.Tensor:
    """Floats (B, 3, H, H): of every image another window, scaled to the whole, edges mirrored.

    A window has between `smallest` and all of the area, and sides of 3:4 to 4:3.
    """
    count, device = len(images), images.device
    area = torch.empty(count, device=device).uniform_(smallest, 1)
    ratio = torch.exp(torch.empty(count, device=device).uniform_(-1, 1) * torch.log(torch.tensor(4 / 3)).item())
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)  # shares of the image's sides
    right, down = ((torch.rand(count, device=device) * 2 - 1) * (1 - side) for side in (wide, high))
    zero = torch.zeros_like(wide)
    rows = [torch.stack([wide, zero, right], dim=1), torch.stack([zero, high, down], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def sgd(model: torch.nn.Module, steps: int, fused: bool) -> tuple:
    """SGD with decay on weights alone, and the one-cycle schedule of its learning rate."""
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=PEAK, momentum=0.9, nesterov=True, fused=fused)
    cycle = {"pct_start": 0.1, "div_factor": 20, "final_div_factor": 1000, "cycle_momentum": False}
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps, **cycle)


def top5(model: torch.nn.Module, batches: Batches) -> float:
    """The share of images whose class is among the network's five best answers."""
    logits, labels = predict(model, batches)
    return (logits.topk(5).indices == labels[:, None]).any(dim=1).float().mean().item()


def save(model: torch.nn.Module, path: Path) -> None:
    """All tensors but those of the head, in 16 bits. The batch counts stay integers."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in halves.items()}, path)


def main(folder: Path, stop_after: int) -> None:
    keep_freed_memory()
    device, name = choose_device()
    plan = plan_for(device)
    train, test = (part.to(device, plan.memory_format) for part in load_image_folder(folder))
    print(f"{name} · {plan} · {len(train):,} images of {len(train.classes)} classes, {train.source}")
    flip = RandomFlip()
    train_batches = Batches(train, BATCH, lambda images: random_resized_crop(normalise(flip(images))), shuffle=True)
    test_batches = Batches(test, 500, normalise)
    seed_everything(0)
    model = models.resnet18(num_classes=len(train.classes), zero_init_residual=True)
    model = model.to(device, memory_format=plan.memory_format)
    optimizer, schedule = sgd(model, EPOCHS * len(train_batches), plan.fused)
    history, criterion = History(), torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    checkpoint = Checkpoint(ROOT / "build/checkpoints/pretrain", NAME, {"images": train.source})

    def report(history: History) -> None:
        accuracy = f"top-1 {history.test_accuracy[-1]:.2%}, top-5 {top5(model, test_batches):.2%}"
        print(f"epoch {len(history)}: {accuracy}, {sum(history.seconds):,.0f} s", flush=True)

    fit(model, train_batches, test_batches, criterion, optimizer, min(stop_after, EPOCHS), history, schedule,
        plan.precision, report, verbose=False, checkpoint=checkpoint)  # fmt: skip
    if len(history) < EPOCHS:
        print(f"stopped as asked, after {len(history)} of {EPOCHS} epochs: run it again to go on")
        return
    save(model, ROOT / "build/weights" / f"{NAME}.safetensors")
    checkpoint.remove()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=ROOT / "data/tiny-imagenet", help="folder with train/ and test/")
    parser.add_argument("--stop-after", type=int, default=EPOCHS, help="stop after this epoch; run again to go on")
    arguments = parser.parse_args()
    main(arguments.images, arguments.stop_after)
