"""How the static analysis of networks is shown: as tables, or as one JSON document a network.

Every figure of a layer, a sum or a network is in one record, a flat dict: JSON and CSV are the records, tables what
people read of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from edgeport import cleaning, guidelines
from edgeport.analysis import Analysis, Layer
from edgeport.breakdown import ROOT, module_label
from edgeport.records import SCHEMA
from edgeport.reports import View, as_csv, as_markdown, as_table
from edgeport.reports.rows import Table

BY = ("type", "layer", "module")
FORMATS = ("table", "json", "csv", "markdown")
GUIDELINES = ("G1", "G2", "G3", "G4")

Record = dict[str, Any]


def render(analyses: Sequence[Analysis], format: str, view: View) -> str:
    """One network in detail; several side by side, and each in detail if the view says by what (else it is "")."""
    if format == "json":
        documents = [document(analysis, view.depth) for analysis in analyses]
        return cleaning.as_json(documents[0] if len(documents) == 1 else documents)
    if format == "csv":
        return _csv(analyses, view)
    draw = {"table": as_table.draw, "markdown": as_markdown.draw}[format]
    return draw(tables(analyses, view), view)


def tables(analyses: Sequence[Analysis], view: View) -> list[Table]:
    found = [_comparison(analyses)]
    for analysis in analyses if view.by or len(analyses) == 1 else ():
        found += [_detail(analysis, view), _verdicts(analysis), _findings(analysis, view)]
    return [table for table in found if table.rows]


# Records


def document(analysis: Analysis, depth: int) -> Record:
    """layer_types: layers with multiply-adds, params without bias and batch normalisation, as in MobileNet's Table 2;
    other_types: the operators without. depth: of the modules.
    """
    score = guidelines.score(analysis)
    return {
        "schema": SCHEMA,
        **_network(analysis),
        "layer_types": by_type(analysis),
        "other_types": by_other_type(analysis),
        "modules": by_module(analysis, depth),
        "guidelines": {**msgspec.to_builtins(score), "follows": score.follows},
        "findings": guidelines.findings(analysis),
        "blocks": analysis.blocks,
        "unknown_operators": analysis.unknown,
        "layers": [_layer(layer) for layer in analysis.layers],
    }


def by_type(analysis: Analysis) -> list[Record]:
    return _added(analysis, (layer for layer in analysis.layers if layer.madds), "type", lambda layer: layer.type)


def by_other_type(analysis: Analysis) -> list[Record]:
    """Most memory access first."""
    others = [layer for layer in _shown(analysis) if not layer.madds]
    records = _added(analysis, others, "type", lambda x: f"not counted: {x.type}" if x.kind == "unknown" else x.type)
    return sorted(records, key=lambda record: -record["mac_bytes"])


def by_module(analysis: Analysis, depth: int) -> list[Record]:
    return _added(analysis, analysis.layers, "module", lambda layer: module_label(layer.module, depth))


def _network(analysis: Analysis) -> Record:
    return {
        "model": analysis.model,
        "params": analysis.params,
        "madds": analysis.madds,
        "products": analysis.products,
        "madds_include_products": analysis.counts_products,
        "activation_bytes": analysis.activation_bytes,
        "mac_bytes": analysis.mac_bytes,
        "arithmetic_intensity": _ratio(analysis.madds, analysis.mac_bytes),
    }


def _layer(layer: Layer) -> Record:
    """What an operator that is not known costs is null, not 0."""
    known = layer.kind != "unknown"
    inputs, outputs = layer.channels or (None, None)
    return {
        "module": layer.module,
        "kind": layer.kind,
        "type": layer.type,
        "inputs": layer.inputs,
        "output": layer.output,
        "input_channels": inputs,
        "output_channels": outputs,
        "channel_ratio": layer.channel_ratio,
        "groups": layer.groups if layer.kind == "conv" else None,
        "mac_over_bound": layer.mac_over_bound,
        "params": layer.params,
        "madds": layer.madds if known else None,
        "products": layer.products,
        "activation_bytes": layer.activation_bytes,
        "mac_bytes": layer.mac_bytes if known else None,
        "arithmetic_intensity": _ratio(layer.madds, layer.mac_bytes),
    }


def _added(analysis: Analysis, layers: Iterable[Layer], key: str, name: Callable[[Layer], str]) -> list[Record]:
    """Layers added up under one name; most multiply-adds first."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(name(layer), []).append(layer)
    params = sum(layer.params for layer in analysis.layers)
    records = [{key: label, **_sum(analysis, group, params)} for label, group in groups.items()]
    return sorted(records, key=lambda record: -record["madds"])


