"""Loads a file of weights into a network; where they are another network's, says whose they are and what to ask for."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeport import catalog
from edgeport.catalog import Factory
from edgeport.errors import ExportError, UsageError

Shapes = dict[str, tuple[int, ...]]

WRAPPER = "module."  # what nn.DataParallel puts before every key


def load(network: nn.Module, path: Path) -> None:
    """Loads a state dict, raw or under "state_dict", its keys with or without "module.".

    The file is data: nothing in it is executed. Raises UsageError for a missing file and ExportError, with the names,
    where keys or shapes do not fit.
    """
    wanted, found = network.state_dict(), _unwrapped(_read(path), network)
    problems = _differences(_shapes(wanted), _shapes(found))
    if problems:
        whose = _recognised(_shapes(found))
        why = f": {whose}\nOf this network's, " if whose else "; "
        raise ExportError(f"--weights {path} does not fit this network{why}{'; '.join(problems)}")
    network.load_state_dict({**wanted, **found})


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"--weights {path}: there is no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # the unpickler raises many kinds, none of them documented
        why = "it is damaged, no PyTorch checkpoint, or holds objects other than tensors"
        raise ExportError(
            f"--weights {path} cannot be read as data alone ({type(e).__name__}): {why}; save it with "
            "torch.save(network.state_dict(), FILE)"
        ) from e
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        keys = f" of {_some([str(key) for key in state])}" if isinstance(state, dict) else ""
        raise ExportError(
            f"--weights {path} holds a {type(state).__name__}{keys}, not a state dict of tensors; save it with "
            "torch.save(network.state_dict(), FILE)"
        )
    strange = [str(key) for key, value in state.items() if not _is_plain(value)]
    if strange:
        raise ExportError(
            f"--weights {path} holds tensors without data or of a special layout: {_some(strange)}; save it with "
            "torch.save(network.state_dict(), FILE) once the network's weights are loaded"
        )
    return {str(key): value for key, value in state.items()}


def _is_plain(tensor: Tensor) -> bool:
    """Whether it has its numbers, one by one."""
    return tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized


def _unwrapped(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Without the wrapper's prefix, unless the network has a module of that name itself."""
    if any(key.startswith(WRAPPER) for key in network.state_dict()):
        return state
    return {key.removeprefix(WRAPPER): value for key, value in state.items()}


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _differences(wanted: Shapes, found: Shapes) -> list[str]:
    """What keeps the found tensors from being loaded. Old files do not count batches, which inference does not need."""
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in found if key not in wanted]
    misshapen = [
        f"{key} ({found[key]} in the file, {shape} in the network)"
        for key, shape in wanted.items()
        if key in found and found[key] != shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return [f"{len(keys)} {what}: {_some(keys)}" for what, keys in problems.items() if keys]


def _recognised(shapes: Shapes) -> str:
    """Whose weights they are, where a network of the catalogue takes them just as they are; else ""."""
    for name in catalog.model_names():
        factory = catalog.find_factory(name)
        with contextlib.suppress(LookupError, ValueError, ArithmeticError, ExportError):  # then they are not its
            whose, arguments = factory.recognise(shapes) if factory.recognise else ("", None)
            if arguments is not None and not _differences(_shapes(_without_data(factory, arguments)), shapes):
                return f"it holds {whose} weights; use {name}{_flags(factory, arguments)}"
    return ""


def _without_data(factory: Factory, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict that the factory's network would have."""
    with torch.device("meta"):
        network = catalog.build(factory, arguments)
    state: dict[str, Tensor] = network.state_dict()
    return state


def _flags(factory: Factory, arguments: dict[str, Any]) -> str:
    """Of all arguments but a number of classes that is the usual one: none stays as it was when the weights failed."""
    usual = {name: parameter.default for name, parameter in catalog.parameters(factory.call).items()}
    told = {k: v for k, v in arguments.items() if k != "num_classes" or v != usual[k]}
    return "".join(f" --set {name}={value}" for name, value in told.items())


def _some(keys: list[str], most: int = 5) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
