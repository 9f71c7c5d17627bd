"""fp32.tflite -> int8.tflite by ai-edge-quantizer: static, weights int8 per channel, activations int8."""

import numpy as np
from ai_edge_quantizer import qtyping, quantizer, recipe
from ai_edge_quantizer.algorithm_manager import AlgorithmName

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
    ranges = quantize.calibrate({SIGNATURE: samples}, num_threads=1)
    quantized = quantize.quantize(ranges, enable_progress_report=False).quantized_model
    (job.folder / "int8.tflite").write_bytes(quantized)
