"""torch.onnx's table of operators, which it makes anew in each export from the source text of five hundred functions.

That takes a second, more than all else in the export of a small network. Here it is made once a process.
"""

import copy
import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry


@functools.cache
def remember() -> None:
    """Gives every export from now on a copy of the table that the first one makes."""
    make = ONNXRegistry.from_torchlib
    tables: dict[tuple[object, ...], ONNXRegistry] = {}

    def from_torchlib(*opset: int, **named: int) -> ONNXRegistry:
        key = (*opset, *named.items())
        if key not in tables:
            tables[key] = make(*opset, **named)
        return _copied(tables[key])

    ONNXRegistry.from_torchlib = staticmethod(from_torchlib)  # type: ignore[method-assign]


def _copied(table: ONNXRegistry) -> ONNXRegistry:
    """Of its own lists, so that what one export registers no other one sees."""
    made = copy.copy(table)
    made.functions = {target: list(forms) for target, forms in table.functions.items()}
    return made
