"""Holds the modules that profiles name against those that are right, for networks that are hard to trace.

Each network is exported and profiled in both runtimes and precisions. right_modules.py says what is right, by the
numbers. It fails where a network that takes 1 ms or more has less than 98% of its operators' time in the right module.

    python scripts/check_attribution.py [NETWORK ...] [--small] [--catalogue] [--verbose]
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import module_networks
import msgspec
import numpy as np
import onnx
import right_modules
import torch
from module_networks import SIZES
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeport import attribution, catalog, formats, measure, protocol
from edgeport.attribution import Attributed, Row
from edgeport.export import bundle, capture
from edgeport.export.layout import channels_last
from edgeport.formats import Graph
from edgeport.kit import RUNTIME_OF
from edgeport.progress import Silent
from edgeport.records import ExportOptions
from edgeport.runner import Runner, local_runner

LEAST_SHARE, LEAST_MS, RUNS = 0.98, 1.0, 5
Arrays = dict[str, NDArray[Any]]


class Wrong(msgspec.Struct, frozen=True):
    """An operator whose module is none of the right ones."""

    name: str
    op: str
    module: str | None
    right: tuple[str, ...]
    us: float


class Judged(msgspec.Struct, frozen=True):
    """One file: its operators' time, and what of it is in a wrong module or in none. unknown: us of operators of
    which it cannot be said what is right; they count as right where they have a module.
    """

    us: float
    unknown_us: float
    wrong: tuple[Wrong, ...]

    @property
    def share(self) -> float:
        return 1 - sum(w.us for w in self.wrong) / self.us


def judge_file(path: Path, network: nn.Module, inputs: Sequence[Tensor], runner: Runner) -> Judged:
    """Profiles the file, and runs it beside PyTorch."""
    graph = formats.read(path)
    values, rough = right_modules.trace(network, inputs), measure.precision_of(graph) == "int8"
    with tempfile.TemporaryDirectory() as folder:
        rows, ran = profile(path, runner, Path(folder, "ran.onnx"))
        if ran is None:
            right = right_modules.Right(values, graph, rough, litert_arrays(path, graph, inputs))
            found = attribution.attribute(rows, graph, None)
            return _judged(found, [right.modules(a.node) if a.node else set() for a in found])
        optimized = formats.read(ran)
        right = right_modules.Right(values, optimized, rough, onnxruntime_arrays(ran, inputs))
        found = attribution.attribute(rows, graph, optimized)
        nodes = attribution.pair_with_optimized(rows, optimized)
        return _judged(found, [right.modules(n) if n else set() for n in nodes])


def _judged(found: Sequence[Attributed], right: Sequence[set[str]]) -> Judged:
    wrong = tuple(
        Wrong(a.row.name, a.row.op or (a.node.kind if a.node else ""), a.module, tuple(sorted(r)), a.row.us)
        for a, r in zip(found, right, strict=True)
        if a.module is None or (r and a.module not in r)
    )
    unknown = sum(a.row.us for a, r in zip(found, right, strict=True) if not r and a.module is not None)
    return Judged(sum(a.row.us for a in found), unknown, wrong)


def profile(path: Path, runner: Runner, ran: Path) -> tuple[list[Row], Path | None]:
    """What the runtime's profiler reports, and the graph that ONNX Runtime made of the file."""
    options = [f"--num-runs={RUNS}", "--warmup-runs=2", "--num-threads=1"]
    with runner.transport.folder() as folder:
        message = runner.run("ops", RUNTIME_OF[path.suffix], path, [*options, f"--scratch={folder}"])[protocol.Ops]
        if message.optimized_model:
            runner.transport.get(message.optimized_model, ran)
    rows = []
    for row in message.rows:
        if row.source not in ("invoke", "between"):
            us = sum(row.us) / len(row.us)
            shapes = tuple(shape for output in row.outputs for shape in output.values())
            rows.append(Row(name=row.name, source=row.source, index=row.index, us=us, op=row.op, outputs=shapes))
    return rows, ran if message.optimized_model else None


