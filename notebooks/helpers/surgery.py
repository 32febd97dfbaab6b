"""Operations on a trained network: load it under a new head, freeze it, and check that what should train will train.

Each of these can go wrong in silence: weights that were skipped, a head that the optimizer does not know, a layer
that never moves. Here each is counted, shown or refused. Modules are named as in `model.named_modules()`.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH_COUNT = ".num_batches_tracked"  # batch norm's count of batches; files made before torch 0.4.1 have none


@dataclass(frozen=True)
class Loaded:
    """What `load_backbone` did, in names of tensors. As text: one line."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # of the model, not in the state: the new modules stay as they were
    unexpected: tuple[str, ...]  # of the state, left out
    shapes: dict[str, tuple[int, ...]]  # of those left out

    def __str__(self) -> str:
        new = [name for name in self.missing if not name.endswith(BATCH_COUNT)]
        counters = len(self.missing) - len(new)
        left_out = [f"{name} {self.shapes[name]}" for name in self.unexpected]
        text = f"{len(self.loaded)} of {len(self.loaded) + len(self.missing)} tensors loaded"
        text += f"; new: {first(new)}" if new else ""
        text += f"; left out: {first(left_out)}" if left_out else ""
        return text + (f"; not in the file: {counters} batch counters of batch norm" if counters else "")


def load_backbone(model: nn.Module, state: Mapping[str, Tensor], new: Iterable[str] = ("fc",)) -> Loaded:
    """Load every tensor of `state` but those of the modules named in `new`, and count what was done.

    Raises ValueError, with the model as it was, when anything else is missing, unexpected or of another shape. Only
    batch norm's count of batches may be missing, as torch allows it; nothing but `momentum=None` uses it.
    """
    own, new = model.state_dict(), known(model, new)
    wrong = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(
            f"This is no state dict: {first(wrong)} is no tensor. A checkpoint holds the state dict under a key of"
            " its own: pass that. Nothing was loaded."
        )
    wanted = {key: value for key, value in own.items() if not within(key, new)}
    given = {key: value for key, value in state.items() if not within(key, new)}
    lacking = [key for key in wanted if key not in given and not key.endswith(BATCH_COUNT)]
    extra = [key for key in given if key not in wanted]
    reshaped = [key for key in wanted if key in given and wanted[key].shape != given[key].shape]
    if lacking or extra or reshaped:
        shown = [f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}" for key in reshaped]
        problems = {"missing": lacking, "unexpected": extra, "of another shape": shown}
        found = "; ".join(f"{len(keys)} {what}: {first(keys)}" for what, keys in problems.items() if keys)
        raise ValueError(
            f"The state does not fit {type(model).__name__} ({found}). {cause(wanted, given, reshaped)}"
            " Nothing was loaded."
        )
    loaded = {key: given[key] for key in wanted if key in given}
    model.load_state_dict(loaded, strict=False)  # what is missing was settled above
    missing = tuple(key for key in own if key not in loaded)
    left_out = {key: tuple(value.shape) for key, value in state.items() if key not in given}
    return Loaded(tuple(loaded), missing, tuple(left_out), left_out)


def cause(wanted: dict[str, Tensor], given: dict[str, Tensor], reshaped: list[str]) -> str:
    """The likely reason why the names or shapes of `given` do not fit `wanted`, and what to do."""
    needed = {key for key in wanted if not key.endswith(BATCH_COUNT)}
    if not given:
        return "The state is empty."
    if prefix := prefix_between(given, needed):
        return f"The state's names begin with {prefix!r}: take it off with key.removeprefix({prefix!r})."
    if prefix := prefix_between(wanted, set(given)):
        return f"The model's own names begin with {prefix!r}: load into the network inside that wrapper."
    modules = {key.rpartition(".")[0] for key in reshaped}
    if len(modules) == 1 and needed <= set(given) <= set(wanted):
        (module,) = modules
        return f"If {module} is a new head, name it: new=({module!r},)."
    return "These look like weights of another architecture: build the network that they were trained in."


