"""Verdicts on block values: how often they are wrong, what moves them and what does not."""

import math
import random
from statistics import median
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_comparisons import block, comparison, session, told
from small_results import result

from edgeport import compare
from edgeport.compare import IMPROVED, INCONCLUSIVE, LOOKS, PASS, REGRESSED, Values
from edgeport.errors import UsageError
from edgeport.records import Accuracy, Criteria, Session, TensorInfo

DEFAULT = Criteria()
STRICT = compare.criteria(0.01, None, 0.005)
blocks = st.lists(st.floats(-0.2, 0.2), min_size=10, max_size=25)


def outcome(*sessions: Values, by: Criteria = DEFAULT) -> str:
    return compare.verdict(sessions, by).outcome


def drawn(source: random.Random, slowdown: float, sd: float, n: int) -> Values:
    """As the mean of two baselines makes them: changes and noises that are not correlated."""
    theta = math.log1p(slowdown)
    return Values(
        tuple(theta + source.gauss(0, sd) for _ in range(n)), tuple(source.gauss(0, sd * 1.15) for _ in range(n))
    )


def sat(source: random.Random, slowdown: float, sd: float, by: Criteria) -> Values:
    """One session that stops by the rules."""
    whole = drawn(source, slowdown, sd, LOOKS[-1])
    parts = (Values(whole.changes[:n], whole.noises[:n]) for n in LOOKS)
    return next(part for part in parts if compare.is_over(part, by))


def compared(source: random.Random, slowdown: float, sd: float, by: Criteria) -> compare.Verdict:
    sessions = [sat(source, slowdown, sd, by)]
    if compare.needs_second(sessions[0], by):
        sessions.append(sat(source, slowdown, sd, by))
    return compare.verdict(sessions, by)


# Error rates, by simulation


@pytest.mark.parametrize("sd", [0.005, 0.02, 0.1])
def test_a_file_against_itself_is_no_regression(sd: float) -> None:
    source = random.Random(1)
    outcomes = [compared(source, 0, sd, DEFAULT).outcome for _ in range(150)]
    assert outcomes.count(REGRESSED) == outcomes.count(IMPROVED) == 0


def test_at_the_very_tolerance_a_session_is_wrong_no_more_often_than_alpha_says() -> None:
    """With an alpha large enough to be counted. All four looks together spend it."""
    by, source = compare.criteria(0.02, 0.05, 0.2), random.Random(2)
    wrong = sum(compare.needs_second(sat(source, 0.02, 0.02, by), by) for _ in range(400))
    assert 0.02 < wrong / 400 < 0.2


def test_nothing_of_the_noises_shape_is_assumed() -> None:
    """Noise whose mean does not exist (Cauchy), about the tolerance."""
    by, source = compare.criteria(0.02, 0.05, 0.2), random.Random(3)
    wrong = 0
    for _ in range(400):
        changes = tuple(math.log1p(0.02) + 0.01 * math.tan(math.pi * (source.random() - 0.5)) for _ in range(10))
        wrong += compare.reading(Values(changes, (0.0,) * 10), by).finding == compare.SLOWER
    assert wrong / 400 < 0.2 / len(LOOKS) + 0.02


@pytest.mark.parametrize(("slowdown", "sd", "by"), [(0.03, 0.01, STRICT), (0.05, 0.015, DEFAULT), (0.1, 0.03, DEFAULT)])
def test_what_is_slower_is_found(slowdown: float, sd: float, by: Criteria) -> None:
    source = random.Random(4)
    found = [compared(source, slowdown, sd, by) for _ in range(60)]
    assert sum(v.outcome == REGRESSED for v in found) >= 57
    assert PASS not in [v.outcome for v in found]


def test_a_larger_slowdown_takes_fewer_blocks() -> None:
    source = random.Random(5)
    counts = [[compared(source, slowdown, 0.02, DEFAULT).blocks for _ in range(30)] for slowdown in (0.05, 0.2)]
    assert median(counts[0]) > median(counts[1]) == 2 * LOOKS[0]