def _sum(analysis: Analysis, layers: Sequence[Layer], all_params: int) -> Record:
    params, madds, mac = (sum(getattr(x, name) for x in layers) for name in ("params", "madds", "mac_bytes"))
    return {
        "layers": len(layers),
        "params": params,
        "params_share": params / (all_params or 1),
        "madds": madds,
        "madds_share": madds / (analysis.madds or 1),
        "activation_bytes": sum(layer.activation_bytes for layer in layers),
        "mac_bytes": mac,
        "mac_share": mac / (analysis.mac_bytes or 1),
        "arithmetic_intensity": _ratio(madds, mac),
    }


def _ratio(madds: int, mac_bytes: int) -> float | None:
    """Multiply-adds a byte."""
    return madds / mac_bytes if madds and mac_bytes else None


# CSV


def _csv(analyses: Sequence[Analysis], view: View) -> str:
    """One row a network where several are compared, else one a type, layer or module, the network's name first."""
    if not view.by and len(analyses) > 1:
        records = [{**_network(a), **{v.guideline: v.kept for v in guidelines.score(a).verdicts}} for a in analyses]
    else:
        records = [{"model": a.model, **record} for a in analyses for record in _detailed(a, view)]
    header = tuple(records[0]) if records else ()
    rows = tuple(tuple(_cell(value) for value in record.values()) for record in records)
    return as_csv.draw([Table("", header, rows, ())], view)


def _detailed(analysis: Analysis, view: View) -> list[Record]:
    if view.by == "layer":
        return [_layer(layer) for layer in _shown(analysis)]
    return by_module(analysis, view.depth) if view.by == "module" else [*by_type(analysis), *by_other_type(analysis)]


