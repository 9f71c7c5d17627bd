"""Says which operator of the network a converter's error is about, and in which module, in words for the user.

Converters name operators in their own ways: by PyTorch's name, by that of an operator that PyTorch's decomposes to, by
MLIR's, or by the line of source that called it.
"""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.fx import Graph, Node

from edgeport.export.capture import Captured
from edgeport.export.fitness import place

LONGEST_REASON = 120
NAMED = 4  # operators, and modules, that a message lists

LACKS = re.compile(r"TF Select ops: ([\w, ]+)")
ILLEGAL = re.compile(r"failed to legalize operation '([\w.]+)'")
SOURCE = re.compile(r"([\w./+-]+\.py):(\d+)")
# What these libraries print before they say anything.
PREFIXES = re.compile(r"^(\w+Error: )?(Failed to run converter passes|Failed to export flatbuffer): ?")


def explained(captured: Captured, text: str, suspects: Sequence[Node], other_formats: Sequence[str], log: Path) -> str:
    """text: the converter's error and those behind it, the root last. suspects: operators that it may be about."""
    nodes = _named(captured, text) or _located(captured.plain.graph, text) or _alike(suspects, text) or suspects
    remedy = "write that module with other operators" if nodes else "see the log"
    if other_formats:
        remedy += f", or export with --formats {','.join(other_formats)}"
    if not nodes:
        return f"the converter failed: {_reason(text)}; {remedy} (its log: {log})"
    operators, modules = (_listed(values) for values in ((str(n.target) for n in nodes), map(place, nodes)))
    return f"operator {operators} in module {modules} cannot be converted: {_reason(text)}; {remedy} (its log: {log})"


def _listed(values: object) -> str:
    names = sorted(set(values))  # type: ignore[call-overload]
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _reason(text: str) -> str:
    """One line, the converter's own words where they say something."""
    if lacks := LACKS.search(text):
        return f"TFLite's runtime has no {lacks[1].strip()} of that form"
    if illegal := ILLEGAL.search(text):
        return f"litert-torch has no TFLite form of its {illegal[1]}"
    root = PREFIXES.sub("", text.strip().splitlines()[-1] if text.strip() else "").strip()
    return root[:LONGEST_REASON] or "the converter gives no reason"


def _named(captured: Captured, text: str) -> Sequence[Node]:
    """Operators whose names stand in the text; those of the network's decomposed form if none does."""
    found = _mentioned(captured.graph.graph, text)
    if not found:
        with contextlib.suppress(Exception):  # an explanation only; the converter's text is shown in any case
            program = torch.export.export(captured.graph, captured.inputs).run_decompositions()
            found = _mentioned(program.graph, text)
    return found


def _mentioned(graph: Graph, text: str) -> list[Node]:
    text = re.sub(r"\bprims\b|\btorch\.ops\.aten\b", "aten", text.replace("::", "."))
    found = []
    for node in graph.nodes:
        name = str(node.target).rpartition(".")[0] if node.op == "call_function" else ""
        name = name.replace("prims.", "aten.")
        if name.count(".") >= 1 and re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text):
            found.append(node)
    return found


def _located(graph: Graph, text: str) -> list[Node]:
    """Operators that were called by a line of source which the text names."""
    lines = [f'{path}", line {number},' for path, number in SOURCE.findall(text)]
    traces = {node: str(node.meta.get("stack_trace") or "") for node in graph.nodes if node.op == "call_function"}
    return [node for node, trace in traces.items() if any(line in trace for line in lines)]


def _alike(suspects: Sequence[Node], text: str) -> list[Node]:
    """Operators of which the text names one of the same name in another library: tf.Conv3D for aten.conv3d."""
    words = {word.lower() for word in re.findall(r"\w+", text)}
    return [node for node in suspects if str(node.target).split(".")[1].lower() in words]
