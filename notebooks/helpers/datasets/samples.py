"""Sample digits that travel with scikit-learn, for runs without dataset and network."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from helpers.datasets.images import ImageSet

NAME = "sample digits (not MNIST)"
SOURCE = "scikit-learn's load_digits, 8×8 pixels enlarged to 28×28"
TRAIN = 1297  # of 1,797 images; the file keeps a writer's digits together, so a cut keeps most writers apart


def digits() -> tuple[ImageSet, ImageSet]:
    """Real handwritten digits in MNIST's format: 1,297 training and 500 test images, (N, 1, 28, 28).

    From UCI's "Optical Recognition of Handwritten Digits", 8×8 pixels of 17 grey levels. As in MNIST the digit fills a
    20×20 box with a border of 4 pixels.
    """
    source = load_digits()
    small = torch.tensor(source.images, dtype=torch.float32).unsqueeze(1) * (255 / 16)  # (N, 1, 8, 8)
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4)).round().clamp(0, 255).to(torch.uint8)  # (N, 1, 28, 28)
    every = ImageSet(images, torch.tensor(source.target), list("0123456789"), NAME, SOURCE)
    return every.subset(slice(0, TRAIN)), every.subset(slice(TRAIN, None))