def _cell(value: Any) -> str:
    """Shapes as 1x3x224x224, several with spaces between; what there is not is empty."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return (" " if value and isinstance(value[0], tuple) else "x").join(map(_cell, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# Tables


def _comparison(analyses: Sequence[Analysis]) -> Table:
    header = ("model", "params", "MMAdds", "activations MB", "MAC MB", "MAdds/byte", "MAC/bound", *GUIDELINES)
    rows = []
    for analysis in analyses:
        score = guidelines.score(analysis)
        kept = ["kept" if verdict.kept else "broken" for verdict in score.verdicts]
        sizes = (_millions(n) for n in (analysis.madds, analysis.activation_bytes, analysis.mac_bytes))
        intensity = _ratio(analysis.madds, analysis.mac_bytes) or 0.0
        ratios = (f"{intensity:.2f}", f"{score.mac_over_bound:.2f}")
        rows.append((analysis.model, f"{analysis.params:,}", *sizes, *ratios, *kept))
    counted = ", MAdds with products of two maps" if any(a.counts_products for a in analyses) else ""
    title = f"as written, batch normalisation folded, fp32{counted}; guidelines of ShuffleNetV2"
    notes = [f"{a.model}: not counted: {unknown(a)}" for a in analyses if a.unknown]
    return Table("\n".join([title, *notes]), header, tuple(rows), tuple(range(1, 7)), (3, 5, 6, 4))


def unknown(analysis: Analysis) -> str:
    """The operators that were not counted, and how many of each."""
    return ", ".join(f"{operator} x{n}" for operator, n in analysis.unknown.items())


def _detail(analysis: Analysis, view: View) -> Table:
    if view.by == "layer":
        return _layers(analysis)
    if view.by == "module":
        return _sums(f"{analysis.model} by module to depth {view.depth} (params: weights alone)", analysis, view)
    return _sums(f"{analysis.model} by layer type (params: weights alone)", analysis, view)


def _sums(title: str, analysis: Analysis, view: View) -> Table:
    records = _detailed(analysis, view)
    key = next(iter(records[0])) if records else ""
    header = (
        *(key, "layers", "params", "share", "MMAdds", "share", "activations MB", "MAC MB", "share"),
        "MAdds/byte",
    )
    rows = tuple(
        (
            *(
                r[key],
                str(r["layers"]),
                *((f"{r['params']:,}", f"{r['params_share']:.2%}") if r["params"] else ("", "")),
            ),
            *((_millions(r["madds"]), f"{r['madds_share']:.2%}") if r["madds"] else ("", "")),
            _millions(r["activation_bytes"]),
            *(_millions(r["mac_bytes"]), f"{r['mac_share']:.2%}", _decimals(r["arithmetic_intensity"])),
        )
        for r in records
    )
    return Table(title, header, rows, tuple(range(1, 10)), (1, 6, 9, 3, 8, 7))


def _layers(analysis: Analysis) -> Table:
    header = (
        *("module", "type", "output", "channels", "ratio", "groups", "MAC/bound", "params", "MMAdds"),
        *("activations MB", "MAC MB", "MAdds/byte"),
    )
    rows = tuple(_layer_row(_layer(layer)) for layer in _shown(analysis))
    title = f"{analysis.model}, layers in the order in which they run (ratio, MAC/bound: G1; groups: G2)"
    return Table(title, header, rows, tuple(range(4, 12)), (11, 9, 7, 2, 4, 3))


def _layer_row(r: Record) -> tuple[str, ...]:
    return (
        *(r["module"] or ROOT, r["type"], "x".join(map(str, r["output"]))),
        f"{r['input_channels']} -> {r['output_channels']}" if r["input_channels"] else "",
        f"1:{r['channel_ratio']:.3g}" if r["channel_ratio"] else "",
        str(r["groups"] or ""),
        *(_decimals(r["mac_over_bound"]), f"{r['params']:,}" if r["params"] else ""),
        "?" if r["madds"] is None else _millions(r["madds"]) if r["madds"] else "",
        _millions(r["activation_bytes"], 3),
        "?" if r["mac_bytes"] is None else _millions(r["mac_bytes"], 3),
        _decimals(r["arithmetic_intensity"]),
    )


def _shown(analysis: Analysis) -> list[Layer]:
    """Without views, which cost nothing."""
    return [layer for layer in analysis.layers if layer.writes]


def _verdicts(analysis: Analysis) -> Table:
    rows = tuple(
        (v.guideline, "kept" if v.kept else "broken", f"{v.figure:.3g}", f"{v.limit:.3g}", v.reason)
        for v in guidelines.score(analysis).verdicts
    )
    header = ("guideline", "verdict", "figure", "limit", "why")
    return Table(f"{analysis.model} and the guidelines of ShuffleNetV2", header, rows, (2, 3), (3, 2))


def _findings(analysis: Analysis, view: View) -> Table:
    found = guidelines.findings(analysis)
    shown = found[: view.top] if view.top else found
    title = f"{analysis.model}, costliest departures from the guidelines, {len(shown)} of {len(found)}"
    rows = tuple((f.guideline, f.module or ROOT, _millions(f.cost_bytes, 3), f.reason) for f in shown)
    return Table(title, ("guideline", "module", "MB", "why"), rows, (2,))


def _millions(number: float, decimals: int = 2) -> str:
    return f"{number / 1e6:.{decimals}f}"


def _decimals(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"