def prefix_between(long: Iterable[str], short: set[str]) -> str:
    """The prefix without which the names in `long` include all of `short`, for example "module."; "" if none."""
    probe = min(short, default="", key=len)
    for prefix in {name.removesuffix(probe) for name in long if name.endswith(f".{probe}")}:
        if short <= {name.removeprefix(prefix) for name in long if name.startswith(prefix)}:
            return prefix
    return ""


def freeze(model: nn.Module, but: Iterable[str] = ("fc",)) -> None:
    """Train nothing but the modules named in `but`: no gradients are computed for the rest, and old ones are dropped.

    Can be called again with other names, for example to let more layers train. Then build the optimizer anew.
    Batch norm's running statistics are no parameters: they stand still only in evaluation mode.
    Raises ValueError for a name that the model does not have.
    """
    but = known(model, but)
    model.requires_grad_(False)
    for name in but:
        model.get_submodule(name).requires_grad_(True)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.grad = None  # an optimizer that still holds it would go on using a stored gradient


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError, in one line, unless the optimizer holds each trainable parameter once, and nothing else.

    Tensors are compared by identity and not read: about a millisecond for DenseNet-121. Groups of parameters and tied
    weights are fine.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}  # tied weights appear once
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    foreign = [str(tuple(parameter.shape)) for parameter in held if id(parameter) not in names]
    own = Counter(names[id(parameter)] for parameter in held if id(parameter) in names)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    absent = [name for name in names.values() if name in trainable and name not in own]
    frozen = [name for name in own if name not in trainable]
    twice = [name for name, times in own.items() if times > 1]
    if foreign:
        raise ValueError(
            f"The optimizer holds {len(foreign)} tensors that are not the model's (of shape {first(foreign)})"
            + (f" and lacks {first(absent)}" if absent else "")
            + ": the head was replaced, or the model rebuilt, after it. Build the optimizer after that."
        )
    if absent:
        raise ValueError(
            f"The optimizer lacks {len(absent)} trainable parameters ({first(absent)}), which would never change."
            " freeze(...) them or give them to the optimizer."
        )
    if frozen:
        raise ValueError(
            f"The optimizer holds {len(frozen)} frozen parameters ({first(frozen)}), which cannot change."
            " Build the optimizer after freeze(...), from the parameters with requires_grad."
        )
    if twice:
        raise ValueError(
            f"The optimizer holds {len(twice)} parameters more than once ({first(twice)}); each step would change them"
            " as often. Build the optimizer with every parameter in one group only."
        )


def unmoved(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    criterion: Callable,
    images: Tensor,
    labels: Tensor,
) -> list[str]:
    """Names of the trainable parameters that one training step on this batch leaves exactly as they were.

    The step is made on copies; model, optimizer and random numbers stay as they are. A parameter stands still when
    the optimizer lacks it, when its group has a learning rate of 0, or when no gradient reaches it.
    """
    after, stepped = copy.deepcopy((model, optimizer))  # copied together, so that the copies still belong together
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        after.train()
        stepped.zero_grad()
        criterion(after(images.to(device)), labels.to(device)).backward()
        stepped.step()
    moved = dict(after.named_parameters())
    return [n for n, before in model.named_parameters() if before.requires_grad and torch.equal(before, moved[n])]


def known(model: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple; ("fc") is a text and stands for ("fc",). Raises ValueError for an unknown module."""
    names = (names,) if isinstance(names, str) else tuple(names)
    modules = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in modules:
            outer = [module for module in modules if "." not in module]
            raise ValueError(f"{type(model).__name__} has no module {name!r}. Its outermost are {', '.join(outer)}.")
    return names


def within(key: str, modules: tuple[str, ...]) -> bool:
    """Whether the tensor of this name belongs to one of the modules."""
    return any(key.startswith(f"{module}.") for module in modules)


def first(texts: list[str], count: int = 3) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(texts[:count]) + more
