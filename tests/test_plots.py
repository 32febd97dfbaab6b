import matplotlib.pyplot as plt
import pytest
import torch
from sklearn.metrics import confusion_matrix

from helpers import plots
from helpers.pages.alternative import describe
from helpers.training import History, Score

plt.switch_backend("agg")


def test_confusion_matrix_equals_scikit_learns():
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 4), torch.randint(0, 4, (200,))
    assert (plots.confusion_matrix(logits, labels, 4).numpy() == confusion_matrix(labels, logits.argmax(1))).all()


def test_confusion_shows_counts_and_colours_the_mistakes():
    axis = plots.show_confusion(torch.tensor([[90, 0], [7, 3]]), ["cat", "dog"], "counts").axes[0]
    shown = {text.get_position(): text.get_text() for text in axis.texts}
    assert shown == {(0, 0): "90", (1, 0): "", (0, 1): "7", (1, 1): "3"}  # by column and row
    assert axis.images[0].get_array().tolist() == [[0, 0], [7, 0]] and axis.images[0].get_clim() == (0, 7)


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


def test_curves_show_the_history_in_the_arms_colour():
    history = History()
    for epoch in range(3):
        history.append(Score(1 / (epoch + 1), 0.1), Score(2.0, 0.2 * epoch), seconds=1.0, images_per_second=1.0)
    losses, accuracies = plots.show_curves({"improved": history}, "sample").axes
    assert losses.lines[0].get_xydata().tolist() == [[1, 2.0], [2, 2.0], [3, 2.0]]  # test; then train
    assert losses.lines[1].get_ydata().tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert accuracies.lines[0].get_ydata().tolist() == pytest.approx([0, 0.2, 0.4])
    assert losses.get_yscale() == "log" and accuracies.get_yscale() == "linear"
    alone = losses.lines[0].get_color()
    both = plots.show_curves({"lectured": history, "improved": history}, "sample").axes[0].lines
    assert [line.get_color() == alone for line in both] == [False, False, True, True]


def test_a_figure_is_described_by_its_own_words():
    figure = plots.show_confusion(torch.tensor([[9, 1], [0, 8]]), ["cat", "dog"], "counts")
    assert describe(figure).startswith("2 panels. counts, true against predicted; mistakes (images)")
    history = History()
    history.append(Score(1.0, 0.1), Score(2.0, 0.2), seconds=1.0, images_per_second=1.0)
    said = describe(plots.show_curves({"lectured": history}, "LeNet,\nsample"))
    assert said == (
        "LeNet, sample. 2 panels. loss (nats per image) against epoch, lines: lectured, test, lectured, train; "
        "accuracy against epoch."
    )
