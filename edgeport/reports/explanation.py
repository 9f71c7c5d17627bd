"""What an export did to the network and why its files are as they are: --explain."""

from collections.abc import Iterator, Sequence

from edgeport.records import Artifact, Manifest, PieceVerification, Quantized
from edgeport.reports import View, as_table
from edgeport.reports.rows import Table
from edgeport.speedup import Speedup


def render(manifest: Manifest, view: View, speedups: Sequence[Speedup] = ()) -> str:
    """view.top: how many of the layers that lose most, and modules that take longer, are listed; 0 is all."""
    tables = [_passes(manifest), _verdicts(manifest)]
    for artifact in manifest.artifacts:
        if artifact.quantized is not None:
            tables += _quantized(artifact, artifact.quantized, view.top)
    if speedups:
        tables += [_times(speedups), *(_reasons(s, view.top) for s in speedups if s.reasons)]
    return as_table.draw(tables, view)


def _passes(manifest: Manifest) -> Table:
    rows = tuple(
        (p.name, " ".join(p.formats), str(p.changes), str(p.operators_before - p.operators_after), p.what)
        for p in manifest.passes
    )
    title = f"{manifest.model.name}: what the graph passes did" if rows else "no graph pass ran (--no-optimize)"
    return Table(title, ("pass", "for", "changes", "operators gone", "what it does"), rows, (2, 3))


def _verdicts(manifest: Manifest) -> Table:
    """Each piece of each file's outputs, on the samples that it is judged by and on those that its ranges are from."""
    rows = []
    for artifact in manifest.artifacts:
        verification = artifact.verification
        on = f"{verification.samples}{_held(artifact)}"
        ranges = artifact.calibrated.pieces if artifact.calibrated else (None,) * len(verification.pieces)
        for piece, seen in zip(verification.pieces, ranges, strict=True):
            error = f"{piece.max_relative_error:.1e}"
            rows.append((artifact.file, _where(piece), error, _quality(piece), _quality(seen), on))
    title = f"how far the files are from PyTorch, on {manifest.calibration.source}"
    header = ("file", "output", "max error", "SQNR dB", "on its ranges' samples", "samples")
    return Table(title, header, tuple(rows), (2, 3, 4))


def _held(artifact: Artifact) -> str:
    if artifact.quantized is None:
        return ""
    return " held back" if artifact.verification.held_back else ", not held back"


def _where(piece: PieceVerification) -> str:
    return f"{piece.output}{piece.piece}" if piece.piece.startswith("[") else f"{piece.output} {piece.piece}".strip()


def _quality(piece: PieceVerification | None) -> str:
    if piece is None:
        return ""
    if piece.agreement is not None:
        return f"{piece.agreement:.0%} equal"
    return "equal" if piece.sqnr_db is None else f"{piece.sqnr_db:.1f}"


def _times(speedups: Sequence[Speedup]) -> Table:
    rows = tuple(
        (s.runtime, f"{s.ratio.value:.2f}", f"{s.ratio.low:.2f} to {s.ratio.high:.2f}", "yes" if s.is_faster else "no")
        for s in speedups
    )
    title = "int8's time by fp32's on this machine, 1 thread"
    return Table(title, ("runtime", "ratio", "95% interval", "int8 is faster"), rows, (1,))


def _reasons(speedup: Speedup, top: int) -> Table:
    shown = speedup.reasons[:top] if top else speedup.reasons
    changes = [(reason.change, reason.operators) for reason in shown]
    rows = tuple((c.module, f"{c.us_before:.0f}", f"{c.us_after:.0f}", f"{c.us:+.0f}", ops) for c, ops in changes)
    title = (
        f"{speedup.runtime}: why int8 is not faster: the {len(shown)} of {len(speedup.reasons)} modules that lose most"
    )
    return Table(title, ("module", "fp32 us", "int8 us", "change", "what runs in int8"), rows, (1, 2, 3))


def _quantized(artifact: Artifact, done: Quantized, top: int) -> Iterator[Table]:
    yield Table(f"{artifact.file}: how its ranges were found", ("what", "SQNR dB", "chosen"), tuple(_tried(done)), (1,))
    if done.float_layers:
        left = tuple((_place(f.module), f.name, f"{f.gain_db:.1f}", f"{f.madds / 1e6:.2f}") for f in done.float_layers)
        title = f"{artifact.file}: layers left in float"
        yield Table(title, ("module", "operator", "gains dB", "MMAdds in float"), left, (2, 3))
    yield from _in_float(artifact, done)
    if done.joins:
        yield _joins(artifact, done)
    noisy = sorted(done.layers, key=lambda layer: layer.sqnr_db)
    shown = noisy[:top] if top else noisy
    title = f"{artifact.file}: its layers, the noisiest {len(shown)} of {len(noisy)} (all are in the manifest)"
    rows = tuple((_place(layer.module), layer.name, f"{layer.sqnr_db:.1f}") for layer in shown)
    yield Table(title, ("module", "operator", "SQNR dB"), rows, (2,))


def _in_float(artifact: Artifact, done: Quantized) -> Iterator[Table]:
    why = {
        "joins pieces of unlike ranges, or moves them": done.float_joins,
        "holds a mask, a statistic or small shares, for which 256 equal steps are too few": done.float_operators,
    }
    rows = tuple((name, reason) for reason, names in why.items() for name in names)
    if rows:
        yield Table(f"{artifact.file}: operators in float", ("operator", "why"), rows, ())


def _joins(artifact: Artifact, done: Quantized) -> Table:
    """Which joins take pieces as they are, and what it costs whoever else reads a piece."""
    rows = tuple(
        (_place(join.module), join.name, f"{join.shared} of {join.pieces}", f"{join.cost_db:.1f}")
        for join in done.joins
    )
    title = f"{artifact.file}: joins, and how many of their pieces have the range of the whole"
    return Table(title, ("module", "operator", "pieces", "larger steps, dB"), rows, (2, 3))


def _tried(done: Quantized) -> Iterator[tuple[str, str, str]]:
    if not done.tried:
        yield f"{done.method}; too few samples to hold some back", "", "yes"
    for what, sqnr_db in done.tried.items():
        chosen = "yes" if what in (done.method, *done.changes) else ""
        yield f"{what}, on {done.held_back} samples held back", f"{sqnr_db:.1f}", chosen


def _place(module: str) -> str:
    return module or "(network)"
