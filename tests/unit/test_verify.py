"""A file is judged piece by piece: no piece hides another, and what is no number, or no signal, is told as it is."""

from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeport.export import acceptance, verify
from edgeport.export.acceptance import Asked
from edgeport.export.verify import LEAST_DB, Part, compare
from edgeport.records import LayerNoise, PieceVerification, Quantized, Verification

Array = NDArray[Any]
ASKED = Asked(10.0, has_weights=True, has_data=True, method="auto", max_layers_float=0)


def noisy(values: Array, share: float) -> Array:
    """With an error of this share of their size, up and down by turns."""
    signs = np.where(np.arange(values.size) % 2, 1, -1).reshape(values.shape)
    return np.asarray(values * (1 + share * signs))


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def detector() -> tuple[Array, list[Part]]:
    """Boxes in pixels and scores from 0 to 1 in one output (samples, 1, 6, 5), and the two pieces of it."""
    labels = np.zeros((1, 6, 5), np.int16)
    labels[:, 4:] = 1
    output = np.concatenate([200 + 100 * normal(8, 1, 4, 5), np.random.default_rng(1).random((8, 1, 2, 5))], axis=2)
    return output, [Part(0, "output", f"[:, {at}]", labels, n) for n, at in enumerate(("0:4", "4:6"))]


def only(verification: Verification) -> PieceVerification:
    (piece,) = verification.pieces
    return piece


def objection(verification: Verification, precision: str = "int8", asked: Asked = ASKED) -> str:
    return acceptance.objection(verification, precision, None, asked) or ""


# Pieces


def test_scores_that_are_lost_are_seen_beside_boxes_that_are_right() -> None:
    output, parts = detector()
    found = output.copy()
    found[:, :, 4:] = 0
    whole, pieces = compare([output], [found]), compare([output], [found], parts)
    assert whole.sqnr_db is not None
    assert whole.sqnr_db > 40
    assert [p.sqnr_db for p in pieces.pieces] == [None, pytest.approx(0)]
    assert [p.max_relative_error for p in pieces.pieces] == [0, 1]
    assert pieces.sqnr_db == pytest.approx(whole.sqnr_db)
    assert not objection(whole)
    assert "0.0 dB in piece [:, 4:6] of output 'output', below 10 dB" in objection(pieces)


def test_figures_are_relative_to_each_pieces_own_values() -> None:
    output, parts = detector()
    made = compare([output], [noisy(output, 0.01)], parts)
    assert [p.sqnr_db for p in made.pieces] == [pytest.approx(40), pytest.approx(40)]
    assert [p.max_relative_error for p in made.pieces] == [pytest.approx(0.01), pytest.approx(0.01)]
    assert [(p.output, p.piece) for p in made.pieces] == [("output", "[:, 0:4]"), ("output", "[:, 4:6]")]


def test_fp32_is_refused_for_its_worst_piece() -> None:
    output, parts = detector()
    found = output.copy()
    found[:, :, 4:] += 0.01
    assert not objection(compare([output], [found]), "fp32")
    assert "piece [:, 4:6] of output 'output' differs" in objection(compare([output], [found], parts), "fp32")


def test_several_outputs_are_judged_each_by_itself() -> None:
    boxes, scores = 300 * normal(8, 1, 4), normal(8, 1, 3, seed=1)
    parts = [Part(0, "boxes"), Part(1, "scores")]
    refused = objection(compare([boxes, scores], [boxes, -scores], parts))
    assert "-6.0 dB in output 'scores'" in refused


# Values that are no common ones


def test_noise_where_there_is_no_signal_is_not_equal() -> None:
    nothing = np.zeros((8, 1, 4))
    judged = only(compare([nothing], [nothing + 0.1]))
    assert judged.sqnr_db == LEAST_DB
    assert judged.max_relative_error == pytest.approx(0.1)
    assert "-120.0 dB" in objection(compare([nothing], [nothing + 0.1]))
    assert only(compare([nothing], [nothing])).sqnr_db is None
    assert not objection(compare([nothing], [nothing]))


def test_a_constant_has_a_ratio_and_nothing_that_varies() -> None:
    constant = np.full((8, 1, 4), 0.5)
    judged = only(compare([constant], [constant + 0.005]))
    assert judged.sqnr_db == pytest.approx(40)
    assert judged.varying_db is None


def test_an_error_larger_than_what_varies_about_a_large_mean_is_told() -> None:
    output = 320 + normal(8, 1, 40)
    judged = compare([output], [np.full_like(output, 322)])
    piece = only(judged)
    assert piece.sqnr_db is not None
    assert piece.sqnr_db > 40
    assert piece.varying_db is not None
    assert piece.varying_db < 0
    assert "output 'output_0'" in acceptance.lost(judged)
    assert not acceptance.lost(compare([output], [output + 0.1 * normal(8, 1, 40, seed=1)]))


