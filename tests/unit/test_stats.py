"""Latency figures, verdicts and estimates on samples made by hand."""

import bisect
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_results import launch, profile, result

from edgeport import stats
from edgeport.records import Launch

steady = st.lists(st.floats(0.98, 1.02), min_size=1, max_size=8)


def test_the_median_is_that_of_the_launches_medians() -> None:
    """Not of all samples: a launch that ran slow throughout weighs as much as any other."""
    launches = [launch(1, 1, 1, 1, 1), launch(2, 2), launch(3, 3)]
    assert stats.latency(launches).median == 2


def test_percentiles_and_minimum_are_over_all_samples() -> None:
    launches = [launch(*range(1, 6)), launch(*range(6, 12))]
    latency = stats.latency(launches)
    assert (latency.p10, latency.p90, latency.min) == (2, 10, 1)


def test_the_spread_of_launches_is_the_standard_deviation_of_their_medians() -> None:
    assert stats.latency([launch(1, 1, 9), launch(3)]).launch_std == pytest.approx(2**0.5)


def test_one_launch_has_no_spread_and_one_sample_is_every_figure() -> None:
    latency = stats.latency([launch(4.2)])
    assert (latency.median, latency.p10, latency.p90, latency.min) == (4.2, 4.2, 4.2, 4.2)
    assert latency.launch_std is None


@given(st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=9), min_size=1, max_size=5))
def test_figures_stand_in_order(samples: list[list[int]]) -> None:
    latency = stats.latency([Launch(1, 1, tuple(ns), None, {}, {}) for ns in samples])
    assert latency.min <= latency.p10 <= latency.p90 <= max(map(max, samples)) / 1e6
    assert latency.min <= latency.median <= max(map(max, samples)) / 1e6


# Verdicts


@given(st.lists(steady, min_size=1, max_size=6))
def test_samples_within_two_percent_are_stable(launches: list[list[float]]) -> None:
    assert stats.verdict(result([launch(*ms) for ms in launches])) == "stable"


@pytest.mark.parametrize("later", [1.06, 0.94])
def test_launches_that_grow_slower_or_faster_are_drifting(later: float) -> None:
    assert stats.verdict(result([launch(1, 1), launch(1), launch(later), launch(later, later)])) == "drifting"


def test_a_change_of_less_than_five_percent_is_no_drift() -> None:
    assert stats.verdict(result([launch(1), launch(1), launch(1.04), launch(1.04)])) == "stable"


def test_a_single_launch_is_judged_by_its_samples() -> None:
    assert stats.verdict(result([launch(1, 1, 1, 1.2, 1.2, 1.2)])) == "drifting"
    assert stats.verdict(result([launch(1, 1, 1, 1, 1, 1.2)])) == "stable"


def test_a_launch_in_which_the_device_counted_throttling_is_throttled() -> None:
    throttled = launch(1, before={"throttle_count": 3}, after={"throttle_count": 4})
    assert stats.verdict(result([launch(1), throttled, launch(1)])) == "throttled"


def test_a_count_of_earlier_throttling_says_nothing() -> None:
    earlier = launch(1, before={"throttle_count": 3}, after={"throttle_count": 3})
    assert stats.verdict(result([earlier, earlier])) == "stable"


@pytest.mark.parametrize(
    ("before", "after", "limits"),
    [
        (0x0, 0x0, ()),
        (0x50000, 0x50000, ()),  # since its start, but not now
        (0x0, 0x4, ("throttling",)),
        (0x4, 0x40000, ("throttling",)),
        (0x0, 0x10000, ("under-voltage",)),  # it came and went between the two
        (0x10000, 0xD0000, ("throttling", "soft temperature limit")),
        (0x2, 0x2, ("capped frequency",)),
        (None, None, ()),
    ],
)
def test_a_pis_throttled_bits_count_where_they_are_set_now_or_newly(
    before: int | None, after: int | None, limits: tuple[str, ...]
) -> None:
    run = launch(1, before={"throttled_bits": before}, after={"throttled_bits": after})
    assert stats.limits(run.before, run.after) == limits
    assert stats.verdict(result([run])) == ("throttled" if limits else "stable")


@pytest.mark.parametrize(("khz", "verdict"), [([1_300_000], "throttled"), ([1_400_000], "stable"), ([], "stable")])
def test_a_clock_a_tenth_below_its_maximum_is_throttled(khz: list[int], verdict: str) -> None:
    facts = {"max_khz": [1_500_000]}
    assert stats.verdict(result([launch(1, after={"khz": khz})], facts=facts)) == verdict


def test_a_fast_cluster_that_keeps_its_clock_is_enough() -> None:
    """Little cores of a phone run slower than its big ones by design."""
    facts = {"max_khz": [1_800_000, 2_800_000]}
    assert stats.verdict(result([launch(1, after={"khz": [600_000, 2_800_000]})], facts=facts)) == "stable"


def test_throttling_is_said_before_drift() -> None:
    throttled = launch(2, before={"throttle_count": 0}, after={"throttle_count": 9})
    assert stats.verdict(result([launch(1), throttled])) == "throttled"


# Circumstances


def test_stolen_time_is_the_share_of_all_ticks_meanwhile() -> None:
    after = {"steal_ticks": 60, "total_ticks": 1200}
    assert stats.steal(launch(1, after=after)) == 0.25


@pytest.mark.parametrize("after", [{"steal_ticks": None}, {}])
def test_stolen_time_is_unknown_where_it_is_not_told_or_no_tick_passed(after: dict[str, int | None]) -> None:
    assert stats.steal(launch(1, after=after)) is None


def test_a_profiled_run_is_counted_without_what_passes_between_operators() -> None:
    assert stats.invoke_us(profile(invoke_us=(1000, 1400), between_us=(100, 300))) == 1000


