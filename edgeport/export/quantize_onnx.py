"""A float ONNX model -> int8 by ONNX Runtime's quantizer: QDQ, weights int8 per channel, activations by target."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData, save_tensors_data
from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX, compute_scale_zp, get_qmin_qmax_for_qType

from edgeport import formats, targets
from edgeport.export import float_layers, float_operators, joins, quantization, saturation
from edgeport.export.job import Job
from edgeport.export.quantization import Array, Layer, Sample
from edgeport.export.ranges import LEVELS, Range, Tensors
from edgeport.formats.onnx import CHANNEL_AXIS
from edgeport.records import Quantized

BIAS = 2  # which input it is
WITH_BIAS = ("Conv", "ConvTranspose", "Gemm", "LayerNormalization", "InstanceNormalization", "BatchNormalization")
NORMS = ("LayerNormalization", "InstanceNormalization", "BatchNormalization")
ACTIVATION_KINDS = ("Relu", "Clip")
PRODUCTS = ("Conv", "Gemm", "MatMul")
# Makes this machine's kernels add products as those of other targets do (onnxruntime_session_options_config_keys.h).
EXACT_PRODUCTS = "session.x64quantprecision"
MOST_COUNTED = np.iinfo(np.int32).max


def run(model: onnx.ModelProto, path: Path, job: Job) -> Quantized:
    """Writes the int8 model."""
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises a preprocessing that has already been done
    samples = list(zip(*job.samples(), strict=True))
    done = quantization.run(OnnxFile(model, path, job), samples, job)
    if job.int8_io:
        quantized = onnx.load(path)
        _strip_edges(quantized)
        onnx.save(quantized, path)
    return done


class OnnxFile:
    """model: changed in place."""

    channel_axis = CHANNEL_AXIS

    def __init__(self, model: onnx.ModelProto, path: Path, job: Job) -> None:
        self._model, self._path, self._job = model, path, job
        self._activations = QuantType.QUInt8 if targets.is_x86(job.target) else QuantType.QInt8
        self._source = path.with_name("source.onnx")
        _unshare_biases(model.graph)
        onnx.save(model, self._source)
        self.graph = formats.read(self._source)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        answers = [v.name for v in model.graph.output if v.type.tensor_type.elem_type == TensorProto.FLOAT]
        self.output_names = [name for name in answers if name not in self._constants]
        pieces = job.pieces()
        self.labels = [pieces[name] for name in self.output_names]
        self._activations_left = _activations_left(model.graph)
        self._template: tuple[tuple[str, ...], onnx.ModelProto] | None = None
        self._watch = float_operators.Watch(self.graph, self.constant, self.output_names)

    def limits(self) -> Mapping[str, Range]:
        return {node.output[0]: span for node, span in self._activations_left}

    def needs_float(self) -> list[str]:
        return list(dict.fromkeys([*self._watch.operators(), *_without_integers(self._model.graph)]))

    def layers(self) -> list[Layer]:
        readers, found = self.graph.consumers(), []
        nodes = {node.output[0]: node for node in self._model.graph.node}
        for node in self.graph.nodes:
            constants = [name for name in node.inputs[1:] if name in self._constants]
            if node.kind not in ("Conv", "Gemm", "MatMul") or len(constants) != len(node.inputs) - 1:
                continue
            following = readers.get(node.outputs[0], []) if node.outputs[0] not in self.output_names else []
            activation = following[0] if len(following) == 1 and following[0].kind in ACTIVATION_KINDS else None
            weight = self._constants[constants[0]]
            attributes = {a.name: helper.get_attribute_value(a) for a in nodes[node.outputs[0]].attribute}
            groups = attributes.get("group", 1)
            rows_first = node.kind == "Conv" or attributes.get("transB", 0)
            found.append(
                Layer(
                    name=node.name,
                    input=node.inputs[0],
                    output=activation.outputs[0] if activation else node.outputs[0],
                    weight=constants[0],
                    bias=constants[1] if len(constants) > 1 else "",
                    channel_axis=0 if rows_first else len(weight.dims) - 1,
                    depthwise=groups > 1 and weight.dims[1] == 1,
                    linear=activation is None,
                    homogeneous=activation is None or activation.kind == "Relu",
                    madds=node.madds or 0,
                )
            )
        return found

    def constant(self, name: str) -> Array:
        return numpy_helper.to_array(self._constants[name])

    def set_constant(self, name: str, value: Array) -> None:
        self._constants[name].CopyFrom(numpy_helper.from_array(value, name))
        if value.ndim > 1:  # weights; biases are counted anew for every choice of ranges
            self._template = None

    def tensors(self, samples: Sequence[Sample]) -> Iterator[Tensors]:
        floats = [n for n, t in self.graph.tensors.items() if t.dtype == "float32" and not t.constant]
        given = set(self._job.input_names)
        for sample, made in self._run(self._model, {n: n for n in floats if n not in given}, samples):
            tensors = {**{n: a for n, a in sample.items() if a.dtype == np.float32}, **made}
            self._watch.note(tensors)
            yield tensors

    def quantize(self, found: Mapping[str, Range], floats: Sequence[str]) -> Path:
        excluded = (*floats, *self._lost_activations(found))
        known = self._template is not None and self._template[0] == excluded
        # The quantizer takes ten times as long as other ranges for what it made.
        if self._template is None or not known or not self._set_ranges(self._template[1], found):
            self._template = excluded, self._quantized(found, excluded)
            self._set_ranges(self._template[1], found)  # it gives an answer the range of the ReLU that reads it
        onnx.save(self._template[1], self._path)
        return self._path

    def _lost_activations(self, found: Mapping[str, Range]) -> list[str]:
        """Names of activations that the quantizer would leave to a range that does not do what they do."""
        lost = []
        for node, (low, high) in self._activations_left:
            span = found.get(node.output[0], (0.0, 0.0))
            step = joins.width(span) / LEVELS
            if min(span[0], 0.0) < low - step / 2 or max(span[1], 0.0) > high + step / 2:
                lost.append(node.name)
        return lost

    def _set_ranges(self, model: onnx.ModelProto, found: Mapping[str, Range]) -> bool:
        """Other ranges for a quantised model, and biases, which are counted in steps of the input by the weight.

        False if a bias is too large to be counted that way: the quantizer then makes its weights' steps larger.
        """
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        makers = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
        lowest, highest = get_qmin_qmax_for_qType(self._activations.tensor_type)

        def put(name: str, value: Array) -> None:
            constants[name].CopyFrom(numpy_helper.from_array(value, name))

        left = self._watch.operators()
        softmax = {  # has 0 to 1
            node.output[0] for node in self._model.graph.node if node.op_type == "Softmax" and node.name not in left
        }
        for name in found.keys() - softmax:
            if f"{name}_scale" in constants:  # tensors whose range is another one's have none of their own
                low, high = (np.float32(end) for end in found[name])
                zero, scale = compute_scale_zp(low, high, lowest, highest)
                put(f"{name}_scale", np.asarray(scale))
                put(f"{name}_zero_point", np.asarray(zero))
        biases: dict[str, str] = {
            node.name: node.input[BIAS]
            for node in self._model.graph.node
            if node.op_type in WITH_BIAS and len(node.input) > BIAS
        }
        fits = True
        for layer in model.graph.node:
            bias = biases.get(layer.name, "")
            if bias in self._constants and layer.input[BIAS] in makers:
                stored, steps, _ = makers[layer.input[BIAS]].input
                image, weight = (makers[name].input[1] for name in layer.input[:2])
                scale, per_channel = (numpy_helper.to_array(constants[name]) for name in (image, weight))
                step = (scale * per_channel).astype(np.float32).reshape(-1)
                counted = np.round(self.constant(bias).astype(np.float64) / step)
                fits &= bool(np.abs(counted).max(initial=0) <= MOST_COUNTED)
                put(steps, step)
                put(stored, np.clip(counted, -MOST_COUNTED, MOST_COUNTED).astype(np.int32))
        float_layers.follow(constants)
        return fits

    def _quantized(self, found: Mapping[str, Range], floats: Sequence[str]) -> onnx.ModelProto:
        onnx.save(self._model, self._source)
        cached = self._path.with_name("ranges.json")
        data = {n: TensorData(lowest=np.float32(low), highest=np.float32(high)) for n, (low, high) in found.items()}
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), cached)
        quantize_static(
            self._source,
            self._path,
            calibration_cache_path=cached,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=self._activations,
            nodes_to_exclude=list(floats),
        )
        quantized = onnx.load(self._path)
        quantized.graph.ClearField("metadata_props")
        if targets.saturates(self._job.target):
            self._limit_products(quantized.graph)
        if not self._job.int8_io:
            _leave_answers(quantized.graph, self._model.graph)
        float_layers.keep(quantized.graph)
        return quantized

    def _limit_products(self, graph: onnx.GraphProto) -> None:
        """Makes the steps of weights larger where two products might not fit 16 bits. Biases are counted anew later."""
        constants = {tensor.name: tensor for tensor in graph.initializer}
        makers = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
        for layer in graph.node:
            maker = makers.get(layer.input[1]) if layer.op_type in PRODUCTS else None
            if maker is None or maker.input[0] not in constants:
                continue  # its weights are floats, or computed: unsigned by unsigned products have room
            attributes = {a.name: helper.get_attribute_value(a) for a in layer.attribute}
            stored, scale, _ = maker.input
            weights = self.constant(stored.removesuffix(TENSOR_NAME_QUANT_SUFFIX))
            if layer.op_type == "Conv" and attributes.get("group", 1) == len(weights) and weights.shape[1] == 1:
                continue  # the kernel for depthwise convolutions adds to 32 bits
            axis = next((a.i for a in maker.attribute if a.name == "axis"), 1)
            steps = numpy_helper.to_array(constants[scale])
            transposed = bool(attributes.get("transB", 0))
            for name, value in zip(
                (stored, scale), saturation.limited(weights, steps, axis, layer.op_type, transposed), strict=True
            ):
                constants[name].CopyFrom(numpy_helper.from_array(value, name))

    def outputs(self, path: Path, samples: Sequence[Sample]) -> list[list[Array]]:
        options = _options()
        if targets.needs_exact_products(self._job.target):
            options.add_session_config_entry(EXACT_PRODUCTS, "1")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        made = [dict(zip(names, session.run(None, self._fed(sample)), strict=True)) for sample in samples]
        return [[answers[name] for name in self.output_names] for answers in made]

    def quantized_tensors(self, path: Path, samples: Sequence[Sample]) -> Iterator[Tensors]:
        model = onnx.load(path)
        made_from = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
        wanted = {
            made_from[n.input[0]]: n.output[0]
            for n in model.graph.node
            if n.op_type == "DequantizeLinear" and n.input[0] in made_from
        }
        wanted |= {name: name for name in self.output_names}
        for _, made in self._run(model, wanted, samples):
            yield made

    def _run(
        self, model: onnx.ModelProto, wanted: Mapping[str, str], samples: Sequence[Sample]
    ) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        """Inputs and the wanted tensors of each sample. wanted: names in the model, by those to give them."""
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        known = {value.name for value in model.graph.output}
        more = dict.fromkeys(name for name in wanted.values() if name not in known)
        shown.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in more)
        options = _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for sample in samples:
            fed = self._fed(sample)
            yield fed, dict(zip(wanted, session.run(list(wanted.values()), fed), strict=True))

    def _fed(self, sample: Sample) -> dict[str, Array]:
        return dict(zip(self._job.input_names, sample, strict=True))


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # another converter has the other cores
    options.log_severity_level = 3
    return options


def _unshare_biases(graph: onnx.GraphProto) -> None:
    """Gives each layer a bias of its own: it is counted in the layer's steps, and equal constants have become one."""
    readers = Counter(name for node in graph.node for name in node.input)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        bias = node.input[BIAS] if node.op_type in WITH_BIAS and len(node.input) > BIAS else ""
        if bias in constants and readers[bias] > 1:
            node.input[BIAS] = f"{node.name}/bias"
            graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(constants[bias]), node.input[BIAS]))
            readers[bias] -= 1


