"""Removes operators, parameters and buffers that no output depends on, which converters would carry along."""

from torch.fx import GraphModule

FORMATS = ("onnx", "tflite")
ORDER = 90


def run(gm: GraphModule) -> int:
    """Returns how many nodes and tensors went."""
    before = len(gm.graph.nodes)
    gm.graph.eliminate_dead_code()
    used = {str(n.target) for n in gm.graph.nodes if n.op == "get_attr"}
    state = [*dict(gm.named_parameters(remove_duplicate=False)), *dict(gm.named_buffers(remove_duplicate=False))]
    unused = [name for name in state if name not in used]
    for name in unused:
        path, _, leaf = name.rpartition(".")
        delattr(gm.get_submodule(path), leaf)
    return before - len(gm.graph.nodes) + len(unused)
