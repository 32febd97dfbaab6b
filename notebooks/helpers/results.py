"""What the lectures measured, one JSON file a lecture: written at its end, read by cost cards and the scoreboard."""

import json
import statistics
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from helpers.complexity import Shape, count_parameters, layer_table, saved_activation_bytes
from helpers.keeping import environ, messages, store

COMMITTED = Path(__file__).parents[1] / "results"  # the runs whose outputs stand in the notebooks
IN_2018 = COMMITTED / "2018.json"  # test accuracy that each lecture of 2018 showed last, by lecture and arm
OWN = "LECTURE_RESULTS", "build/results"  # your own runs: what names their folder, and where it is by default


def arm_record(model: nn.Module, image_shape: Shape, batch_size: int, history, seeds=None) -> dict:
    """An arm: cost for an image (C, H, W), `training.History` of the first seed, each seed's last test accuracy."""
    record = {"parameters": count_parameters(model), "trained_parameters": count_parameters(model, trained_only=True)}
    record |= {"macs": sum(layer.macs for layer in layer_table(model, image_shape))}
    record |= {"activation_bytes": saved_activation_bytes(model, image_shape)}
    record |= {"image_size": image_shape[-1], "batch_size": batch_size, "epochs": len(history)}
    record |= {**history.lists(), "images_per_second": statistics.median(history.images_per_second)}
    return record if seeds is None else {**record, "seeds": seeds}


def save_results(run, train_set, test_set, image_size: int, arms: dict, pretrained="", experiments=None) -> Path:
    """Write `<lecture>.json` of an `environment.Run` on two `data.ImageSet`s into LECTURE_RESULTS. Returns the path.

    `image_size`: the side in pixels that the network sees; `pretrained`: what its weights had learned; `experiments`:
    what else was measured, {name: values}, each with its own settings. Raises OSError.
    """
    dataset = {"name": train_set.name, "source": train_set.source, "train": len(train_set), "test": len(test_set)}
    content = {"lecture": run.lecture, "profile": run.profile, "dataset": {**dataset, "image_size": image_size}}
    content |= {"device": f"{run.device.type}: {run.device_name}", "threads": run.threads, "torch": torch.__version__}
    content |= {"seed": run.seed, **({"pretrained": pretrained} if pretrained else {}), "arms": arms}
    content |= {"experiments": experiments} if experiments else {}
    path = environ.folder(*OWN) / f"{run.lecture}.json"
    try:
        with store.replacing(path) as partial:  # nobody ever reads half a file
            partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        advice = 'Set os.environ["LECTURE_RESULTS"] to a folder that can be written, and run this cell again'
        raise OSError(f"{path} cannot be written ({error.strerror}). Nothing is lost yet. {advice}.") from error
    return path


def load_results(lecture: str) -> dict:
    """The results of your own last run of a lecture; those of the committed run where there is none."""
    own = environ.folder(*OWN) / f"{lecture}.json"
    return read(own if own.is_file() else COMMITTED / own.name)


def committed_results(lecture: str) -> dict:
    return read(COMMITTED / f"{lecture}.json")


def read(path: Path) -> dict:
    """A results file. Raises FileNotFoundError where there is none, ValueError where it is damaged."""
    advice = f"Run the notebook {path.stem}.ipynb to its end"
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent}. {advice}.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). {advice}: it is then written anew.") from error


def spread(values: list[float]) -> str:
    """Accuracies of several seeds as text: mean ± standard deviation of the single runs, and their number."""
    deviation = f"± {100 * statistics.stdev(values):.2f} ({len(values)} seeds)" if len(values) > 1 else "(one seed)"
    return f"{statistics.mean(values):.2%} {deviation}"


def figures(content: dict, name: str) -> dict[str, str]:
    """What one arm of a results file cost and reached, as texts in the order of the cost card."""
    arm = content["arms"][name]
    macs, memory = arm["macs"], arm["activation_bytes"]
    return {
        "profile": content["profile"],
        "parameters": f"{arm['parameters']:,}",
        "of them trained": f"{arm['trained_parameters']:,}",
        "MACs an image": f"{macs / 1e6:,.{0 if macs >= 1e7 else 2}f} M",  # 0.42 M, 148 M
        "activation memory an image": f"{memory / 1e6:,.2f} MB" if memory >= 1e4 else f"{memory / 1e3:.0f} kB",
        "training images/s": f"{arm['images_per_second']:,.0f}",
        "time, all epochs": messages.clock(sum(arm["seconds"])),
        "test accuracy": spread(arm.get("seeds", arm["test_accuracy"][-1:])),
    }


def cost_card(lecture: str, names: list[str] | None = None) -> str:
    """What the arms of one lecture cost and reached, all or those named, side by side, from its results file."""
    content = load_results(lecture)
    columns = [{lecture: name, **figures(content, name)} for name in names or content["arms"]]
    return "\n".join(f"{title:32}" + "".join(f"{column[title]:>28}" for column in columns) for title in columns[0])


def about(content: dict) -> str:
    """One line on the run of a results file: lecture, profile, data, machine."""
    data, threads = content["dataset"], content["threads"]
    images = f"{data['name']}, {data['train']:,} at {data['image_size']} px"
    images += f"; pretrained: {content['pretrained']}" if "pretrained" in content else ""
    on_cpu = f", {threads} thread{'s' if threads > 1 else ''}" if content["device"].startswith("cpu") else ""
    machine = f"{content['device']}{on_cpu}, torch {content['torch'].split('+')[0]}"
    return f"{content['lecture']} · {content['profile']} profile · {images} · {machine}"


def scoreboard(load=load_results) -> str:
    """All lectures that `load` finds: a line for each arm, under a line on the run."""
    lines = [f"{'lecture, arm':22}{'parameters':>12} {'MACs':>10} {'time':>12}  {'test accuracy':26} in 2018"]
    for lecture, printed in read(IN_2018).items():
        with suppress(FileNotFoundError):
            content = load(lecture)
            lines.append(about(content))
            for name in content["arms"]:
                arm = figures(content, name)
                costs = f"{arm['parameters']:>12} {arm['MACs an image']:>10} {arm['time, all epochs']:>12}"
                lines.append(f"  {name:20}{costs}  {arm['test accuracy']:26} {printed.get(name, '–')}")
    return "\n".join(lines)
