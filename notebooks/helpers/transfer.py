"""A trained network is loaded under a new head and frozen: what is done is counted, what does not fit is refused."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from helpers.datasets.weights import Pretrained, find_imagenet_resnet18, imagenet_resnet18, tiny_imagenet_resnet18
from helpers.keeping.checks import check_optimizer
from helpers.keeping.messages import first

__all__ = ["Loaded", "Pretrained", "check_optimizer", "find_imagenet_resnet18", "freeze", "imagenet_resnet18"]
__all__ += ["load_backbone", "tiny_imagenet_resnet18"]
BATCH_COUNT = ".num_batches_tracked"  # batch norm's count of batches; files made before torch 0.4.1 have none


@dataclass(frozen=True)
class Loaded:
    """What `load_backbone` did, in names of tensors. As text: one line."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # of the model, not in the state: the new modules stay as they were
    unexpected: dict[str, tuple[int, ...]]  # of the state, left out; with their shapes

    def __str__(self) -> str:
        new = [name for name in self.missing if not name.endswith(BATCH_COUNT)]
        left_out = [f"{name} {shape}" for name, shape in self.unexpected.items()]
        counters = len(self.missing) - len(new)
        text = f"{len(self.loaded)} of {len(self.loaded) + len(self.missing)} tensors loaded"
        text += (f"; new: {first(new)}" if new else "") + (f"; left out: {first(left_out)}" if left_out else "")
        return text + (f"; not in the file: {counters} batch counters of batch norm" if counters else "")


def load_backbone(model: nn.Module, state: Mapping[str, Tensor], new: Iterable[str] = ("fc",)) -> Loaded:
    """Load every tensor of `state` but those of the modules named in `new`, and count what was done.

    Raises ValueError, with the model as it was, where anything else does not fit or, but batch counts, is missing.
    """
    own, heads = model.state_dict(), tuple(f"{name}." for name in known(model, new))
    if wrong := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        advice = "A checkpoint holds the state dict under a key of its own: pass that"
        raise ValueError(f"This is no state dict: {first(wrong)} is no tensor. {advice}. Nothing was loaded.")
    wanted, given = ({k: v for k, v in named.items() if not k.startswith(heads)} for named in (own, state))
    if reason := why_it_does_not_fit(wanted, given):
        raise ValueError(f"The state does not fit {type(model).__name__} {reason} Nothing was loaded.")
    model.load_state_dict(given, strict=False)  # what is missing was settled above
    left_out = {key: tuple(value.shape) for key, value in state.items() if key not in given}
    return Loaded(tuple(k for k in wanted if k in given), tuple(k for k in own if k not in given), left_out)


def why_it_does_not_fit(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """What differs between two sets of named tensors, the likely reason, and what to do; "" where they fit."""
    needed = [key for key in wanted if not key.endswith(BATCH_COUNT)]
    reshaped = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]
    differences = {"missing": [key for key in needed if key not in given]}
    differences["unexpected"] = [key for key in given if key not in wanted]
    differences["of another shape"] = [f"{k} {tuple(given[k].shape)} for {tuple(wanted[k].shape)}" for k in reshaped]
    found = "; ".join(f"{len(keys)} {what}: {first(keys)}" for what, keys in differences.items() if keys)
    modules = {key.rpartition(".")[0] for key in reshaped}
    reason = "These look like weights of another architecture: build the network that they were trained in."
    if not given:
        reason = "The state is empty."
    elif prefix := prefix_between(given, needed):
        reason = f"The state's names begin with {prefix!r}: take it off with key.removeprefix({prefix!r})."
    elif prefix := prefix_between(wanted, given):
        reason = f"The model's own names begin with {prefix!r}: load into the network inside that wrapper."
    elif len(modules) == 1 and not differences["missing"] + differences["unexpected"]:
        reason = f"If {min(modules)} is a new head, name it: new=({min(modules)!r},)."
    return f"({found}). {reason}" if found else ""


def prefix_between(long: Iterable[str], short: Iterable[str]) -> str:
    """The prefix without which the names in `long` include all of `short`, for example "module."; "" if none."""
    probe = min(short, default="", key=len)
    prefixes = {name.removesuffix(probe) for name in long if name.endswith(f".{probe}")}
    return next((prefix for prefix in prefixes if {prefix + name for name in short} <= set(long)), "")


def freeze(model: nn.Module, but: Iterable[str] = ("fc",)) -> None:
    """Train nothing but the modules named in `but`; the rest loses its gradients. ValueError for an unknown name."""
    but = known(model, but)
    model.requires_grad_(False)
    for name in but:
        model.get_submodule(name).requires_grad_(True)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.grad = None  # an optimizer that still holds it would go on using a stored gradient


def known(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple; ("fc") is a text and stands for ("fc",). Raises ValueError for an unknown module."""
    names = (names,) if isinstance(names, str) else tuple(names)
    modules = [name for name, _ in model.named_modules() if name]
    if unknown := [name for name in names if name not in modules]:
        outer = ", ".join(child for child, _ in model.named_children())
        raise ValueError(f"{type(model).__name__} has no module {unknown[0]!r}. Its outermost are {outer}.")
    return names
