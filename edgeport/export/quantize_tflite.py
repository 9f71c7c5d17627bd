"""fp32.tflite -> int8.tflite by ai-edge-quantizer: static, weights int8 per channel, activations int8."""

from typing import Any

import numpy as np
from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
from ai_edge_quantizer.algorithm_manager import AlgorithmName
from ai_edge_quantizer.calibrator import CalibrationMode
from ai_edge_quantizer.utils import qsv_utils

from edgeport import formats
from edgeport.export import ranges
from edgeport.export.job import Job

SIGNATURE = "serving_default"
EVERYTHING = ".*"


def run(job: Job) -> None:
    """Inputs and outputs stay floats unless the job asks otherwise."""
    data = (job.folder / "fp32.tflite").read_bytes()
    quantize = quantizer.Quantizer(data, recipe.static_wi8_ai8())
    if not job.int8_io:
        for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantize.update_quantization_recipe(EVERYTHING, edge, algorithm_key=AlgorithmName.NO_QUANTIZE)
    arrays = [a.transpose(0, 1, 3, 4, 2) if a.ndim == 5 else a for a in job.samples()]
    samples = [dict(zip(job.input_names, map(np.ascontiguousarray, s), strict=True)) for s in zip(*arrays, strict=True)]
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(quantize.get_quantization_recipe())
    # The quantizer's own calibrate() keeps a moving average, which forgets the extremes of all but the first samples.
    extremes = calibrator.Calibrator(
        data, num_threads=1, mode=CalibrationMode.CALIBRATION_PROFILER_BASED, qsv_update_func=qsv_utils.min_max_update
    )
    extremes.calibrate({SIGNATURE: samples}, manager)
    found = extremes.get_model_qsvs()
    if job.optimize:
        _share_ranges(found, job)
    quantized = quantize.quantize(found, enable_progress_report=False).quantized_model
    (job.folder / "int8.tflite").write_bytes(quantized)


def _share_ranges(found: dict[str, dict[str, np.ndarray[Any, Any]]], job: Job) -> None:
    """found: of each tensor the smallest and the largest value, arrays of one element."""
    graph = formats.read(job.folder / "fp32.tflite")
    known = {name: name.rpartition("#")[0] for name in graph.tensors}  # the reader numbers them
    given = {
        name: (float(found[plain]["min"].min()), float(found[plain]["max"].max()))
        for name, plain in known.items()
        if plain in found and found[plain]["min"].size == 1
    }
    for name, (low, high) in ranges.shared(graph, given).items():
        entry = found[known[name]]
        entry["min"], entry["max"] = np.full_like(entry["min"], low), np.full_like(entry["max"], high)
