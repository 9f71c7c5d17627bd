"""Writes the bounds of a clamp on floats as floats: torch.onnx makes a tensor of an integer beside one, and fails."""

import torch
from torch.fx import GraphModule

FORMATS = ("onnx", "tflite")
ORDER = 4

aten = torch.ops.aten
BOUNDED = (aten.clamp.default, aten.hardtanh.default)


def run(gm: GraphModule) -> int:
    """Returns how many operators it changed."""
    changed = 0
    for node in gm.graph.nodes:
        value = node.meta.get("val")
        if node.target in BOUNDED and isinstance(value, torch.Tensor) and value.is_floating_point():
            bounds = tuple(float(b) if isinstance(b, int) else b for b in node.args[1:])
            changed += any(type(new) is not type(old) for new, old in zip(bounds, node.args[1:], strict=True))
            node.args = (node.args[0], *bounds)
    return changed
