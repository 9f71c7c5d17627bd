"""Rules of the lowering for movements of whole blocks, and for conversions that convert nothing."""

import numpy as np
import torch
from torch.fx import Node

from edgeport.export.layout import NHWC
from edgeport.export.lowering import Lowering, UnsupportedError, Value, lowers, need_image, shape_of

aten = torch.ops.aten


@lowers(aten.pixel_shuffle.default)
def pixel_shuffle(lowering: Lowering, node: Node) -> Value:
    """Depth to space, whose channels lie by place first: they are taken in that order."""
    need_image(node)
    source, block = node.args[0], int(node.args[1])  # type: ignore[arg-type]
    assert isinstance(source, Node)
    value, shape = lowering.ordered(source, NHWC), shape_of(source)
    if block > 1 and shape_of(node)[1] > 1:
        places = np.arange(shape[1], dtype=np.int32).reshape(-1, block * block).T.flatten()
        inputs = [value.tensor, lowering.constant(places, "places")]
        value = lowering.emit(node, "GATHER", inputs, shape, NHWC, ("Gather", {"axis": 3}))
    options = ("DepthToSpace", {"blockSize": block})
    return lowering.emit(node, "DEPTH_TO_SPACE", [value.tensor], shape_of(node), NHWC, options)


@lowers(aten.to.dtype, aten._assert_tensor_metadata.default)
def of_the_same_type(lowering: Lowering, node: Node) -> Value:
    """What it reads; the check of a type, which nobody reads, was done by the capture."""
    source = node.args[0]
    assert isinstance(source, Node)
    if node.target == aten.to.dtype and node.meta["val"].dtype != source.meta["val"].dtype:
        raise UnsupportedError(f"a conversion from {source.meta['val'].dtype} to {node.meta['val'].dtype}")
    return lowering.value(source)
