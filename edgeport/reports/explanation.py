"""What an export did to the network and why its files are as they are: --explain."""

from collections.abc import Iterator

from edgeport.records import Artifact, Manifest, Quantized
from edgeport.reports import View, as_table
from edgeport.reports.rows import Table


def render(manifest: Manifest, view: View) -> str:
    """view.top: how many of the layers that lose most are listed; 0 is all."""
    tables = [_passes(manifest)]
    for artifact in manifest.artifacts:
        if artifact.quantized is not None:
            tables += _quantized(artifact, artifact.quantized, view.top)
    return as_table.draw(tables, view)


def _passes(manifest: Manifest) -> Table:
    rows = tuple(
        (p.name, " ".join(p.formats), str(p.changes), str(p.operators_before - p.operators_after), p.what)
        for p in manifest.passes
    )
    title = f"{manifest.model.name}: what the graph passes did" if rows else "no graph pass ran (--no-optimize)"
    return Table(title, ("pass", "for", "changes", "operators gone", "what it does"), rows, (2, 3))


def _quantized(artifact: Artifact, done: Quantized, top: int) -> Iterator[Table]:
    yield Table(f"{artifact.file}: how its ranges were found", ("what", "SQNR dB", "chosen"), tuple(_tried(done)), (1,))
    if done.float_layers:
        left = tuple((_place(f.module), f.name, f"{f.gain_db:.1f}", f"{f.madds / 1e6:.2f}") for f in done.float_layers)
        title = f"{artifact.file}: layers left in float"
        yield Table(title, ("module", "operator", "gains dB", "MMAdds in float"), left, (2, 3))
    noisy = sorted(done.layers, key=lambda layer: layer.sqnr_db)
    shown = noisy[:top] if top else noisy
    title = f"{artifact.file}: its layers, the noisiest {len(shown)} of {len(noisy)} (all are in the manifest)"
    rows = tuple((_place(layer.module), layer.name, f"{layer.sqnr_db:.1f}") for layer in shown)
    yield Table(title, ("module", "operator", "SQNR dB"), rows, (2,))


def _tried(done: Quantized) -> Iterator[tuple[str, str, str]]:
    if not done.tried:
        yield f"{done.method}; too few samples to hold some back", "", "yes"
    for what, sqnr_db in done.tried.items():
        chosen = "yes" if what in (done.method, *done.changes) else ""
        yield f"{what}, on {done.held_back} samples held back", f"{sqnr_db:.1f}", chosen


def _place(module: str) -> str:
    return module or "(network)"