def _without_integers(graph: onnx.GraphProto) -> list[str]:
    """Operators that the quantizer cannot make integers of.

    Of a transposed convolution of several groups it takes one group's channels for all, and fails, as it does for norms
    over several axes; no norm has a kernel for integers anyway. What a cubic resizing overshoots by, it cuts off.
    """
    return [node.name for node in graph.node if node.op_type in NORMS or _is_grouped(node) or _is_cubic(node)]


def _is_grouped(node: onnx.NodeProto) -> bool:
    return node.op_type == "ConvTranspose" and any(a.name == "group" and a.i > 1 for a in node.attribute)


def _is_cubic(node: onnx.NodeProto) -> bool:
    return node.op_type == "Resize" and any(a.name == "mode" and a.s == b"cubic" for a in node.attribute)


def _activations_left(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, Range]]:
    """Activations that the quantizer leaves to the range of their result, and the ends that they cut off at.

    It takes away each ReLU and Clip that alone reads what another operator made.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    edges = {value.name for value in (*graph.input, *graph.output)}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    return [
        (node, _ends(node, constants))
        for node in graph.node
        if node.op_type in ACTIVATION_KINDS and readers[node.input[0]] == 1 and node.input[0] not in edges
    ]


def _ends(activation: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Range:
    """Where a ReLU or Clip cuts off; no range does what computed ends do."""
    if activation.op_type == "Relu":
        return 0.0, np.inf
    low, high = (
        default if not name else float(numpy_helper.to_array(constants[name])) if name in constants else -default
        for name, default in zip([*activation.input[1:], "", ""], (-np.inf, np.inf), strict=False)
    )
    return low, high


def _leave_answers(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Answers that a linear layer makes are floats as it adds them up: the kernel need not round them to integers.

    Rounded, two classes that are a tie by the grid of 256 steps cannot be told apart. source: the float network, whose
    activation, which the quantizer left to the range, comes back.
    """
    makers = {node.output[0]: node for node in graph.node}
    activations = {node.output[0]: node for node in source.node if node.op_type in ACTIVATION_KINDS}
    readers = [name for node in graph.node for name in node.input]
    for answer in graph.output:
        dequantize = makers.get(answer.name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        quantize = makers.get(dequantize.input[0])
        layer = makers.get(quantize.input[0]) if quantize is not None else None
        if quantize is None or layer is None or layer.op_type != "Gemm":
            continue
        if any(readers.count(name) > 1 for name in (quantize.input[0], dequantize.input[0])) or answer.name in readers:
            continue
        if answer.name in activations:
            _apply_again(activations[answer.name], layer.output[0], graph, source)
        else:
            layer.output[0] = answer.name
        graph.node.remove(quantize)
        graph.node.remove(dequantize)
        for constant in [c for c in graph.initializer if c.name in quantize.input[1:]]:
            graph.initializer.remove(constant)


def _apply_again(activation: onnx.NodeProto, name: str, graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Adds an activation of the float network at the end. name: of the tensor that it is applied to."""
    copy = graph.node.add()
    copy.CopyFrom(activation)
    copy.input[0] = name
    known = {constant.name for constant in graph.initializer}
    graph.initializer.extend(c for c in source.initializer if c.name in copy.input[1:] and c.name not in known)


def _strip_edges(model: onnx.ModelProto) -> None:
    """Makes integer inputs and outputs: takes away the operators that convert them from and to floats."""
    graph = model.graph
    types = {t.name: t.data_type for t in graph.initializer}
    for value in graph.input:
        for node in [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == value.name]:
            _rename(graph, node.output[0], value.name)
            value.type.tensor_type.elem_type = types[node.input[2]]
            graph.node.remove(node)
    for value in graph.output:
        for node in [n for n in graph.node if n.op_type == "DequantizeLinear" and n.output[0] == value.name]:
            quantized, code = node.input[0], types[node.input[2]]
            if any(value.name in n.input for n in graph.node):  # the network goes on with it as floats
                _rename(graph, value.name, f"{value.name}/float")
            else:
                graph.node.remove(node)
            _rename(graph, quantized, value.name)
            value.type.tensor_type.elem_type = code
    assert all(v.type.tensor_type.elem_type != TensorProto.UNDEFINED for v in (*graph.input, *graph.output))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
