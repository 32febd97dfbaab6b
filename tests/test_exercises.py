"""The exercises: a check says when nothing was attempted, accepts the solution, and refuses what is nearly right."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from common import FOLDER, NOTEBOOKS
from test_outoforder import needed

from helpers.keeping import outoforder

# For each exercise: a wrong answer, and almost right ones, each with a word of what the check has to say about it.
WRONG = {
    "29_lenet_mnist": {
        1: {
            "lenet_parameters = lambda size: 61_706": "fewer numbers",
            "lenet_parameters = lambda size: 61_706 - 48_000 + 120 * size * size": "400 inputs",
            "lenet_parameters = lambda size: 61_706 - 48_000 + 120 * 16 * (size // 4 - 3) ** 2 - (size < 32)": "4·4",
        },
        2: {
            "mean_loss = lambda means, sizes: sum(means) / len(means)": "as much as 300",
            "mean_loss = lambda means, sizes: sum(m * s for m, s in zip(means, sizes)) / len(means)": "0.29",
        },
        3: {
            "convolve = lambda i, kernel: F.conv2d(i[None, None], kernel.flip(0, 1)[None, None])[0, 0]": "turned",
            "convolve = lambda x, k: F.conv2d(x[None, None], k[None, None], padding=1)[0, 0]": "5×7",
            "convolve = lambda x, k: 9 * F.conv2d(x[None, None], k[None, None])[0, 0]": "numbers",
        },
        4: {
            "shuffle_pixels = lambda images, order: images.flatten(1)[:, order]": "shape",
            "shuffle_pixels = lambda i, order: i.flatten(1)[:, order.argsort()].reshape(i.shape)": "order",
            "shuffle_pixels = lambda images, order: images.flip(0)": "lost",
        },
    },
    "33_alexnet": {
        1: {
            "small_alexnet = lambda: models.alexnet(num_classes=10)": "too much",
            "small_alexnet = lambda: models.alexnet()": "shape",
            "def small_alexnet():\n"
            "    model = models.alexnet()\n"
            "    model.classifier = nn.Linear(9216, 10)\n"
            "    return model": "average each",
        },
        2: {
            "never_trained = lambda model, optimizer: []": "tensors",
            "def never_trained(model, optimizer):\n"
            "    held = {id(each) for each in optimizer.param_groups[0]['params']}\n"
            "    return [name for name, each in model.named_parameters() if id(each) not in held]": "every group",
        },
        3: {
            "size_after = lambda layers, kaiming: (1 / 6) ** layers": "root",
            "size_after = lambda layers, kaiming: (1 / 3) ** (layers / 2)": "ReLU",
            "size_after = lambda layers, kaiming: 0.05": "biases",
            "size_after = lambda layers, kaiming: 0.41**layers": "Kaiming",
        },
        4: {"batch_size = 64": "0.0", "batch_size = 128": "ln 10", "batch_size = 50_000 / 196": "nearly"},
    },
    "39_resnet18": {
        1: {
            "moved = lambda model, step: ['0.weight']": "not called",
            "def moved(model, step):\n"
            "    before = dict(model.named_parameters())\n"
            "    step()\n"
            "    return [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]": "copy",
            "def moved(model, step):\n    step()\n    return [n for n, _ in model.named_parameters()]": "moved, not",
        },
        2: {
            "resnet_parameters = lambda blocks, classes: 11_000_000": "off by",
            "def resnet_parameters(blocks, classes):\n"
            "    count = 9536 + 513 * classes\n"
            "    for repeats, width in zip(blocks, [64, 128, 256, 512]):\n"
            "        count += repeats * 2 * (9 * width * width + 2 * width) - (width > 64) * 9 * width * width // 2\n"
            "    return count": "shortcuts",
            "resnet_parameters = lambda blocks, classes: 11_689_512": "ResNet-18 only",
        },
        3: {
            "without_block = lambda model, stage, i: copy.deepcopy(model)": "still at work",
            "def without_block(model, stage, i):\n"
            "    getattr(model, stage)[i] = nn.Identity()\n"
            "    return model": "copy",
            "def without_block(model, stage, i):\n"
            "    model = copy.deepcopy(model)\n"
            "    getattr(model, stage)[i] = model.layer4[1] = nn.Identity()\n"
            "    return model": "should stay",
        },
        4: {
            "average = lambda networks: copy.deepcopy(networks[-1])": "means",
            "def average(networks):\n"
            "    for other in networks[1:]:\n"
            "        networks[0].weight.data += other.weight.data\n"
            "    return networks[0]": "copy",
            "def average(networks):\n"
            "    middle = copy.deepcopy(networks[0])\n"
            "    middle.weight.data = sum(one.weight.data for one in networks) / len(networks)\n"
            "    return middle": "3 and -1",
        },
    },
    "40_densenet121": {
        1: {
            "dense_parameters = lambda channels, layers, growth=32: 1": "off by",
            "dense_parameters = lambda channels, layers, growth=32: layers * 45_440": "more maps",
            "dense_parameters = lambda channels, layers, growth=32: layers * (128 * channels + 9 * 128 * 32)": "norm",
        },
        2: {
            "images_that_fit = lambda memory, parameters, image, kept: memory // image": "goes from",
            "images_that_fit = lambda memory, parameters, image, kept: (memory - 160) // image": "Adam only",
            "images_that_fit = lambda memory, parameters, image, kept: (memory - 160) / image": "round",
            "images_that_fit = lambda memory, parameters, image, kept: (memory - 120) // image": "gradients",
        },
        3: {
            "half_the_side = dict(parameters=0.25, operations=0.25, activations=0.25)": "kernel",
            "half_the_side = dict(parameters=1, operations=0.25, activations=0.5)": "not yet: activations",
            "half_the_side = dict(parameters=1, operations=0.25, activations=...)": "activations missing",
        },
    },
    "45_transfer_learning": {
        1: {
            "fitting = lambda state, model: len(state)": "module.",
            "fitting = lambda state, model: len(set(state) & set(model.state_dict()))": "shapes",
        },
        2: {
            "cut_after = lambda model, stage: nn.Flatten()": "shape",
            "def cut_after(model, stage):\n"
            "    parts = [model.conv1, model.bn1, model.relu]\n"
            "    parts += [getattr(model, f'layer{i}') for i in range(1, stage + 1)]\n"
            "    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())": "a part missing",
        },
        3: {
            "train_in_half = 11_181_642": "off by",
            "train_in_half = 8_393_728": "the head",
            "train_in_half = 8_398_858 - 256 * 512": "1×1",
        },
        4: {
            "adapt = lambda model, batches: copy.deepcopy(model)": "0 of 3",
            "def adapt(model, batches):\n"
            "    model.train()\n"
            "    for images, _ in batches:\n"
            "        model(images)\n"
            "    return model": "copy",
            "def adapt(model, batches):\n"
            "    model = copy.deepcopy(model).train()\n"
            "    for images, _ in batches:\n"
            "        model(images).mean().backward()\n"
            "        torch.optim.SGD(model.parameters(), lr=1.0).step()\n"
            "    return model": "weights",
        },
    },
}
CONTEXT = ("def block_parameters",)  # beginnings of cells that a solution uses


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def exercises(lecture: str) -> dict[int, list]:
    """Number: text, stub, check and first solution cell of each exercise."""
    found = {}
    cells = nbformat.read(FOLDER / f"{lecture}.ipynb", as_version=4).cells
    for i, cell in enumerate(cells):
        if "exercise" in tags(cell):
            number = int(re.search(r"^### Exercise (\d+)\. ", cells[i - 1].source, re.M)[1])
            found[number] = cells[i - 1 : i + 3]
    return found


def names(lecture: str) -> dict:
    """What the imports of a lecture, and the cells of CONTEXT, leave behind."""
    space, cells = {}, nbformat.read(FOLDER / f"{lecture}.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    for source in [code[1], *(source for source in code if source.startswith(CONTEXT))]:
        exec(source, space)
    return space


@pytest.mark.parametrize(("lecture", "number"), [(lecture, number) for lecture in WRONG for number in WRONG[lecture]])
def test_a_check_tells_stub_solution_and_mistakes_apart(lecture, number, capsys):
    _, stub, check, solution = exercises(lecture)[number]
    assert "exercise-check" in tags(check) and "solution" in tags(solution)
    first = ast.parse(stub.source).body[0]
    name = first.name if isinstance(first, ast.FunctionDef) else first.targets[0].id
    space = names(lecture)

    def said(source: str) -> str:
        exec(source, space)
        return space[f"check_{number}"](space[name])

    exec(stub.source, space)
    stub_itself = space[name]
    exec(check.source, space)
    assert capsys.readouterr().out == check.outputs[0]["text"] == f"Exercise {number}: not attempted yet\n"
    assert len(WRONG[lecture][number]) >= 2
    for wrong, word in WRONG[lecture][number].items():
        answer = said(wrong)
        assert word in answer and not answer.startswith(("Right", "not attempted")), (wrong, answer)
    for failing in (f"{name} = lambda *_: 1 / 0", f"{name} = 'a word'", f"{name} = lambda: 0"):
        assert not said(failing).startswith(("Right", "not attempted")), failing
    assert said(solution.source.split('print("Exercise')[0]).startswith("Right: ")  # behind it may stand a training
    if callable(stub_itself):
        assert inspect.signature(stub_itself) == inspect.signature(space[name])
        assert inspect.getdoc(stub_itself) == inspect.getdoc(space[name])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_exercises_have_difficulty_minutes_and_hints(path):
    found = exercises(path.stem)
    assert found.keys() == WRONG.get(path.stem, {}).keys()
    for text, _stub, check, _solution in found.values():
        about = r"^### Exercise \d+\. .+\n\nDifficulty [1-5] of 5 · \d+ minutes · .{15,}\n\n"
        assert re.search(about, text.source, re.M), text.id
        assert text.source.count("<details><summary>Hint") == text.source.count("</details>") >= 1
        lines = [line for line in check.source.split("\n\n\nprint(")[0].splitlines() if line]
        assert len(lines) <= 20, check.id


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """The lectures as `make student` makes them, with the settings of the Makefile."""
    folder, publishing = tmp_path_factory.mktemp("student"), FOLDER.parent / "publishing"
    makefile = (FOLDER.parent / "Makefile").read_text(encoding="utf-8")
    settings = " ".join(re.findall(r"^(?:student: )?WITHOUT \+?= (.*)$", makefile, re.M)).split()
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "notebook",
        *settings,
        "--output-dir",
        str(folder),
        *NOTEBOOKS,
    ]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(publishing)})
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_student_edition_gives_no_answer_and_needs_no_cell_that_was_removed(path, student):
    everything, left = nbformat.read(path, as_version=4).cells, nbformat.read(student / path.name, as_version=4).cells
    assert [cell.id for cell in left] == [cell.id for cell in everything if not {"solution", "assert"} & {*tags(cell)}]
    assert not any(cell.get("outputs") or cell.cell_type == "markdown" for cell in left if "answer" in tags(cell))
    assert not any("speaker_notes" in cell.metadata for cell in left)
    all_names, made = outoforder.sections(path), outoforder.sections(student / path.name)
    for cell in left:
        if cell.cell_type == "code":
            missing = needed(compile(cell.source, cell.id, "exec")) & all_names.keys() - made.keys()
            assert not missing, (cell.id, missing)
