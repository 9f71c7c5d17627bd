"""How the static analysis of networks is shown: as tables, or as one JSON document a network."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from edgeport import guidelines
from edgeport.analysis import Analysis, Layer
from edgeport.breakdown import module_label
from edgeport.records import SCHEMA
from edgeport.reports import View, as_csv, as_markdown, as_table
from edgeport.reports.rows import Table

BY = ("type", "layer", "module")
GUIDELINES = ("G1", "G2", "G3", "G4")


class Sum(msgspec.Struct, frozen=True):
    """Layers added up under one name."""

    name: str
    params: int
    madds: int
    mac_bytes: int
    layers: int


def render(analyses: Sequence[Analysis], format: str, view: View) -> str:
    """format: json, csv, or one that draws tables."""
    if format == "json":
        documents = [document(analysis) for analysis in analyses]
        data = msgspec.json.encode(documents[0] if len(documents) == 1 else documents)
        return msgspec.json.format(data, indent=1).decode() + "\n"
    if format == "csv":
        return as_csv.draw([_detail(analyses[0], view)] if len(analyses) == 1 else [_comparison(analyses)], view)
    draw = {"table": as_table.draw, "markdown": as_markdown.draw}[format]
    return draw(tables(analyses, view), view)


def tables(analyses: Sequence[Analysis], view: View) -> list[Table]:
    """One network in detail, or several side by side."""
    if len(analyses) > 1:
        return [_comparison(analyses)]
    analysis = analyses[0]
    return [_comparison(analyses), _detail(analysis, view), _findings(analysis, view)]


def _detail(analysis: Analysis, view: View) -> Table:
    return {"type": _types, "layer": _layers, "module": _modules}[view.by](analysis, view)


def document(analysis: Analysis) -> dict[str, Any]:
    """layer_types: weighted layers only, params without bias and batch normalisation, as MobileNet's Table 2 counts."""
    types = by_type(analysis)
    weights, madds = sum(t.params for t in types), analysis.madds
    return {
        "schema": SCHEMA,
        "model": analysis.model,
        "params": analysis.params,
        "madds": madds,
        "mac_bytes": analysis.mac_bytes,
        "activation_bytes": analysis.activation_bytes,
        "arithmetic_intensity": madds / analysis.mac_bytes if analysis.mac_bytes else None,
        "layer_types": [
            {
                "type": t.name,
                "params": t.params,
                "params_share": t.params / weights if weights else 0.0,
                "madds": t.madds,
                "madds_share": t.madds / madds if madds else 0.0,
            }
            for t in types
        ],
        "guidelines": {**msgspec.to_builtins(guidelines.score(analysis))},
        "findings": guidelines.findings(analysis),
        "unknown_operators": analysis.unknown,
        "layers": [{**msgspec.to_builtins(layer), "mac_bytes": layer.mac_bytes} for layer in analysis.layers],
    }


def by_type(analysis: Analysis) -> list[Sum]:
    weighted = (layer for layer in analysis.layers if layer.kind in ("conv", "linear", "matmul"))
    return _added(weighted, lambda layer: layer.type)


def _added(layers: Iterable[Layer], name: Callable[[Layer], str]) -> list[Sum]:
    """Most multiply-adds first."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(name(layer), []).append(layer)
    sums = [
        Sum(key, sum(l.weights for l in g), sum(l.madds for l in g), sum(l.mac_bytes for l in g), len(g))
        for key, g in groups.items()
    ]
    return sorted(sums, key=lambda s: -s.madds)


def _comparison(analyses: Sequence[Analysis]) -> Table:
    header = ("model", "params", "MMAdds", "activations MB", "MAC MB", "MAdds/byte", "MAC/bound", *GUIDELINES)
    rows = []
    for analysis in analyses:
        score = guidelines.score(analysis)
        kept = ["kept" if name in score.follows else "broken" for name in GUIDELINES]
        figures = (analysis.madds / 1e6, analysis.activation_bytes / 1e6, analysis.mac_bytes / 1e6)
        intensity = analysis.madds / analysis.mac_bytes if analysis.mac_bytes else 0.0
        numbers = (f"{f:.2f}" for f in (*figures, intensity, score.mac_over_bound))
        rows.append((analysis.model, f"{analysis.params:,}", *numbers, *kept))
    title = "what runs, batch normalisation folded, fp32; guidelines of ShuffleNetV2"
    notes = [
        f"{a.model}: not counted: {', '.join(f'{o} x{n}' for o, n in a.unknown.items())}" for a in analyses if a.unknown
    ]
    return Table("\n".join([title, *notes]), header, tuple(rows), tuple(range(1, 7)), (3, 5, 6, 4))


def _types(analysis: Analysis, view: View) -> Table:
    return _sums(f"{analysis.model} by layer type (params: weights alone)", by_type(analysis), analysis)


def _modules(analysis: Analysis, view: View) -> Table:
    sums = _added(analysis.layers, lambda layer: module_label(layer.module, view.depth))
    return _sums(f"{analysis.model} by module to depth {view.depth} (params: weights alone)", sums, analysis)


def _sums(title: str, sums: Sequence[Sum], analysis: Analysis) -> Table:
    header = ("name", "layers", "params", "share", "MMAdds", "share", "MAC MB", "share")
    weights = sum(layer.weights for layer in analysis.layers) or 1
    madds, mac = analysis.madds or 1, analysis.mac_bytes or 1
    rows = tuple(
        (
            *(s.name, str(s.layers), f"{s.params:,}", f"{s.params / weights:.2%}"),
            *(f"{s.madds / 1e6:.2f}", f"{s.madds / madds:.2%}", f"{s.mac_bytes / 1e6:.2f}", f"{s.mac_bytes / mac:.2%}"),
        )
        for s in sums
    )
    return Table(title, header, rows, tuple(range(1, 8)), (1, 3, 7, 6))


def _layers(analysis: Analysis, view: View) -> Table:
    header = ("module", "type", "output", "channels", "groups", "params", "MMAdds", "MAC MB", "MAdds/byte")
    rows = tuple(
        (
            *(layer.module or "(network)", layer.type, "x".join(map(str, layer.output))),
            f"{layer.channels[0]} -> {layer.channels[1]}" if any(layer.channels) else "",
            str(layer.groups) if layer.kind == "conv" else "",
            *(f"{layer.weights:,}" if layer.weights else "", f"{layer.madds / 1e6:.2f}" if layer.madds else ""),
            f"{layer.mac_bytes / 1e6:.3f}" if layer.mac else "",
            f"{layer.madds / layer.mac_bytes:.2f}" if layer.madds else "",
        )
        for layer in analysis.layers
        if layer.kind != "movement" or layer.mac
    )
    return Table(
        f"{analysis.model}, layers in the order in which they run", header, rows, (4, 5, 6, 7, 8), (8, 4, 7, 3)
    )


def _findings(analysis: Analysis, view: View) -> Table:
    found = guidelines.findings(analysis)
    shown = found[: view.top] if view.top else found
    score = guidelines.score(analysis)
    kept = ", ".join(score.follows) or "none"
    title = f"guidelines kept: {kept}; costliest departures, {len(shown)} of {len(found)}"
    rows = tuple((f.guideline, f.module or "(network)", f"{f.cost_bytes / 1e6:.3f}", f.reason) for f in shown)
    return Table(title, ("guideline", "module", "MB", "why"), rows, (2,))
