"""What a lecture measured, as one JSON file a lecture: written at its end, read by the comparison tables."""

import json
import os
import statistics
from pathlib import Path

import torch
from torch import nn

from helpers import checkpoint
from helpers.complexity import count_parameters, layer_table, saved_activation_bytes
from helpers.data import ImageSet
from helpers.environment import Run, clock
from helpers.training import History


def results_folder() -> Path:
    """LECTURE_RESULTS, or `notebooks/results` of the repository."""
    return Path(os.environ.get("LECTURE_RESULTS") or Path(__file__).parents[1] / "results")


def arm_record(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    batch_size: int,
    history: History,
    test_accuracy_by_seed: list[float] | None = None,
) -> dict:
    """One arm of a results file: cost and history of the first seed, and the last test accuracy of every seed.

    `image_shape` is (C, H, W) as the network sees it; MACs and activation memory are for one such image.
    """
    record = {
        "parameters": count_parameters(model),
        "trained_parameters": count_parameters(model, trained_only=True),
        "macs": sum(layer.macs for layer in layer_table(model, image_shape)),
        "activation_bytes": saved_activation_bytes(model, image_shape),
        "batch_size": batch_size,
        "epochs": len(history),
        "train_loss": history.train_loss,
        "train_accuracy": history.train_accuracy,
        "test_loss": history.test_loss,
        "test_accuracy": history.test_accuracy,
        "seconds": history.seconds,
        "images_per_second": statistics.median(history.images_per_second),
    }
    return record if test_accuracy_by_seed is None else {**record, "seeds": test_accuracy_by_seed}


def save_results(
    run: Run,
    train_set: ImageSet,
    test_set: ImageSet,
    image_size: int,
    arms: dict[str, dict],
    pretrained: str | None = None,
) -> Path:
    """Write `<lecture>.json`; `image_size` is the side in pixels that the network sees. Returns the path.

    Then the lecture is complete: its checkpoints are deleted, so that running it again trains anew.

    `pretrained` says what the weights had been trained on that some arms started from.
    """
    content = {
        "lecture": run.lecture,
        "profile": run.profile,
        "dataset": {
            "name": train_set.name,
            "source": train_set.source,
            "train": len(train_set),
            "test": len(test_set),
            "image_size": image_size,
        },
        "device": f"{run.device.type}: {run.device_name}",
        "threads": run.threads,
        "torch": torch.__version__,
        "seed": run.seed,
        **({"pretrained": pretrained} if pretrained else {}),
        "arms": arms,
    }
    path = results_folder() / f"{run.lecture}.json"
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        advice = 'Set os.environ["LECTURE_RESULTS"] to a folder that can be written, and run this cell again'
        raise OSError(f"{path} cannot be written ({error.strerror}). Nothing is lost yet. {advice}.") from error
    if run.profile != "quick":  # which has none, and must leave those of another run alone
        checkpoint.remove_all(checkpoint.checkpoint_folder(run.lecture))
    return path


def load_results(lecture: str) -> dict:
    """Read `<lecture>.json`. Raises FileNotFoundError with what to run when that lecture has not been run yet."""
    path = results_folder() / f"{lecture}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent}. Run the notebook {lecture}.ipynb to its end.")
    return json.loads(path.read_text(encoding="utf-8"))


def spread(accuracies: list[float]) -> str:
    """Accuracies of several seeds as text: mean ± standard deviation of the single runs, and their number."""
    mean = f"{statistics.mean(accuracies):.2%}"
    if len(accuracies) == 1:
        return f"{mean} (one seed)"
    return f"{mean} ± {100 * statistics.stdev(accuracies):.2f} ({len(accuracies)} seeds)"


def memory(size: int) -> str:
    """Bytes for people: 1.07 MB, 2 kB."""
    return f"{size / 1e6:,.2f} MB" if size >= 1e4 else f"{size / 1e3:.0f} kB"


def cost_card(lecture: str, names: list[str] | None = None) -> str:
    """What the arms of one lecture cost and reached, all or those named, side by side, from its results file."""
    arms = load_results(lecture)["arms"]
    arms = {name: arms[name] for name in names or arms}
    rows = {
        "parameters": lambda arm: f"{arm['parameters']:,}",
        "of them trained": lambda arm: f"{arm['trained_parameters']:,}",
        "MACs for an image": lambda arm: f"{arm['macs'] / 1e6:,.{1 if arm['macs'] >= 1e6 else 2}f} M",
        "activation memory for an image": lambda arm: memory(arm["activation_bytes"]),
        "training images/s": lambda arm: f"{arm['images_per_second']:,.0f}",
        "time for all epochs": lambda arm: clock(sum(arm["seconds"])),
        "test accuracy": lambda arm: spread(arm.get("seeds", arm["test_accuracy"][-1:])),
    }
    lines = [f"{lecture:32}" + "".join(f"{name:>28}" for name in arms)]
    lines += [f"{title:32}" + "".join(f"{text(arm):>28}" for arm in arms.values()) for title, text in rows.items()]
    return "\n".join(lines)