# Verdicts


def test_one_session_calls_no_regression() -> None:
    verdict = compare.verdict([told(0.1)], DEFAULT)
    assert verdict.outcome == INCONCLUSIVE
    assert "second session" in verdict.reason
    assert outcome(told(0.1), told(0.1)) == REGRESSED


def test_a_second_session_that_finds_nothing_takes_it_back() -> None:
    verdict = compare.verdict([told(0.1), told(0.0)], DEFAULT)
    assert verdict.outcome == INCONCLUSIVE
    assert verdict.slowdown is not None
    assert verdict.slowdown.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("slowdown", "expected"), [(0.0, PASS), (0.019, PASS), (-0.019, PASS), (-0.03, IMPROVED), (-0.5, IMPROVED)]
)
def test_what_is_not_slower_passes(slowdown: float, expected: str) -> None:
    assert outcome(told(slowdown)) == expected


def test_the_slowdown_is_a_share_and_lies_in_its_interval() -> None:
    slowdown = compare.verdict([told(0.1), told(0.1)], DEFAULT).slowdown
    assert slowdown is not None
    assert slowdown.low < slowdown.value < slowdown.high
    assert slowdown.value == pytest.approx(0.1, abs=1e-4)


def test_noise_that_leaves_both_open_is_no_verdict() -> None:
    verdict = compare.verdict([told(0.03, spread=0.2)], DEFAULT)
    assert verdict.outcome == INCONCLUSIVE
    assert "2.0%" in verdict.reason
    assert "5.0%" in verdict.reason


@pytest.mark.parametrize("slowdown", [-0.2, 0.0, 0.2])
def test_where_the_copy_differs_there_is_no_verdict(slowdown: float) -> None:
    disturbed = told(slowdown, own=0.05)
    verdict = compare.verdict([disturbed, disturbed], DEFAULT)
    assert verdict.outcome == INCONCLUSIVE
    assert "copy" in verdict.reason
    assert not compare.is_over(disturbed, DEFAULT)
    assert not compare.needs_second(disturbed, DEFAULT)


def test_nothing_measured_is_no_pass() -> None:
    assert outcome() == outcome(Values((), ())) == INCONCLUSIVE


@pytest.mark.parametrize("n", range(1, LOOKS[0]))
def test_fewer_than_ten_blocks_are_too_few(n: int) -> None:
    assert outcome(told(0.0, n)) == outcome(told(0.5, n), told(0.5, n)) == INCONCLUSIVE
    assert not compare.is_over(told(0.5, n), DEFAULT)


@pytest.mark.parametrize("n", [*range(11, 20), 21, 39, 41, 79])
def test_between_looks_nobody_looks(n: int) -> None:
    assert not compare.is_over(told(0.5, n), DEFAULT)
    assert all(compare.is_over(told(0.5, look), DEFAULT) for look in LOOKS)


def test_a_session_ends_at_the_last_look_whatever_it_says() -> None:
    unclear = told(0.03, LOOKS[-1], spread=2)
    assert compare.reading(unclear, DEFAULT).finding == compare.UNCLEAR
    assert compare.is_over(unclear, DEFAULT)


# What moves a verdict

ORDER = {compare.FASTER: 0, compare.SAME: 1, compare.UNCLEAR: 1, compare.SLOWER: 2}


@given(blocks, st.floats(0, 0.1))
def test_a_slower_candidate_is_never_judged_faster(changes: list[float], more: float) -> None:
    calm = (0.0,) * len(changes)
    before = compare.reading(Values(tuple(changes), calm), DEFAULT)
    after = compare.reading(Values(tuple(c + more for c in changes), calm), DEFAULT)
    assert ORDER[after.finding] >= ORDER[before.finding]
    assert not (before.finding == compare.UNCLEAR and after.finding == compare.SAME)


