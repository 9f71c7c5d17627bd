"""Exact rewrites of a captured graph, one a file, each found by its file's name.

A pass is a module with FORMATS (the formats that it serves, or one converter, or one kind of file), ORDER (passes run
from low to high) and run(gm), which rewrites the graph in place and returns how much it changed. Outputs stay equal
within float error.
"""

import importlib
import pkgutil
from collections.abc import Collection
from types import ModuleType

import torch.fx

from edgeport.records import Rewrite

FORMATS = ("onnx", "tflite")
INT8_ONNX_X86 = ("onnx-int8-x86",)
# Converters need them; all others only make the graph better.
REQUIRED = ("float_bounds", "make_functional")


def passes() -> list[ModuleType]:
    """All passes, in the order in which they run."""
    names = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    found = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return sorted(found, key=lambda p: (p.ORDER, p.__name__))


def run_passes(
    gm: torch.fx.GraphModule, *served: tuple[str, ...], only: Collection[str] | None = None
) -> tuple[Rewrite, ...]:
    """Runs the passes that serve exactly one of these; `only` those of these names.

    Raises RuntimeError that names the pass which failed; the graph is then left half rewritten.
    """
    done = []
    for module in passes():
        name = module.__name__.rpartition(".")[2]
        if module.FORMATS in served and (only is None or name in only):
            before = _count(gm)
            try:
                changes = int(module.run(gm))
            except Exception as e:
                raise RuntimeError(f"pass {name} failed ({type(e).__name__}: {e})") from e
            gm.graph.lint()
            gm.recompile()
            what = " ".join((module.__doc__ or "").split("\n\n")[0].split())
            done.append(Rewrite(name, what, module.FORMATS, changes, before, _count(gm)))
    return tuple(done)


def _count(gm: torch.fx.GraphModule) -> int:
    return sum(node.op == "call_function" for node in gm.graph.nodes)
