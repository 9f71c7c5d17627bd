"""Tells the shapes that TFLite gives to the tensors of a file whose sizes are open, once its inputs have theirs.

It runs by itself, python -m edgeport.formats.tflite_shapes, with the file's path and then a JSON list with the shape of
each input as arguments, since a file may crash the interpreter. It prints a JSON object: shapes by tensor number.
Where some are known only when the network has run, it runs once.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeport import lifeline
from edgeport.agent.messages import AgentError
from edgeport.agent.tensors import Tensor, filler
from edgeport.formats.graph import Graph

SECONDS = 60.0


def resolved(path: Path, graph: Graph, inputs: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name; those of the inputs alone where the interpreter does not run the file on this machine."""
    shapes = [list(inputs.get(info.name, info.shape)) for info in graph.inputs]
    argv = [sys.executable, "-m", "edgeport.formats.tflite_shapes", str(path), json.dumps(shapes)]
    known = {info.name: tuple(shape) for info, shape in zip(graph.inputs, shapes, strict=True)}
    try:
        with lifeline.held() as line:
            done = subprocess.run(argv, stdin=line, capture_output=True, timeout=SECONDS, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return known
    names = {name.rpartition("#")[2]: name for name in graph.tensors}
    return {names[i]: tuple(shape) for i, shape in told.items() if i in names} | known


def main(path: str, shapes: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """The shapes of all tensors that are known in the end."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        path,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    for given, detail in zip(shapes, interpreter.get_input_details(), strict=True):
        interpreter.resize_tensor_input(detail["index"], list(given))
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    unknown = {detail["index"] for detail in details if not _is_allocated(interpreter, detail["index"])}
    if unknown:
        _run(interpreter)
        details = interpreter.get_tensor_details()
        unknown = {i for i in unknown if not _is_allocated(interpreter, i)}
    return {d["index"]: [int(size) for size in d["shape"]] for d in details if d["index"] not in unknown}


def _is_allocated(interpreter: Any, index: int) -> bool:
    try:
        interpreter.tensor(index)()
    except ValueError:  # of a tensor that has no memory yet
        return False
    return True


def _run(interpreter: Any) -> None:
    import numpy as np

    for detail in interpreter.get_input_details():
        dtype = np.dtype(detail["dtype"])
        tensor = Tensor(detail["name"], dtype.name, list(detail["shape"]))
        values = np.frombuffer(filler(tensor), dtype).reshape(detail["shape"])
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()


if __name__ == "__main__":
    lifeline.follow()
    try:
        sys.stdout.write("\n" + json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))) + "\n")
    except (RuntimeError, ValueError, AgentError) as e:
        sys.exit(f"TFLite does not run {sys.argv[1]}: {e}")
