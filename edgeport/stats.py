"""Estimators over raw samples. Pure: numbers in, numbers out."""

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from statistics import median, quantiles, stdev
from typing import Any

import msgspec

from edgeport.records import Launch, OpProfile, Result

DRIFT = 0.05
SLOW_CLOCK = 0.9
CONFIDENCE = 0.95
ENOUGH_RUNS = 16  # without preemption, for a breakdown
DISTURBED = 1.1
SHUTDOWN = 6  # the worst of Android's ThrottlingSeverity
LIMITS = ("under-voltage", "capped frequency", "throttling", "soft temperature limit")  # bits of get_throttled


Times = Sequence[Sequence[float]]


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds. median: of the launches' medians; launch_std: their standard deviation (None for one launch);
    p10, p90, min: over all samples.
    """

    median: float
    p10: float
    p90: float
    min: float
    launch_std: float | None


def latency(launches: Sequence[Launch]) -> Latency:
    """Of at least one launch with at least one sample."""
    medians = [median(launch.samples_ns) for launch in launches]
    samples = [ns for launch in launches for ns in launch.samples_ns]
    tenths = quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else samples * 9
    return Latency(
        median=median(medians) / 1e6,
        p10=tenths[0] / 1e6,
        p90=tenths[-1] / 1e6,
        min=min(samples) / 1e6,
        launch_std=stdev(medians) / 1e6 if len(medians) > 1 else None,
    )


class Interval(msgspec.Struct, frozen=True):
    """Holds what it is of with this confidence."""

    low: float
    high: float
    confidence: float


def latency_interval(launches: Sequence[Launch]) -> Interval | None:
    """Of the median of latency(), milliseconds; None for one launch. What is alike in all launches of a session, such
    as a busy machine, moves the whole interval: between sessions medians differ by more.
    """
    return median_interval([median(launch.samples_ns) / 1e6 for launch in launches])


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of the sign test, between two of the values: the narrowest with at least that confidence, else the
    widest there is, of less (five values: 93.75%); None for one value. Assumes independent values alone.
    Hollander, Wolfe: Nonparametric Statistical Methods, 3.6.
    """
    n, values = len(values), sorted(values)
    if n < 2:
        return None
    outside, tail = 0, 0.5**n  # tail: P(at most `outside` of the values lie below the median)
    while 2 * (more := tail + math.comb(n, outside + 1) * 0.5**n) <= 1 - confidence:
        outside, tail = outside + 1, more
    return Interval(values[outside], values[-1 - outside], 1 - 2 * tail)


class Estimate(msgspec.Struct, frozen=True):
    """A location and its confidence interval; low and high are infinite where there are too few values for one."""

    low: float
    value: float
    high: float


