"""Code that stands in cells: the training loop that lecture 29 writes out, and the cells that hold images out.

`helpers.training` must be the written loop, but for the lines that the lecture names.
"""

import ast
import difflib
import inspect
import re
from types import SimpleNamespace
from typing import NamedTuple

import nbformat
import pytest
import torch
from common import NOTEBOOKS
from torch import nn

from helpers import data, training
from helpers.data import Batches

LECTURES = {path.stem[:2]: nbformat.read(path, 4) for path in NOTEBOOKS}
WRITTEN = ("Score", "predict", "evaluate", "training_step", "train_one_epoch")


def definitions(source):
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def lines(function):
    """The code of a function as Python itself would write it, without docstring and annotations."""
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
    function.returns = None
    if ast.get_docstring(function):
        del function.body[0]
    code = re.sub(r"for \((.*?)\) in", r"for \1 in", ast.unparse(function))  # Python 3.10 writes brackets
    return code.splitlines()


@pytest.fixture(scope="module")
def lecture():
    """The classes and functions by which the lecture writes its loop out, as syntax trees."""
    cells = [cell.source for cell in LECTURES["29"].cells if cell.cell_type == "code" and "def " in cell.source]
    found = {name: node for source in cells for name, node in definitions(source).items()}
    return {name: found[name] for name in WRITTEN}


def test_helpers_are_the_written_loop_but_for_a_few_lines_that_the_lecture_names(lecture):
    helpers, text = definitions(inspect.getsource(training)), "\n".join(cell.source for cell in LECTURES["29"].cells)
    more = []
    for name in ("train_one_epoch", "evaluate"):
        compared = difflib.ndiff(lines(lecture[name]), lines(helpers[name]))
        more += [line[2:].strip() for line in compared if line.startswith("+ ")]
    assert len(more) <= 6, more
    named = [line.split("  #")[0].strip() for line in text.splitlines()]
    assert [line for line in more if line not in named] == []


def test_written_loop_and_helpers_give_the_same_losses(lecture):
    written = {"torch": torch, "NamedTuple": NamedTuple}
    exec("\n".join(ast.unparse(node) for node in lecture.values()), written)
    learn, test = (part.subset(slice(0, 230)) for part in data.digits())  # the last batch is short
    scores = []
    for train_one_epoch, evaluate in [
        (written["train_one_epoch"], written["evaluate"]),
        (training.train_one_epoch, training.evaluate),
    ]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=3)
        batches, criterion = Batches(learn, 100, lambda images: images / 255, shuffle=True), nn.CrossEntropyLoss()
        trained = train_one_epoch(model, batches, criterion, optimizer, schedule)
        scores.append((*trained, *evaluate(model, Batches(test, 100, lambda images: images / 255), criterion)))
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


@pytest.mark.parametrize("profile", ["laptop", "lecture"])
@pytest.mark.parametrize("lecture", ["33", "39", "40", "45"])
def test_of_few_own_images_none_is_both_learned_from_and_judged_on(lecture, profile):
    """The cells with the settings and the split, on 250 images of which each has a brightness of its own."""
    images, labels = torch.arange(250).byte().view(-1, 1, 1, 1), torch.arange(250) % 10
    own = data.ImageSet(images, labels, [*"abcdefghij"], "own images", "a test")
    run = SimpleNamespace(
        profile=profile, seed=0, device=torch.device("cpu"), plan=SimpleNamespace(memory_format=torch.contiguous_format)
    )
    names = {"torch": torch, "nn": nn, "data": data, "run": run, "start_run": lambda *_, **__: run}
    names |= {"everything": own, "train_set": own, "test_set": own}
    for what in ("= start_run(", "= data.split("):
        exec(next(cell.source for cell in LECTURES[lecture].cells if what in cell.source), names)
    learned, judged = (names[name].images.unique().tolist() for name in ("trial_set", "validation_set"))
    assert not set(learned) & set(judged) and len(judged) >= 20 and len(learned) >= 100