@given(blocks, st.randoms(use_true_random=False))
def test_the_order_of_the_blocks_does_not_matter(changes: list[float], source: random.Random) -> None:
    pairs = [(c, c / 7) for c in changes]
    shuffled = source.sample(pairs, len(pairs))
    one, other = (Values(*map(tuple, zip(*p, strict=True))) for p in (pairs, shuffled))
    assert compare.reading(one, DEFAULT) == compare.reading(other, DEFAULT)


@given(blocks)
def test_sides_that_change_places_change_the_finding(changes: list[float]) -> None:
    calm = (0.0,) * len(changes)
    there = compare.reading(Values(tuple(changes), calm), DEFAULT)
    back = compare.reading(Values(tuple(-c for c in changes), calm), DEFAULT)
    swapped = {compare.SLOWER: compare.FASTER, compare.FASTER: compare.SLOWER}
    if there.finding in swapped:
        assert back.finding == swapped[there.finding]
    assert back.change.value == pytest.approx(-there.change.value)


@given(blocks, st.integers(2, 50))
def test_more_comparisons_make_no_regression_easier(changes: list[float], comparisons: int) -> None:
    calm, many = (0.0,) * len(changes), msgspec.structs.replace(DEFAULT, comparisons=comparisons)
    one, shared = (compare.reading(Values(tuple(changes), calm), by) for by in (DEFAULT, many))
    assert shared.change.low <= one.change.low
    assert ORDER[shared.finding] <= ORDER[one.finding] or one.finding == compare.FASTER


@given(st.floats(-0.5, 0.5), st.floats(-0.1, 0.1), st.floats(0.01, 100))
def test_a_block_tells_the_change_whatever_the_pace_of_the_machine(slowdown: float, own: float, ms: float) -> None:
    made = block(slowdown, own, ms)
    assert compare.change(made) == pytest.approx(math.log1p(slowdown), abs=1e-3)
    assert compare.noise(made) == pytest.approx(math.log1p(own), abs=1e-3)


def test_what_a_run_waited_for_its_core_is_other_programs_time() -> None:
    calm = block(0.1)
    waits = dict.fromkeys(calm.ns, ((0, 3_000_000, 5_000_000),) * 4)
    ns = {
        arm: tuple(tuple(n + w for n, w in zip(*b, strict=True)) for b in zip(bursts, waits[arm], strict=True))
        for arm, bursts in calm.ns.items()
    }
    busy = msgspec.structs.replace(calm, ns=ns, waited_ns=waits)
    assert compare.change(busy) == compare.change(calm)
    assert compare.noise(busy) == compare.noise(calm)


# Criteria


def test_the_effect_is_two_and_a_half_times_the_tolerance() -> None:
    assert compare.criteria(0.02, None, 0.005).effect == pytest.approx(0.05)
    assert compare.criteria(0.02, 0.03, 0.005).effect == 0.03


@pytest.mark.parametrize(
    ("tolerance", "effect", "alpha", "text"),
    [
        (0, None, 0.005, "tolerance"),
        (-0.01, None, 0.005, "tolerance"),
        (0.05, 0.05, 0.005, "effect"),
        (0.05, 0.01, 0.005, "effect"),
        (math.nan, None, 0.005, "tolerance"),
        (0.02, None, 0, "alpha"),
        (0.02, None, 0.5, "alpha"),
        (0.02, None, math.nan, "alpha"),
    ],
)
def test_criteria_that_decide_nothing_are_refused(
    tolerance: float, effect: float | None, alpha: float, text: str
) -> None:
    with pytest.raises(UsageError, match=f"--{text}"):
        compare.criteria(tolerance, effect, alpha)


# Whole comparisons


def outcomes(*sessions: Session, **fields: Any) -> dict[str, str | None]:
    return {check.what: check.outcome for check in compare.checks(comparison(*sessions, **fields))}