def test_the_profilers_overhead_is_against_plain_runs_of_its_own_process() -> None:
    assert stats.overhead(profile(invoke_us=(1250, 1250, 9000))) == pytest.approx(0.25)


# Estimates

values = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=6, max_size=12)


def walsh(values: Sequence[float]) -> list[float]:
    return sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])


@pytest.mark.parametrize(("n", "outside"), [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (12, 13), (15, 25), (20, 52)])
def test_the_interval_leaves_out_as_many_means_as_the_table_of_the_signed_rank_test_has(n: int, outside: int) -> None:
    """Critical values of W, two-sided 0.05: Wilcoxon, Wilcox, Some Rapid Approximate Statistical Procedures, 1964."""
    given = [1.7**i for i in range(n)]
    estimate = stats.hodges_lehmann(given)
    assert estimate.low == walsh(given)[outside]
    assert estimate.high == walsh(given)[-1 - outside]


@pytest.mark.parametrize("n", range(1, 6))
def test_five_values_are_too_few_for_a_bounded_interval(n: int) -> None:
    estimate = stats.hodges_lehmann([0.1] * n)
    assert (estimate.low, estimate.value, estimate.high) == (-math.inf, 0.1, math.inf)
    assert stats.ratio([0.0] * n) == stats.Estimate(0, 1, math.inf)


def test_an_interval_of_less_confidence_needs_fewer_values() -> None:
    assert stats.hodges_lehmann([1, 2, 3, 4], confidence=0.8) == stats.Estimate(1, 2.5, 4)


@given(values, st.floats(0.9, 0.99))
def test_the_interval_holds_what_the_exact_test_does_not_reject(given: list[float], confidence: float) -> None:
    """By going through every way of giving signs, of which each is as likely if the location is right."""
    estimate = stats.hodges_lehmann(given, confidence)
    n, ranks = len(given), range(1, len(given) + 1)
    sums = sorted(sum(r for r in ranks if signs >> (r - 1) & 1) for signs in range(2**n))
    inside = estimate.value
    for candidate, rejected in ((inside, False), (estimate.low - 1e-6, True), (estimate.high + 1e-6, True)):
        above = sum(mean > candidate for mean in walsh(given))
        ties = sum(mean == candidate for mean in walsh(given))
        low = min(above + ties, len(walsh(given)) - above)
        p = 2 * bisect.bisect_right(sums, low) / 2**n
        assert (p <= 1 - confidence + 1e-12) == rejected or abs(candidate) == math.inf


@given(values, st.floats(-3, 3), st.floats(0.1, 3))
def test_estimates_move_with_the_values(given: list[float], shift: float, scale: float) -> None:
    before = stats.hodges_lehmann(given)
    after = stats.hodges_lehmann([shift + scale * v for v in given])
    mirrored = stats.hodges_lehmann([-v for v in given])
    moved = [shift + scale * x for x in (before.low, before.value, before.high)]
    assert [after.low, after.value, after.high] == pytest.approx(moved, abs=1e-9)
    assert [-mirrored.high, -mirrored.value, -mirrored.low] == pytest.approx([before.low, before.value, before.high])


def test_ninety_five_of_a_hundred_intervals_hold_the_truth() -> None:
    source, held = random.Random(0), 0
    for _ in range(1000):
        estimate = stats.hodges_lehmann([source.gauss(0.5, 1) for _ in range(10)])
        held += estimate.low <= 0.5 <= estimate.high
    assert 935 <= held <= 970


def test_one_wild_value_moves_the_estimate_little() -> None:
    calm = [0.01 * i for i in range(12)]
    assert stats.hodges_lehmann([*calm[:-1], 1000.0]).value == pytest.approx(0.055, abs=0.01)


def test_a_ratio_is_estimated_on_its_logarithms() -> None:
    logs = [math.log(x) for x in (1.8, 2, 2, 2, 2, 2.2)]
    estimate = stats.ratio(logs)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((1.8, 2, 2.2))


def test_what_slows_both_of_two_neighbours_does_not_change_their_ratio() -> None:
    slowing = [1, 1, 3, 10, 1]
    numerators = [[2 * s, 2 * s, 2 * s] for s in slowing]
    denominators = [[s, s, s] for s in slowing]
    assert stats.log_ratio(numerators, denominators) == pytest.approx(math.log(2))


def test_a_disturbed_run_and_a_disturbed_burst_have_no_say() -> None:
    numerators = [[2, 2, 900], [2, 2, 2], [700, 700, 700]]
    assert stats.log_ratio(numerators, [[1, 1, 1]] * 3) == pytest.approx(math.log(2))


# The interval of a median


@pytest.mark.parametrize("n", range(2, 15))
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(n: int) -> None:
    """Each value lies below or above the median like a coin: all 2^n ways are counted."""
    interval = stats.median_interval(list(range(n)))
    assert interval is not None
    ways = [below.bit_count() for below in range(2**n)]  # so many values lie below the median
    held = sum(interval.low < below <= interval.high for below in ways) / 2**n
    assert held == pytest.approx(interval.confidence)
    narrower = sum(interval.low + 1 < below <= interval.high - 1 for below in ways) / 2**n
    assert held >= 0.95 > narrower if n >= 6 else (interval.low, interval.high) == (0, n - 1)


def test_one_value_tells_no_interval() -> None:
    assert stats.median_interval([1.0]) is None
    assert stats.latency_interval([launch(1, 2, 3)]) is None


def test_the_interval_of_a_latency_is_of_the_launches_medians_in_milliseconds() -> None:
    assert stats.latency_interval([launch(1, 2, 9), launch(3), launch(5)]) == stats.Interval(2, 5, 0.75)
