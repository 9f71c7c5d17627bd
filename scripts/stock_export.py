"""Exports a network with the stock tools, each used as its own documentation shows, for bench_export and check_int8.

    python scripts/stock_export.py TOOL MODEL FOLDER [--set NAME=VALUE ...] [--weights FILE] [--input-shape SIZES]
        [--calibration-data FILE]

TOOL: litert-torch    fp32.tflite by litert-torch; int8.tflite by ai-edge-quantizer, static_wi8_ai8 and its calibrate()
      torch.onnx      fp32.onnx by torch.onnx; int8.onnx by onnxruntime's quantize_static with its defaults, after
                      its quant_pre_process
      quantize-u8s8   u8s8.onnx from fp32.onnx: the same, with uint8 activations, as its documentation advises for x86
      photos          not a tool: photos.npz, the photos that both sides are judged by ("inputs") and what PyTorch makes
                      of them ("outputs"); none of them is a calibration photo

MODEL and all options are those of edgeport export. The network, its weights (random ones of the same seed) and the
calibration samples are what edgeport uses.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeport import catalog
from edgeport.export import calibrate, capture
from edgeport.records import Preprocessing, TensorInfo


class Network:
    """What is exported. sample: one example input; calibration: (samples, 1, 3, H, W)."""

    def __init__(self, args: argparse.Namespace) -> None:
        factory = catalog.find_factory(args.model)
        self.module = capture.make_network(factory, catalog.parse_arguments(factory, args.assignments), args.weights)
        (self.sample,) = capture.example_inputs(factory, args.input_shape)
        self.calibration_data: Path | None = args.calibration_data
        self.preprocessing: Preprocessing | None = getattr(self.module, "PREPROCESSING", factory.preprocessing)

    def calibration(self) -> NDArray[np.float32]:
        info = TensorInfo("x", tuple(self.sample.shape), "float32")
        return calibrate.load(self.calibration_data, [info], self.preprocessing).fit_arrays()[0]


def litert_torch(network: Network, folder: Path) -> None:
    import litert_torch as converter
    from ai_edge_quantizer import quantizer, recipe

    module = converter.to_channel_last_io(network.module, args=[0])
    sample = network.sample.permute(0, 2, 3, 1).contiguous()
    converter.convert(module.eval(), (sample,)).export(str(folder / "fp32.tflite"))
    quantize = quantizer.Quantizer(str(folder / "fp32.tflite"), recipe.static_wi8_ai8())
    samples = np.ascontiguousarray(network.calibration().transpose(0, 1, 3, 4, 2))
    ranges = quantize.calibrate({"serving_default": [{"args_0": sample} for sample in samples]})
    quantize.quantize(ranges).export_model(str(folder / "int8.tflite"), overwrite=True)


def torch_onnx(network: Network, folder: Path) -> None:
    from onnxruntime.quantization import quantize_static

    torch.onnx.export(network.module, (network.sample,), str(folder / "fp32.onnx"), dynamo=True)
    _prepared(folder)
    quantize_static(str(folder / ".prepared.onnx"), str(folder / "int8.onnx"), _reader(network, folder))


def quantize_u8s8(network: Network, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_static

    prepared, made = _prepared(folder), folder / "u8s8.onnx"
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(made), _reader(network, folder), **types)


def photos(network: Network, folder: Path) -> None:
    from fetch_assets import fetch
    from PIL import Image

    height, width = network.sample.shape[2:]
    preprocessing = network.preprocessing or Preprocessing()
    images = [Image.open(path) for path in fetch(["photos"]).values()]
    inputs = np.stack([calibrate.preprocess(image, preprocessing, (height, width))[None] for image in images])
    with torch.no_grad():
        outputs = [network.module(torch.from_numpy(x)).to(torch.float64).numpy() for x in inputs]
    np.savez(folder / "photos.npz", inputs=inputs, outputs=np.stack(outputs))


def _prepared(folder: Path) -> Path:
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = folder / ".prepared.onnx"
    quant_pre_process(str(folder / "fp32.onnx"), str(path))
    return path


def _reader(network: Network, folder: Path) -> Any:
    """The calibration samples as quantize_static asks for them."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    name = onnx.load(folder / "fp32.onnx", load_external_data=False).graph.input[0].name
    samples: Iterator[dict[str, Any]] = iter([{name: sample} for sample in network.calibration()])

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(samples, None)

    return Reader()


TOOLS: dict[str, Callable[[Network, Path], None]] = {
    "litert-torch": litert_torch,
    "torch.onnx": torch_onnx,
    "quantize-u8s8": quantize_u8s8,
    "photos": photos,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--input-shape", action="append", default=[])
    parser.add_argument("--calibration-data", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    TOOLS[args.tool](Network(args), args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
