"""What a training run measured, epoch by epoch."""

import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

from helpers.keeping.messages import clock


class Score(NamedTuple):
    """How a model did on a set of images."""

    loss: float  # mean over the images
    accuracy: float  # fraction in [0, 1]


@dataclass
class History:
    """What happened in each finished epoch of one run. Every list has one entry an epoch."""

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # training and test of the epoch together
    images_per_second: list[float] = field(default_factory=list)  # in training
    settings: dict = field(default_factory=dict, repr=False)  # of a run with checkpoints, as it began

    def append(self, train: Score, test: Score, seconds: float, images_per_second: float) -> None:
        for values, value in zip(self.lists().values(), (*train, *test, seconds, images_per_second), strict=True):
            values.append(value)

    def lists(self) -> dict[str, list[float]]:
        """The lists by name; the very lists, not copies."""
        return {name: value for name, value in vars(self).items() if name != "settings"}

    def __len__(self) -> int:
        return len(self.seconds)

    def table(self) -> str:
        lines = ["epoch   train loss  accuracy    test loss  accuracy      time"]
        for epoch, values in enumerate(zip(*self.lists().values(), strict=True), 1):
            lines.append("{:5}   {:10.4f}  {:8.2%}   {:10.4f}  {:8.2%}   {:5.1f} s".format(epoch, *values))
        return "\n".join(lines)

    def summary(self) -> str:
        speed = f"{statistics.median(self.images_per_second):,.0f} training images/s"
        return f"{len(self)} epochs in {clock(sum(self.seconds))} · {speed}"