def hodges_lehmann(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Median of the means of all pairs (each value with itself too), with the exact interval of the signed-rank test.

    Assumes independent values, symmetric about the location; nothing of their shape. The interval holds the location
    with at least that confidence; five values or fewer give none at 95%. Hollander, Wolfe: Nonparametric Statistical
    Methods, 3.2 and 3.3.
    """
    means = sorted((a + b) / 2 for a, b in combinations_with_replacement(values, 2))
    outside = _outside(len(values), (1 - confidence) / 2)
    if outside is None:
        return Estimate(-math.inf, median(means), math.inf)
    return Estimate(means[outside], median(means), means[-1 - outside])


def share(log: float) -> float:
    """A logarithm of a ratio as the share by which it is off 1: 0.03 is 3% more."""
    return log if math.isinf(log) else math.expm1(log)


def ratio(logs: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """hodges_lehmann() of logarithms of ratios, as a ratio."""
    estimate = hodges_lehmann(logs, confidence)
    return Estimate(math.exp(estimate.low), math.exp(estimate.value), math.exp(estimate.high))


def log_ratio(numerators: Sequence[Sequence[float]], denominators: Sequence[Sequence[float]]) -> float:
    """Of two things timed in alternation: the median, over pairs of neighbouring bursts, of the logarithm of the ratio
    of their medians.
    """
    pairs = zip(numerators, denominators, strict=True)
    return median(math.log(median(n) / median(d)) for n, d in pairs)


@functools.cache
def _outside(n: int, tail: float) -> int | None:
    """The largest k with P(W <= k) <= tail, W being the signed-rank statistic of n values; None if there is none.

    So many of the sorted means of pairs lie outside the interval at each end.
    """
    counts = [1]  # counts[w]: in how many of the 2^n ways of giving signs the ranks 1 to n with a plus add up to w
    for rank in range(1, n + 1):
        longer = counts + [0] * rank
        counts = [c + (longer[w - rank] if w >= rank else 0) for w, c in enumerate(longer)]
    below, k = 0, -1
    while below + counts[k + 1] <= tail * 2**n:
        below, k = below + counts[k + 1], k + 1
    return k if k >= 0 else None


def verdict(result: Result) -> str:
    """throttled, drifting or stable: whether the numbers describe the device, or what happened to it meanwhile.

    throttled: the device counted throttling events, told of a limit (limits()), or its clock ended more than a tenth
    below its maximum.
    drifting: the second half of the launches (of the samples, if there is one launch) is more than 5% off the first.
    """
    if any(throttled(launch.before, launch.after, result.facts) for launch in result.launches):
        return "throttled"
    series = [median(launch.samples_ns) for launch in result.launches]
    if len(series) == 1:
        series = list(result.launches[0].samples_ns)
    half = len(series) // 2
    if half and abs(median(series[-half:]) / median(series[:half]) - 1) > DRIFT:
        return "drifting"
    return "stable"


def limits(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What the device said to slow it down, around some runs or newly during them, by the snapshots around them.

    Bits of get_throttled (Raspberry Pi, documentation of vcgencmd): 0 to 3 are so now, 16 to 19 were so since its
    start, and tell nothing of these runs where they were set before. Android's thermal status is ThrottlingSeverity.
    """
    was, is_ = before.get("throttled_bits") or 0, after.get("throttled_bits") or 0
    bits = was | is_ | (is_ >> 16 & ~(was >> 16))
    status = max(before.get("thermal_status") or 0, after.get("thermal_status") or 0)
    thermal = (f"thermal status {status} of {SHUTDOWN}",) if status else ()
    return (*(name for bit, name in enumerate(LIMITS) if bits >> bit & 1), *thermal)


def steal(launch: Launch) -> float | None:
    """Share of the processors' time that the hypervisor gave to others during the timed runs, None if not told."""
    before, after = launch.before, launch.after
    if before.get("steal_ticks") is None or after.get("steal_ticks") is None:
        return None
    total = after["total_ticks"] - before["total_ticks"]
    return (after["steal_ticks"] - before["steal_ticks"]) / total if total > 0 else None


def typical_runs(invoke_us: Sequence[float], preempted: Sequence[int]) -> tuple[int, ...]:
    """Positions of the profiled runs that a breakdown is the mean of, in order: the middle half, by their whole time,
    of those that were preempted least.

    One operator that another program interrupts once in 16 runs would else seem to take most of a network. Runs that
    were never preempted are taken if they are a quarter of all, or ENOUGH_RUNS; otherwise those that were up to as
    often as needed for so many. All runs where nothing tells how often they were (preempted is empty).
    """
    if not preempted:
        return tuple(range(len(invoke_us)))
    enough = min(ENOUGH_RUNS, math.ceil(len(preempted) / 4))
    most = sorted(preempted)[enough - 1]
    calm = sorted((i for i, n in enumerate(preempted) if n <= most), key=lambda i: invoke_us[i])
    outside = len(calm) // 4
    return tuple(sorted(calm[outside : len(calm) - outside]))


def runs_set_aside(profile: OpProfile) -> int:
    """How many of the profiled runs the breakdown is not made of."""
    return len(profile.invoke_us) - len(typical_runs(profile.invoke_us, profile.preempted))


def quicker_half(us: Sequence[float]) -> float:
    """The mean of the smaller half of some times: what something takes where it is interrupted less than every second
    time, whatever an interruption takes.
    """
    half = sorted(us)[: math.ceil(len(us) / 2)]
    return sum(half) / len(half)


def is_disturbed(invoke_us: Sequence[float], between_us: Sequence[float], preempted: Sequence[int], ops: Times) -> bool:
    """Whether even the typical runs were so often interrupted that they last a tenth longer than what their operators
    take when they are not. ops: the times of each, one a run.
    """
    if not preempted or not ops:
        return False
    undisturbed = _sum_of_parts(invoke_us, between_us, ops)
    return _mean_of_runs(invoke_us, between_us, preempted) > DISTURBED * undisturbed


def invoke_us(profile: OpProfile) -> float:
    """What shares are of: a run by the runtime's own profiler, less what passes between operators. The mean of the
    typical runs, or where all were disturbed the sum of what the operators, and the rest, take in their quicker half.
    """
    if profile.disturbed:
        return _sum_of_parts(profile.invoke_us, profile.between_us, [op.runs_us for op in profile.ops])
    return _mean_of_runs(profile.invoke_us, profile.between_us, profile.preempted)


def _mean_of_runs(invoke_us: Sequence[float], between_us: Sequence[float], preempted: Sequence[int]) -> float:
    typical = typical_runs(invoke_us, preempted)
    return sum(invoke_us[i] - between_us[i] for i in typical) / len(typical)


def _sum_of_parts(invoke_us: Sequence[float], between_us: Sequence[float], ops: Times) -> float:
    rest = [whole - between - sum(us) for whole, between, *us in zip(invoke_us, between_us, *ops, strict=True)]
    return sum(map(quicker_half, ops)) + quicker_half(rest)


def overhead(profile: OpProfile) -> float:
    """How much slower a run is with the profiler on: 0.1 is 10%. By plain runs of the same process, right beside."""
    return median(profile.invoke_us) * 1e3 / median(profile.plain_ns) - 1


def throttled(before: Mapping[str, Any], after: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether the device counted throttling between the two snapshots, or its clock ended a tenth below its maximum."""
    earlier, later = before.get("throttle_count"), after.get("throttle_count")
    if earlier is not None and later is not None and later > earlier:
        return True
    if limits(before, after):
        return True
    clocks, most = after.get("khz") or [], facts.get("max_khz") or []
    return bool(clocks and most) and max(clocks) < SLOW_CLOCK * max(most)