def test_size_and_accuracy_are_judged_only_where_that_is_asked_for() -> None:
    larger, counted = result(size_bytes=5_000_000), Accuracy("photos", 100, 90, 50)
    assert outcomes(session(), after=larger, accuracy=counted) == {"latency": PASS, "size": None, "accuracy": None}
    strict = Criteria(size_tolerance=0.05, accuracy_tolerance=0.01)
    found = outcomes(session(), after=larger, accuracy=counted, criteria=strict)
    assert found == {"latency": PASS, "size": REGRESSED, "accuracy": REGRESSED}


@pytest.mark.parametrize(
    ("size", "right", "size_outcome", "accuracy_outcome"),
    [(2_625_000, 89, PASS, PASS), (2_625_001, 88, REGRESSED, REGRESSED), (1, 100, PASS, PASS)],
)
def test_a_tolerance_holds_what_lies_on_it(size: int, right: int, size_outcome: str, accuracy_outcome: str) -> None:
    by = Criteria(size_tolerance=0.05, accuracy_tolerance=0.01)
    counted = Accuracy("photos", 100, 90, right)
    found = outcomes(session(), after=result(size_bytes=size), accuracy=counted, criteria=by)
    assert (found["size"], found["accuracy"]) == (size_outcome, accuracy_outcome)


def test_the_worst_check_is_the_outcome() -> None:
    slower = session(0.1)
    strict = Criteria(size_tolerance=0.05)
    larger = result(size_bytes=5_000_000)
    assert compare.outcome(comparison(session())) == PASS
    assert compare.outcome(comparison(slower, slower)) == REGRESSED
    assert compare.outcome(comparison(session(), after=larger, criteria=strict)) == REGRESSED
    assert compare.outcome(comparison()) == INCONCLUSIVE


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 4),
        ([PASS], 0),
        ([PASS, IMPROVED], 0),
        ([INCONCLUSIVE, PASS], 4),
        ([REGRESSED, INCONCLUSIVE, PASS], 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst_outcome_and_of_none_is_four(outcomes: list[str], code: int) -> None:
    assert compare.exit_code(outcomes) == code


# Comparable or not


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"runtime_version": "2.4.0"}, ["version of litert", "2.3.0", "2.4.0"]),
        ({"runtime": "onnxruntime"}, ["runtime", "litert", "onnxruntime"]),
        ({"num_threads": 4}, ["threads", "1", "4"]),
        ({"precision": "fp32"}, ["precision", "int8", "fp32"]),
        ({"facts": {"cpu_model": "Other Chip"}}, ["device", "Some Chip", "Other Chip"]),
        ({"facts": {"cpu_model": "Some Chip", "device_model": "Raspberry Pi 4"}}, ["device", "Raspberry Pi 4"]),
        ({"facts": {"cpu_model": "Some Chip", "governors": ["powersave"]}}, ["governor", "none told", "powersave"]),
        ({"facts": {"cpu_model": "Some Chip", "emulated": True}}, ["real", "emulated"]),
        ({"inputs": (TensorInfo("x", (1, 96, 96, 3), "float32"),)}, ["inputs", "1x224x224x3", "1x96x96x3"]),
        ({"inputs": (TensorInfo("x", (1, 224, 224, 3), "int8"),)}, ["inputs", "float32", "int8"]),
    ],
)
def test_what_cannot_be_compared_is_said_with_both_sides(fields: dict[str, Any], words: list[str]) -> None:
    found = compare.differences(result(), result(**fields))
    assert len(found) == 1
    assert all(word in found[0] for word in words)
    assert compare.outcome(comparison(differences=found)) == INCONCLUSIVE
    assert found[0] in compare.latency_verdict(comparison(differences=found)).reason


def test_another_name_of_an_input_or_of_the_file_is_no_obstacle() -> None:
    other = result(file="net.int8.tflite", model="net", inputs=(TensorInfo("y", (1, 224, 224, 3), "float32"),))
    assert compare.differences(result(), other) == ()
