"""What a .onnx or .tflite file costs before it runs, layer by layer, as analysis counts a network of PyTorch.

Counted as the file has it: activations that a runtime fuses are layers of their own, and every number takes the bytes
that it is stored in. ONNX writes eight-bit arithmetic as float arithmetic between QuantizeLinear and DequantizeLinear:
those are taken to be part of the operators between them, which then read and write eight bits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import msgspec

from edgeport import formats
from edgeport.attribution import Modules, class_of, plain
from edgeport.attribution.shuffles import RESHAPES
from edgeport.cost import DTYPE_BYTES, elementwise_products, memory_access
from edgeport.errors import UsageError
from edgeport.formats import Graph, Node, Tensor
from edgeport.layers import Analysis, Layer, Shape, find_blocks

# ONNX Runtime's quantised operators have their weights behind scales and zero points; TFLite's transposed convolution
# has its data last.
WEIGHTS = {"qlinearconv": 3, "qgemm": 3, "qlinearmatmul": 3}
DATA = {"transposeconv": 2}
CONVOLUTIONS = (
    *("conv", "fusedconv", "qlinearconv", "convinteger", "nhwcfusedconv", "convtranspose"),
    *("conv2d", "conv3d", "depthwiseconv2d", "transposeconv"),
)
TRANSPOSED = ("convtranspose", "transposeconv")
WHOLE = (
    *("softmax", "logsoftmax", "layernormalization", "skiplayernormalization", "simplifiedlayernormalization"),
    *("instancenormalization", "groupnormalization", "rmsnormalization", "l2normalization", "lpnormalization", "lrn"),
    *("localresponsenormalization",),
)
POOLING = (
    *("averagepool", "maxpool", "globalaveragepool", "globalmaxpool", "averagepool2d", "maxpool2d", "mean", "argmax"),
    *("qlinearaveragepool", "qlinearglobalaveragepool", "reducemean", "reducesum", "reducemax", "reducemin", "argmin"),
    *("reduceprod", "resize", "upsample", "resizebilinear", "resizenearestneighbor", "topk", "topkv2"),
)
QUANTIZING = ("quantizelinear", "dequantizelinear")
MOST_ELEMENTS = 2**62  # of a tensor, beyond which its size is taken for no size
WEIGHT_TYPES = ("float16", "bfloat16", "float32", "float64", "int4", "uint4", "int8", "uint8")


def analyse_file(
    path: Path, model: str, shapes: Mapping[str, Shape] | None = None, *, count_products: bool = False
) -> Analysis:
    """model: the name to show. shapes: of inputs whose sizes the file leaves open, by name ("" for the only one).
    count_products: element-wise products are multiply-adds too.

    Raises ModelFileError for what is no such file, UsageError for shapes that do not fit its inputs.
    """
    graph = formats.read(path)
    if shapes:
        asked = _by_input(path, graph, shapes)
        graph = formats.read(path, asked)
        wrong = [i.name for i in graph.inputs if i.name in asked and i.shape != asked[i.name]]
        if wrong:
            raise UsageError(
                f"--input-shape {wrong[0]}: the sizes inside {path} do not follow from its inputs'; inspect it "
                "without --input-shape"
            )
    return analyse_graph(graph, model, count_products=count_products)


def analyse_graph(graph: Graph, model: str, *, count_products: bool = False) -> Analysis:
    counter = _Counter(graph, count_products)
    layers = {node.index: counter.layer(node) for node in graph.nodes}
    makers = {name: node.index for name, node in graph.producers().items()}
    inputs = {n.index: tuple(makers[i] for i in n.inputs if i in makers) for n in graph.nodes}
    joining = {n.index for n in graph.nodes if sum(not counter.is_constant(i) for i in n.inputs) > 1}
    told = any(node.module for node in graph.nodes)
    return Analysis(
        model=model,
        params=counter.parameters(),
        layers=tuple(layers.values()),
        blocks=tuple(find_blocks(layers, inputs, joining)) if told else (),
        unknown=dict(Counter(layer.type for layer in layers.values() if not layer.is_counted)),
        counts_products=count_products,
        format=graph.format,
        open_inputs=tuple((i.name, i.shape) for i in graph.inputs if min(i.shape, default=1) < 1),
        tells_modules=told,
    )


class _Counter:
    """Makes layers of a graph's operators."""

    def __init__(self, graph: Graph, count_products: bool) -> None:
        self.graph, self.count_products = graph, count_products
        self.producers, self.consumers = graph.producers(), graph.consumers()
        self.modules = Modules(graph)
        self.sources: dict[str, str] = {}  # the tensor that each one is stored as
        self.constant = {name for name, tensor in graph.tensors.items() if tensor.constant}
        for node in graph.nodes:
            if node.inputs and self.constant.issuperset(node.inputs):
                self.constant.update(node.outputs)

    def is_constant(self, name: str) -> bool:
        return name in self.constant

    def parameters(self) -> int:
        """Elements of the file's constants that are numbers of the network: no sizes, scales or zero points."""
        used = {name for node in self.graph.nodes for name in self._weights(node)}
        return sum(prod(self.graph.tensors[name].shape or (0,)) for name in used)

    def _weights(self, node: Node) -> list[str]:
        kind, heavy = plain(node.kind), class_of(node.kind) == "conv"
        names = node.inputs[:1] if kind in QUANTIZING else node.inputs
        if kind.startswith("qlinear") or kind == "qgemm":
            names = tuple(n for i, n in enumerate(node.inputs) if i in (WEIGHTS.get(kind, 0), 8))
        found = []
        for name in names:
            tensor = self.graph.tensors.get(name)
            if tensor is None or not tensor.constant or _size(tensor.shape) is None:
                continue
            numeric = tensor.dtype in WEIGHT_TYPES or (tensor.dtype == "int32" and (heavy or kind in QUANTIZING))
            if numeric and (heavy or kind in QUANTIZING or prod(tensor.shape or ()) > 1):
                found.append(name)
        return found

    def layer(self, node: Node) -> Layer:
        kind = plain(node.kind)
        if kind in QUANTIZING and self._is_part(node):
            return self._layer(node, "movement", node.kind, writes=False, moved_bytes=0, written_bytes=0)
        if kind in CONVOLUTIONS:
            return self._convolution(node)
        if class_of(node.kind) == "conv":
            return self._product(node)
        return self._other(node, kind)

    def _is_part(self, node: Node) -> bool:
        """Of the operators that it stands between: not where the network itself begins, ends or computes in float."""
        if plain(node.kind) == "dequantizelinear":
            return bool(self.consumers.get(node.outputs[0])) if node.outputs else False
        return any(name in self.producers for name in node.inputs[:1])

    def _stored(self, name: str) -> Tensor | None:
        """A tensor as it is read: what a DequantizeLinear gives is stored in eight bits before that."""
        seen: list[str] = []
        while name not in self.sources:
            seen.append(name)
            self.sources[name] = name  # which ends a circle
            maker = self.producers.get(name)
            if maker is not None and plain(maker.kind) == "dequantizelinear" and maker.inputs:
                name = maker.inputs[0]
        source = self.sources[name]
        self.sources |= dict.fromkeys(seen, source)
        return self.graph.tensors.get(source)

    def _written(self, name: str) -> Tensor | None:
        """A tensor as it is written: in eight bits where nothing but a QuantizeLinear reads it."""
        readers = self.consumers.get(name, [])
        if len(readers) == 1 and plain(readers[0].kind) == "quantizelinear" and readers[0].outputs:
            name = readers[0].outputs[0]
        return self.graph.tensors.get(name)

    def _layer(self, node: Node, kind: str, type_: str, **fields: object) -> Layer:
        shapes = tuple(_shape(self.graph.tensors.get(name)) or () for name in node.inputs if not self.is_constant(name))
        output = _shape(self.graph.tensors.get(node.outputs[0])) if node.outputs else None
        layer = Layer(module=self.modules.of(node) or "", kind=kind, type=type_, inputs=shapes, output=output or ())
        return msgspec.structs.replace(layer, **fields)

    def _unknown(self, node: Node, kind: str, type_: str) -> Layer:
        return self._layer(node, kind, type_, known=False)

    def _convolution(self, node: Node) -> Layer:
        kind = plain(node.kind)
        transposed, first = kind in TRANSPOSED, self.graph.channel_axis == 1
        at, weight_at = DATA.get(kind, 0), WEIGHTS.get(kind, 1)
        if max(at, weight_at) >= len(node.inputs) or not node.outputs:
            return self._unknown(node, "conv", node.kind)
        data, weight = self._stored(node.inputs[at]), self._stored(node.inputs[weight_at])
        out = self._written(node.outputs[0])
        x, w, y = _shape(data), _shape(weight), _shape(out)
        if not (x and w and y and data and weight and out) or not len(x) == len(w) == len(y) >= 3 or not node.madds:
            return self._unknown(node, "conv", node.kind)
        axis = 1 if first else -1
        kernel = w[2:] if first else w[:-2] if kind == "conv3d" else w[1:-1]
        channels, groups = (x[axis], y[axis]), _groups(kind, w, x[axis], y[axis])
        area, input_area, taps = prod(y) // y[axis], prod(x) // x[axis], prod(kernel)
        read = input_area if transposed else min(input_area, area * taps)
        depthwise = groups > 1 and groups == channels[0]
        prefix = "Conv DW" if depthwise else "Conv group" if groups > 1 else "Conv"
        items = [DTYPE_BYTES.get(t.dtype, 0) for t in (data, out, weight)]
        elements = (read * channels[0], prod(y), prod(w))
        return self._layer(
            node,
            "conv",
            f"{'Transposed ' * transposed}{prefix} {'x'.join(map(str, kernel))}",
            params=prod(w),
            madds=node.madds,
            mac=memory_access(area, *channels, taps, groups, read),
            channels=channels,
            area=area,
            taps=taps,
            groups=groups,
            moved_bytes=int(sum(n * item for n, item in zip(elements, items, strict=True))),
            written_bytes=out.nbytes,
        )

    def _product(self, node: Node) -> Layer:
        weight_at = WEIGHTS.get(plain(node.kind), 1)
        tensors = self._operands(node)
        out = self._written(node.outputs[0]) if node.outputs else None
        shape = _shape(out)
        if out is None or not shape or node.madds is None or not tensors or weight_at >= len(node.inputs):
            return self._unknown(node, "matmul", node.kind)
        weight = self._stored(node.inputs[weight_at])
        fixed = self.is_constant(node.inputs[weight_at]) and weight is not None
        size = prod(_shape(weight) or ()) if fixed else 0
        maps = [t for name, t in tensors if not self.is_constant(name)]
        ins, outs = node.madds // (prod(shape) or 1), shape[-1]
        read = _bytes([*maps, *([weight] if fixed and weight else [])])
        written = _bytes([out])
        if read is None or written is None:
            return self._unknown(node, "matmul", node.kind)
        shared = {"madds": node.madds, "params": size, "moved_bytes": read + written, "written_bytes": written}
        if not fixed:
            mac = sum(prod(_shape(t) or ()) for t in maps) + prod(shape)
            return self._layer(node, "matmul", "MatMul", mac=mac, **shared)
        rows = prod(shape) // (outs or 1)
        mac = memory_access(rows, ins, outs)
        return self._layer(node, "linear", "FC", mac=mac, channels=(ins, outs), area=rows, **shared)

    def _other(self, node: Node, name: str) -> Layer:
        kind = _kind(name)
        writes = name not in RESHAPES
        maps = [tensor for i, tensor in self._operands(node) if not self.is_constant(i)]
        outs = [tensor for tensor in map(self._written, node.outputs) if tensor is not None]
        sizes = [_size(tensor.shape) for tensor in (*maps, *outs)]
        read, made = _bytes(maps), _bytes(outs)
        if kind == "unknown" or None in sizes or not outs or read is None or made is None:
            return self._unknown(node, kind, node.kind)
        written = made if writes else 0
        is_product = name in ("mul", "qlinearmul") and len(maps) > 1
        products = elementwise_products(outs[0].shape or ()) if is_product else 0
        return self._layer(
            node,
            kind,
            node.kind,
            madds=products if self.count_products else 0,
            products=products,
            mac=sum(size or 0 for size in sizes) if writes else 0,
            writes=writes,
            moved_bytes=read + written if writes else 0,
            written_bytes=written,
        )

    def _operands(self, node: Node) -> list[tuple[str, Tensor]]:
        """What it reads, by name, as it is stored."""
        stored = ((name, self._stored(name)) for name in node.inputs)
        return [(name, tensor) for name, tensor in stored if tensor is not None]


