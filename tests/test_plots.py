import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from sklearn.metrics import confusion_matrix

from helpers import plots
from helpers.training import History, Score

matplotlib.use("agg")


def test_confusion_matrix_equals_scikit_learns():
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 4), torch.randint(0, 4, (200,))
    assert (plots.confusion_matrix(logits, labels, 4).numpy() == confusion_matrix(labels, logits.argmax(1))).all()


def test_mistakes_are_the_most_confident_wrong_ones():
    logits = torch.tensor([[9.0, 0.0], [5.0, 0.0], [0.0, 7.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, 0, 1])  # images 1, 2 and 3 are wrong
    images = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    figure = plots.show_mistakes(images, logits, labels, ["cat", "dog"], "mistakes", count=2)
    shown = [axis for axis in figure.axes if axis.images]
    assert [int(axis.images[0].get_array().item()) for axis in shown] == [2, 1]
    assert shown[0].get_title().startswith("cat\nread as\ndog")
    with pytest.raises(ValueError, match="no mistake"):
        plots.show_mistakes(images[:1], logits[:1], labels[:1], ["cat", "dog"], "mistakes")
    plt.close("all")


def three_epochs():
    history = History()
    for epoch in range(3):
        history.append(Score(1 / (epoch + 1), 0.1), Score(2.0, 0.2 * epoch), seconds=1.0, images_per_second=1.0)
    return history


def test_an_arm_has_the_same_colour_alone_and_beside_others():
    alone = plots.show_curves({"improved": three_epochs()}, "sample").axes[0].lines[0].get_color()
    both = plots.show_curves({"lectured": three_epochs(), "improved": three_epochs()}, "sample").axes[0].lines
    assert [line.get_color() == alone for line in both] == [False, False, True, True]  # test and train of each
    plt.close("all")


def test_curves_show_the_history():
    losses, accuracies = plots.show_curves({"lectured": three_epochs()}, "sample").axes
    assert losses.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 2.0], [3, 2.0]]
    assert accuracies.lines[0].get_ydata().tolist() == pytest.approx([0, 0.2, 0.4])
    plt.close("all")
