"""The table of operators that torch.onnx exports with is made once, and is each export's own."""

import pytest
import torch
from torch.onnx._internal.exporter import _registration
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgeport.export import torchlib


def test_the_table_is_made_once_and_what_one_export_registers_no_other_one_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torchlib.remember()
    first, operator = ONNXRegistry().from_torchlib(opset_version=18), torch.ops.aten.relu.default
    monkeypatch.setattr(_registration, "onnxscript_apis", None)  # what the table is made from
    second = ONNXRegistry().from_torchlib(opset_version=18)
    assert second.functions == first.functions
    second.register_op(operator, torch.relu)
    assert len(second.get_decomps(operator)) == len(first.get_decomps(operator)) + 1