def _kind(name: str) -> str:
    if name in POOLING:
        return "pooling"
    if name in WHOLE or class_of(name) == "elemwise":
        return "elementwise"
    return "movement" if class_of(name) == "data" else "unknown"


def _groups(kind: str, weight: Shape, inputs: int, outputs: int) -> int:
    """From the channels of the weights, whose layouts are those of ONNX and of TFLite's schema."""
    if kind == "depthwiseconv2d":
        return inputs
    if kind == "convtranspose":
        return max(1, outputs // weight[1])
    if kind in ("conv2d", "conv3d", "transposeconv"):
        return max(1, inputs // weight[-2 if kind == "conv3d" else -1])
    return max(1, inputs // weight[1])


def _shape(tensor: Tensor | None) -> Shape | None:
    """None where a size is open, unknown, or too large to be one."""
    return tensor.shape if tensor is not None and _size(tensor.shape) else None


def _size(shape: Shape | None) -> int | None:
    if shape is None or len(shape) > 16 or min(shape, default=1) < 0:
        return None
    size = prod(shape)
    return size if size < MOST_ELEMENTS else None


def _by_input(path: Path, graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Sequence[int]]:
    names = [info.name for info in graph.inputs]
    wrong = sorted(set(shapes) - {*names, ""})
    if wrong:
        raise UsageError(f"--input-shape: {path} has no input {wrong[0]!r}; it has {', '.join(names)}")
    if "" in shapes and len(names) != 1:
        raise UsageError(f"--input-shape: {path} has {len(names)} inputs; write {'=SIZES, '.join(names)}=SIZES")
    return {name or names[0]: shape for name, shape in shapes.items()}


def _bytes(tensors: Sequence[Tensor]) -> int | None:
    """Of all of them, None if one's is not known."""
    known = [tensor.nbytes for tensor in tensors if tensor.nbytes is not None]
    return sum(known) if len(known) == len(tensors) else None
