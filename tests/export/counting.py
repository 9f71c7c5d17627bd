"""Multiply-adds of a network, layer by layer, counted apart from edgeport's own counting, on tensors without data."""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from edgeport.models.micronet import DynamicShiftMax, J  # type: ignore[import-not-found]
from torch import nn


class Layer(NamedTuple):
    path: str
    module: nn.Module
    madds: int


def meta(build: Callable[..., nn.Module], **arguments: Any) -> nn.Module:
    """The network without data: nothing that it computes costs anything."""
    with torch.device("meta"):
        return build(**arguments).eval()


def layers(network: nn.Module, size: int = 224) -> list[Layer]:
    """Convolutions, linear layers and Shift-Max in the order of their calls. size: height and width of the input."""
    called: list[Layer] = []

    def hook(path: str) -> Callable[..., None]:
        return lambda module, _, output: called.append(Layer(path, module, _madds(module, output)))

    kinds = (nn.Conv2d, nn.Linear, DynamicShiftMax)
    handles = [m.register_forward_hook(hook(p)) for p, m in network.named_modules() if isinstance(m, kinds)]
    network(torch.empty(1, 3, size, size, device=next(network.parameters()).device))
    for handle in handles:
        handle.remove()
    return called


def madds(network: nn.Module, size: int = 224, *, shift_max: bool = False) -> int:
    """shift_max: with its products of coefficients and channels."""
    return sum(x.madds for x in layers(network, size) if shift_max or not isinstance(x.module, DynamicShiftMax))


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def by_type(network: nn.Module) -> dict[str, tuple[int, int]]:
    """(multiply-adds, weights without normalisations and biases) of each layer type of MobileNet's Table 2."""
    computed: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for layer in layers(network):
        assert isinstance(layer.module.weight, torch.Tensor)
        computed[_type(layer.module)] += layer.madds
        weights[_type(layer.module)] += layer.module.weight.numel()
    return {kind: (computed[kind], weights[kind]) for kind in computed}


def _madds(module: nn.Module, output: torch.Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    assert isinstance(module, DynamicShiftMax)
    return int(output.numel() * J * module.K)


def _type(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return "FC"
    assert isinstance(module, nn.Conv2d)
    depthwise = "DW " if module.groups > 1 and module.groups == module.in_channels else ""
    return f"Conv {depthwise}{module.kernel_size[0]}x{module.kernel_size[1]}"
