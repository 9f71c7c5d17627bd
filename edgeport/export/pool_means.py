"""Turns an ONNX model's means over whole images into global average pools, exactly.

ONNX Runtime pools what a convolution left in its own layout of channels, and pools integers; to take the mean it first
lays the same numbers out anew, or makes floats of them.
"""

import onnx_ir as ir


def run(model: ir.Model) -> int:
    """Rewrites the model in place, where nothing but the mean reads the image. Returns how many means it turned."""
    found = [node for node in model.graph if _is_mean_of_image(node)]
    for node in found:
        _turn(model.graph, node)
    return len(found)


def _is_mean_of_image(node: ir.Node) -> bool:
    if node.op_type != "ReduceMean" or len(node.inputs) != 2:
        return False
    image, axes = node.inputs
    if image is None or axes is None or image.shape is None or len(image.shape) != 4:
        return False
    constant = ir.convenience.get_const_tensor(axes)
    if constant is None or {axis % 4 for axis in constant.numpy().tolist()} != {2, 3}:
        return False
    if image.dtype != ir.DataType.FLOAT:
        return False  # it has no kernel for others
    return len(image.uses()) == 1 and not image.is_graph_output()


def _turn(graph: ir.Graph, node: ir.Node) -> None:
    image, mean, about = node.inputs[0], node.outputs[0], dict(node.metadata_props)
    assert image is not None
    assert image.shape is not None
    made = [ir.node("GlobalAveragePool", [image], metadata_props=about)]
    made[0].outputs[0].shape = ir.Shape([*image.shape[:2], 1, 1])
    if not node.attributes.get_int("keepdims", 1):
        made.append(ir.node("Flatten", [made[0].outputs[0]], {"axis": 1}, metadata_props=about))
        made[1].outputs[0].shape = mean.shape
    for new in made:
        new.outputs[0].type = image.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [mean], [made[-1].outputs[0]])