def litert_arrays(path: Path, graph: Graph, inputs: Sequence[Tensor]) -> Arrays:
    """Every tensor of the file, as real numbers."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    feeds = {}
    for info, tensor in zip(graph.inputs, inputs, strict=True):
        array = tensor.numpy().transpose(channels_last(tensor.dim()))
        if info.quantization:
            array = np.round(array / info.quantization.scale) + info.quantization.zero_point
        feeds[info.name] = array.astype(info.dtype)
    runner(**feeds)
    arrays = {}
    for detail in interpreter.get_tensor_details():
        name = f"{detail['name']}#{detail['index']}"
        kept = graph.tensors.get(name)
        if kept is not None and not kept.constant:
            try:
                arrays[name] = interpreter.get_tensor(detail["index"])
            except ValueError:  # a tensor that an operator left out
                continue
    return arrays


def onnxruntime_arrays(path: Path, inputs: Sequence[Tensor]) -> Arrays:
    """Every tensor of what ONNX Runtime made of a file, which runs here as it is."""
    import onnxruntime as ort

    model = onnx.load(path)
    there = {o.name for o in model.graph.output}
    names = [o for node in model.graph.node for o in node.output if o and o not in there]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    plain = ort.SessionOptions()
    plain.graph_optimization_level, plain.log_severity_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 3
    session = ort.InferenceSession(model.SerializeToString(), plain, providers=["CPUExecutionProvider"])
    feeds = {i.name: t.numpy() for i, t in zip(session.get_inputs(), inputs, strict=True)}
    outputs = [o.name for o in session.get_outputs()]
    return {**dict(zip(outputs, session.run(outputs, feeds), strict=True)), **feeds}


def samples(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Inputs whose numbers tell values apart: a later input of integers is a mask, with padding at its end."""
    made = []
    generator = torch.Generator().manual_seed(1)
    for n, tensor in enumerate(tensors):
        if tensor.dtype.is_floating_point:
            made.append(torch.randn(tensor.shape, generator=generator))
        elif n:
            made.append((torch.arange(tensor.numel()) < tensor.numel() * 3 // 4).view(tensor.shape).to(tensor.dtype))
        else:
            made.append(torch.randint(0, 200, tensor.shape, generator=generator, dtype=tensor.dtype))
    return tuple(made)


def judge(source: str, arguments: dict[str, int], shapes: Sequence[str], folder: Path | None) -> dict[str, Judged]:
    """A factory's network: each of its files, by what stands after the network's name."""
    runner = local_runner()
    assignments = tuple(f"{k}={v}" for k, v in arguments.items())
    factory = catalog.find_factory(source)
    network = capture.make_network(factory, catalog.parse_arguments(factory, assignments), None)
    inputs = samples(capture.example_inputs(factory, shapes))
    if folder is None:
        folder = export(source, assignments, shapes, runner)
    files = sorted(p for p in folder.iterdir() if p.suffix in RUNTIME_OF)
    return {p.name.split(".", 1)[1]: judge_file(p, network, inputs, runner) for p in files}


def export(source: str, assignments: Sequence[str], shapes: Sequence[str], runner: Runner) -> Path:
    from edgeport.cli.export import make_request

    how = ExportOptions(assignments=tuple(assignments), input_shapes=tuple(shapes), min_sqnr_db=-100.0)
    request = make_request(source, **msgspec.structs.asdict(how), formats="onnx,tflite", precisions="fp32,int8")
    return bundle.export_cached(request, runner, Silent())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"Default: all of {', '.join(SIZES)}.")
    parser.add_argument("--small", action="store_true", help="the sizes of the tests, which must not fail")
    parser.add_argument("--catalogue", action="store_true", help="the networks of edgeport's catalogue")
    parser.add_argument("--exports", type=Path, help="a folder that has each network's export already")
    parser.add_argument("--verbose", action="store_true", help="list the operators that are wrong")
    args = parser.parse_args()
    failed = False
    for name in args.networks or (catalog.model_names() if args.catalogue else SIZES):
        small, small_shapes, large, large_shapes = SIZES.get(name, ({}, (), {}, ()))
        arguments, shapes = (small, small_shapes) if args.small else (large, large_shapes)
        source = f"{module_networks.__file__}:{name}" if name in SIZES else name
        folder = args.exports / name if args.exports else None
        for file, judged in judge(source, arguments, shapes, folder).items():
            is_wrong = judged.share < LEAST_SHARE and judged.us >= 1e3 * LEAST_MS
            failed |= is_wrong
            print(
                f"{name:12} {file:12} {judged.us / 1e3:8.2f} ms  right {judged.share:7.2%}"
                f"  not told {judged.unknown_us / judged.us:6.2%}{'  FAILED' if is_wrong else ''}",
                flush=True,
            )
            for w in sorted(judged.wrong, key=lambda w: -w.us)[: None if args.verbose else 0]:
                print(f"    {w.us:8.1f} us {w.op} {w.name!r}: {w.module!r} is not of {w.right}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
