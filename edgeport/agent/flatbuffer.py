"""Changes the few bytes of a .tflite file that say what its outputs are.

Positions are those of TFLite's schema (schema.fbs); tables and vectors are as in FlatBuffers' internals document.
"""

import struct
from typing import Optional

SUBGRAPHS, SIGNATURES = 2, 7  # fields of Model
SUBGRAPH_OUTPUTS, SIGNATURE_OUTPUTS = 2, 1


def without_outputs(model: bytearray) -> None:
    """Empties the lists of outputs of the main graph and of its signature, in place. The operators that make them stay,
    and run. Raises struct.error for what is no such file.
    """
    root = _number(model, 0)
    for tables, outputs in ((SUBGRAPHS, SUBGRAPH_OUTPUTS), (SIGNATURES, SIGNATURE_OUTPUTS)):
        vector = _vector(model, root, tables)
        if vector is None or not _number(model, vector):
            continue  # files need not have signatures
        first = vector + 4
        found = _vector(model, first + _number(model, first), outputs)
        if found is not None:
            struct.pack_into("<I", model, found, 0)


def _number(model: bytearray, at: int) -> int:
    return int(struct.unpack_from("<I", model, at)[0])


def _vector(model: bytearray, table: int, field: int) -> Optional[int]:
    """Where a table's field of this number keeps its vector, which starts with its length; None if it has none."""
    layout = table - int(struct.unpack_from("<i", model, table)[0])
    slot = 4 + 2 * field
    size = struct.unpack_from("<H", model, layout)[0]
    offset = int(struct.unpack_from("<H", model, layout + slot)[0]) if slot < size else 0
    return table + offset + _number(model, table + offset) if offset else None
