"""What a training run measured, epoch by epoch."""

import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

from helpers.environment import clock


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
        """Add one finished epoch."""
        self.train_loss.append(train.loss)
        self.train_accuracy.append(train.accuracy)
        self.test_loss.append(test.loss)
        self.test_accuracy.append(test.accuracy)
        self.seconds.append(seconds)
        self.images_per_second.append(images_per_second)

    def lists(self) -> dict[str, list[float]]:
        """The lists by name; the very lists, not copies."""
        return {name: value for name, value in vars(self).items() if name != "settings"}

    def __len__(self) -> int:
        return len(self.seconds)

    def table(self) -> str:
        """One line an epoch."""
        lines = ["epoch   train loss  accuracy    test loss  accuracy      time"]
        for i in range(len(self)):
            lines.append(
                f"{i + 1:5}   {self.train_loss[i]:10.4f}  {self.train_accuracy[i]:8.2%}"
                f"   {self.test_loss[i]:10.4f}  {self.test_accuracy[i]:8.2%}   {self.seconds[i]:5.1f} s"
            )
        return "\n".join(lines)

    def summary(self) -> str:
        """Epochs, time and speed of the run."""
        speed = statistics.median(self.images_per_second)
        return f"{len(self)} epochs in {clock(sum(self.seconds))} · {speed:,.0f} training images/s"