def test_integers_have_a_share_that_agrees_and_no_ratio() -> None:
    classes = np.arange(40.0).reshape(8, 1, 5)
    found = classes.copy()
    found[0] = 39
    made = compare([classes], [found], [Part(0, "classes", is_float=False)])
    assert (only(made).agreement, only(made).sqnr_db, made.sqnr_db, made.top1_agreement) == (0.875, None, None, None)
    assert "88% of PyTorch's integers" in objection(made, "fp32")
    assert not objection(made)
    assert acceptance.figures(made, "int8") == "88% equal, 8 not held back"


def test_booleans_that_mostly_differ_are_refused() -> None:
    made = compare([np.ones((8, 1, 5))], [np.zeros((8, 1, 5))], [Part(0, "kept", is_float=False)])
    assert "output 'kept' has only 0%" in objection(made)


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_what_is_no_number_must_be_the_same_and_hides_nothing(odd: float) -> None:
    output = normal(8, 1, 10)
    output[:, :, 3] = odd
    assert only(compare([output], [output])).sqnr_db is None
    far = output.copy()
    far[:, :, 0] += 5
    assert only(compare([output], [far])).max_relative_error > 1
    number, other_way = output.copy(), normal(8, 1, 10)
    number[:, :, 3] = 0
    for reference, found in ((output, number), (other_way, output)):
        assert "not finite" in objection(compare([reference], [found]), "fp32")
        assert only(compare([reference], [found])).sqnr_db == LEAST_DB


def test_an_output_of_no_elements_is_equal() -> None:
    empty = np.zeros((8, 1, 0))
    made = compare([empty], [empty])
    assert (made.max_absolute_error, made.sqnr_db, made.top1_agreement) == (0, None, None)
    assert only(compare([empty], [empty], [Part(0, "none", is_float=False)])).agreement == 1
    assert not objection(made, "fp32")
    assert not objection(made)


# Top-1


def test_top1_is_of_each_row_of_scores() -> None:
    scores = normal(8, 1, 3, 5)
    found = scores.copy()
    found[0, 0, 0, np.argmin(scores[0, 0, 0])] = 9
    assert compare([scores], [found]).top1_agreement == 1 - 1 / 24


@pytest.mark.parametrize("shape", [(8, 1, 1), (8, 1, 3, 4, 4), (8,)], ids=str)
def test_what_holds_no_scores_has_no_top1(shape: tuple[int, ...]) -> None:
    assert compare([normal(*shape)], [normal(*shape)]).top1_agreement is None


def test_joined_pieces_have_no_top1() -> None:
    output, parts = detector()
    assert compare([output], [output], parts).top1_agreement is None


# What is said


def test_the_line_of_progress_names_the_worst_piece_and_fits_beside_the_step() -> None:
    output, parts = detector()
    found = noisy(output, 0.001)
    found[:, :, 4:] = noisy(output, 0.01)[:, :, 4:]
    made = compare([output], [found], parts, held_back=True)
    assert acceptance.figures(made, "int8") == "SQNR 40.0 dB (output[:, 4:6]), 8 held back"
    assert acceptance.figures(made, "fp32") == "max error 1.0e-02 (output[:, 4:6]), 8 samples"
    scores = compare([normal(5, 1, 9)], [noisy(normal(5, 1, 9), 0.01)])
    assert acceptance.figures(scores, "int8") == "SQNR 40.0 dB, top-1 100%, 5 not held back"
    assert acceptance.figures(scores, "fp32") == "max error 1.0e-02, top-1 100%, 5 samples"
    assert acceptance.figures(compare([output], [output]), "int8") == "equal, top-1 100%, 8 not held back"


def test_advice_is_what_can_help_and_has_not_been_done() -> None:
    bad = compare([normal(8, 1, 9)], [-normal(8, 1, 9)])
    layers = (LayerNoise("/a/conv", "a", 20.0), LayerNoise("/b/conv", "b", 3.0))
    quantized = Quantized("min-max", 0, {}, (), (), layers)

    def said(**changes: Any) -> str:
        return acceptance.objection(bad, "int8", quantized, msgspec.structs.replace(ASKED, **changes)) or ""

    assert "from b on: signal-to-noise ratio -6.0 dB" in said()
    assert "the noisiest layer is b" in said()
    assert ("--weights" in said(), "--weights" in said(has_weights=False)) == (False, True)
    assert ("--calibration-data" in said(), "--calibration-data" in said(has_data=False)) == (False, True)
    assert ("--calibration-method" in said(), "--calibration-method auto" in said(method="min-max")) == (False, True)
    assert "--max-layers-float 3" in said()
    assert "--max-layers-float 5" in said(max_layers_float=2)
    assert "--min-sqnr-db" in said()
    assert not said(min_sqnr_db=-10.0)


def test_pieces_that_are_no_slices_are_named_by_their_operator() -> None:
    assert verify.place("output", "sigmoid") == "output (sigmoid)"
    assert verify.place("output", "") == "output"
