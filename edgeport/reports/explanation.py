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
        rows = tuple(
            (f.module or "(network)", f.name, f"{f.gain_db:.1f}", _millions(f.madds)) for f in done.float_layers
        )
        title = f"{artifact.file}: layers left in float"
        yield Table(title, ("module", "operator", "gains dB", "MMAdds in float"), rows, (2, 3))
    noisy = sorted(done.layers, key=lambda layer: layer.sqnr_db)
    shown = noisy[:top] if top else noisy
    title = (
        f"{artifact.file}: signal to noise of its layers, the lowest {len(shown)} of {len(noisy)} (all: manifest.json)"
    )
    rows = tuple((layer.module or "(network)", layer.name, f"{layer.sqnr_db:.1f}") for layer in shown)
    yield Table(title, ("module", "operator", "SQNR dB"), rows, (2,))


def _tried(done: Quantized) -> Iterator[tuple[str, ...]]:
    if not done.held_back:
        yield (f"{done.method}: too few samples to hold some back", "", "yes")
        return
    for method, sqnr_db in done.tried.items():
        yield (
            f"{method}, on {done.held_back} samples held back",
            f"{sqnr_db:.1f}",
            "yes" if method == done.method else "",
        )
    changes = (("equal ranges of depthwise channels", done.equalized), ("corrected biases", done.biases_corrected))
    for what, layers in changes:
        yield what, "", f"in {layers} layers" if layers else "gains nothing"


def _millions(madds: int) -> str:
    return f"{madds / 1e6:.2f}"
