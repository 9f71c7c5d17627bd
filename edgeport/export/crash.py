"""Finds the operator of a .tflite file at which the runtime ends its process, by halving.

`python -m edgeport.export.crash FILE SAMPLES COUNT` runs the first COUNT operators of the file, alone.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgeport import formats, lifeline
from edgeport.export.job import channels_last
from edgeport.formats.names import module_of

MOST_SAMPLES = 4
SLOWEST_S = 60.0
CRASHES = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


def is_crash(code: int) -> bool:
    """Whether a process ended by a fault of its own. code: its return code as subprocess gives it."""
    return -code in CRASHES


def told(code: int) -> str:
    """How a process ended, by the same."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    names = {s.value: s.name for s in signal.Signals}
    return f"its process was ended by {names.get(-code, f'signal {-code}')}"


def operator(path: Path, samples: Path) -> str | None:
    """The operator, its name and its module; None where the file is none, or runs to its end.

    samples: an .npz with an array an input, (samples, *shape), in PyTorch's layout.
    """
    if not path.is_file():
        return None
    nodes = formats.read(path).nodes
    count = least(len(nodes), lambda count: _ends(path, samples, count))
    if count is None:
        return None
    node = nodes[count - 1]
    module = module_of(node.name)
    where = "" if module is None else f" in module {module or '(the network itself)'}"
    return f"operator {node.kind} ({node.name}){where}"


def least(most: int, ends: Callable[[int], bool]) -> int | None:
    """The smallest count of 1 to most that ends the process; None if even most does not. All above it do."""
    if not most or not ends(most):
        return None
    runs, high = 0, most
    while high - runs > 1:
        middle = (runs + high) // 2
        runs, high = (runs, middle) if ends(middle) else (middle, high)
    return high


def _ends(path: Path, samples: Path, count: int) -> bool:
    command = [sys.executable, "-m", "edgeport.export.crash", str(path), str(samples), str(count)]
    try:
        with lifeline.held() as line:
            done = subprocess.run(
                command,
                check=False,
                stdin=line,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SLOWEST_S,
            )
    except subprocess.TimeoutExpired:
        return False
    return is_crash(done.returncode)


def main(path: str, samples: str, count: str) -> int:
    """Runs the first operators of the file on a few samples."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(path)
    subgraph = model.subgraphs[0]
    subgraph.operators = subgraph.operators[: int(count)]
    subgraph.outputs = subgraph.operators[-1].outputs
    model.signatureDefs = None
    interpreter = Interpreter(model_content=bytes(flatbuffer_utils.convert_object_to_bytearray(model)), num_threads=1)
    interpreter.allocate_tensors()
    with np.load(samples) as archive:
        arrays = [channels_last(archive[name][:MOST_SAMPLES]) for name in archive.files]
    for sample in zip(*arrays, strict=True):
        for details, array in zip(interpreter.get_input_details(), sample, strict=True):
            interpreter.set_tensor(details["index"], array.astype(details["dtype"]))
        interpreter.invoke()
    return 0


if __name__ == "__main__":
    lifeline.follow()
    sys.exit(main(*sys.argv[1:]))
