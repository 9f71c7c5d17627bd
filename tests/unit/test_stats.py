"""Latency figures and verdicts on samples made by hand."""

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
