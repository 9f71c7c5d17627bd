"""Parameters and buffers of a captured graph, by their dotted names."""

from typing import Any

import torch
from torch import nn


def get_state(gm: torch.fx.GraphModule, node: Any) -> torch.Tensor | None:
    """The tensor behind a get_attr node, or None for anything else."""
    if not isinstance(node, torch.fx.Node) or node.op != "get_attr":
        return None
    path, _, leaf = str(node.target).rpartition(".")
    value = getattr(gm.get_submodule(path), leaf)
    return value.detach() if isinstance(value, torch.Tensor) else None


def add_state(gm: torch.fx.GraphModule, name: str, value: torch.Tensor, before: torch.fx.Node) -> torch.fx.Node:
    """A get_attr node, placed before another, for a new parameter of that name; name_1 and so on if it is taken."""
    path, _, leaf = name.rpartition(".")
    owner, free, n = gm.get_submodule(path), leaf, 0
    while hasattr(owner, free) and getattr(owner, free) is not None:
        n += 1
        free = f"{leaf}_{n}"
    if free in owner._parameters:
        del owner._parameters[free]
    owner.register_parameter(free, nn.Parameter(value.detach(), requires_grad=False))
    with gm.graph.inserting_before(before):
        node = gm.graph.get_attr(f"{path}.{free}".lstrip("."))
    node.meta = dict(before.meta)
    node.meta.pop("val", None)
    return node
