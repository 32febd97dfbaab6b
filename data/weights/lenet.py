"""Train the LeNet that comes with the project: ten epochs on MNIST, as the improved run of lecture 29, in a minute.

Writes lenet-mnist.safetensors (float32, 61,706 numbers) into build/weights/. `make pretrain` runs this, too.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import v2

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "notebooks"))

from helpers.data import Batches, RandomAffine, load_mnist  # noqa: E402
from helpers.device import choose_device, keep_freed_memory, plan_for  # noqa: E402
from helpers.environment import seed_everything  # noqa: E402
from helpers.training import History, fit  # noqa: E402

EPOCHS, BATCH, PEAK = 10, 50, 3e-3


class LeNet(nn.Module):
    """Lecture 29's network."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):  # (B, 1, 32, 32)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (B, 6, 14, 14)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (B, 16, 5, 5)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))  # (B, 84)
        return self.fc3(x)


def main() -> None:
    keep_freed_memory()
    device, name = choose_device()
    plan = plan_for(device, torch.float32)
    train, test = (part.to(device, plan.memory_format) for part in load_mnist())
    plain = [v2.Pad(2), v2.ToDtype(torch.float32, scale=True)]
    normalise = v2.Normalize([0.1307], [0.3081])  # mean and standard deviation of MNIST's training pixels
    augmented = v2.Compose([*plain, RandomAffine(degrees=10, scale=0.1, shift=2), normalise])
    train_batches = Batches(train, BATCH, augmented, shuffle=True)
    test_batches = Batches(test, 500, v2.Compose([*plain, normalise]))
    seed_everything(0)
    model = LeNet().to(device, memory_format=plan.memory_format)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.01, fused=plan.fused)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=EPOCHS * len(train_batches))
    history = History()
    fit(model, train_batches, test_batches, nn.CrossEntropyLoss(), optimizer, EPOCHS, history, schedule)
    print(f"{train.name}, {name}: {history.test_accuracy[-1]:.2%} after the last epoch")
    path = ROOT / "build" / "weights" / "lenet-mnist.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.cpu().contiguous() for key, tensor in model.state_dict().items()}, path)


if __name__ == "__main__":
    main()
