"""Whether a converted file is good enough, by the worst piece of its outputs, and what may help where it is not."""

from collections.abc import Sequence

import msgspec
import numpy as np

from edgeport.export import verify
from edgeport.records import LayerNoise, PieceVerification, Quantized, Verification

FP32_RELATIVE_ERROR = 1e-3  # of a piece's largest value
LEAST_AGREEMENT = {"fp32": 0.99, "int8": 0.5}  # of the elements of a piece of integers or booleans
MORE_LAYERS = 3  # to leave in float, as a piece of advice
MOST_NAMED = 3


class Asked(msgspec.Struct, frozen=True):
    """What an export was asked for, as far as a verdict and its advice hang on it.

    has_weights: it was given some. has_data: it was given samples, and not few.
    """

    min_sqnr_db: float
    has_weights: bool
    has_data: bool
    method: str
    max_layers_float: int


def objection(verification: Verification, precision: str, quantized: Quantized | None, asked: Asked) -> str | None:
    """Why the file is not accepted, None if it is."""
    bad = not_finite(verification) or _disagreement(verification, precision)
    if bad:
        return bad
    return _inexact(verification) if precision == "fp32" else _too_noisy(verification, quantized, asked)


def not_finite(verification: Verification) -> str | None:
    """What is said where one side has a number, and the other one has none."""
    bad = next((p for p in verification.pieces if not np.isfinite(p.max_absolute_error)), None)
    if bad is None:
        return None
    which = f"{_place(bad)} is" if len(verification.pieces) > 1 else "its outputs are"
    return f"{which} not finite where PyTorch's are, or the other way round"


def lost(verification: Verification) -> str:
    """What is said of an int8 file whose error is larger than all that its outputs tell; "" of any other.

    Its ratio may be good all the same, where the mean is most of the signal.
    """
    flat = [_place(p) for p in verification.pieces if p.varying_db is not None and p.varying_db < 0]
    if not flat:
        return ""
    more = f" and {len(flat) - MOST_NAMED} more" if len(flat) > MOST_NAMED else ""
    return f"int8's error is larger than what varies about the mean in {', '.join(flat[:MOST_NAMED])}{more}"


def figures(verification: Verification, precision: str) -> str:
    """For the line of progress: the worst piece's, named where there are several."""
    told = _error(verification) if precision == "fp32" else _noise(verification)
    if verification.top1_agreement is not None and len(verification.pieces) == 1:
        told += f", top-1 {verification.top1_agreement:.0%}"
    held = " samples" if precision == "fp32" else " held back" if verification.held_back else " not held back"
    return f"{told}, {verification.samples}{held}"


def worst(verification: Verification) -> PieceVerification | None:
    """The piece of floats that keeps least of its signal; None where all are equal to PyTorch's."""
    noisy = [p for p in verification.pieces if p.sqnr_db is not None]
    return min(noisy, key=lambda p: p.sqnr_db or 0.0, default=None)


def _error(verification: Verification) -> str:
    pieces = [p for p in verification.pieces if p.agreement is None]
    if not pieces:
        return _agreement(verification)
    largest = max(pieces, key=lambda p: p.max_relative_error)
    return f"max error {largest.max_relative_error:.1e}{_short(largest, verification)}"


def _noise(verification: Verification) -> str:
    noisiest = worst(verification)
    if noisiest is not None:
        return f"SQNR {noisiest.sqnr_db:.1f} dB{_short(noisiest, verification)}"
    return _agreement(verification) if verification.pieces[0].agreement is not None else "equal"


def _agreement(verification: Verification) -> str:
    least = min((p.agreement for p in verification.pieces if p.agreement is not None), default=1.0)
    return f"{least:.0%} equal"


def _short(piece: PieceVerification, verification: Verification) -> str:
    return f" ({verify.place(piece.output, piece.piece)})" if len(verification.pieces) > 1 else ""


def _disagreement(verification: Verification, precision: str) -> str | None:
    least = LEAST_AGREEMENT[precision]
    for piece in verification.pieces:
        if piece.agreement is not None and piece.agreement < least:
            return f"{_place(piece)} has only {piece.agreement:.0%} of PyTorch's integers, less than {least:.0%}"
    return None


def _inexact(verification: Verification) -> str | None:
    pieces = [p for p in verification.pieces if p.agreement is None]
    piece = max(pieces, key=lambda p: p.max_relative_error, default=None)
    if piece is None or piece.max_relative_error <= FP32_RELATIVE_ERROR:
        return None
    several, error = len(verification.pieces) > 1, piece.max_relative_error
    which, its = (f"{_place(piece)} differs", "its") if several else ("its outputs differ", "their")
    return f"{which} from PyTorch's by {error:.1e} of {its} largest, more than {FP32_RELATIVE_ERROR:.0e}"


def _too_noisy(verification: Verification, quantized: Quantized | None, asked: Asked) -> str | None:
    piece = worst(verification)
    if piece is None or piece.sqnr_db is None or piece.sqnr_db >= asked.min_sqnr_db:
        return None
    layers = quantized.layers if quantized else ()
    first = next((layer for layer in layers if layer.sqnr_db < asked.min_sqnr_db), None)
    since = f", from {first.module or first.name} on" if first else ""
    where = f" in {_place(piece)}" if len(verification.pieces) > 1 else ""
    return (
        f"int8 loses too much{since}: signal-to-noise ratio {piece.sqnr_db:.1f} dB{where}, below "
        f"{asked.min_sqnr_db:g} dB; {_ways(asked, layers)}"
    )


def _ways(asked: Asked, layers: Sequence[LayerNoise]) -> str:
    """What may help, and has not been done."""
    noisiest = min(layers, key=lambda layer: layer.sqnr_db, default=None)
    told = f" (the noisiest layer is {noisiest.module or noisiest.name})" if noisiest else ""
    ways = [
        *([] if asked.has_weights else ["--weights (an untrained network's values may come to nothing)"]),
        *([] if asked.has_data else ["--calibration-data that is like what the network will see"]),
        *([] if asked.method == "auto" else ["--calibration-method auto"]),
        f"--max-layers-float {asked.max_layers_float + MORE_LAYERS}{told}",
    ]
    return f"give {', '.join(ways)}, or lower --min-sqnr-db"


def _place(piece: PieceVerification) -> str:
    return f"piece {piece.piece} of output {piece.output!r}" if piece.piece else f"output {piece.output!r}"
