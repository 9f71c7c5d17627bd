"""Whether a candidate is slower than its baseline, and how sure that is: values of blocks in, a verdict out. Pure.

A session is judged at up to four looks, after 10, 20, 40 and 80 blocks, by exact confidence intervals that need
nothing to be normally distributed; each look spends a quarter of alpha, so that together they spend alpha at most
(Bonferroni). Where several comparisons are made together, the bound that calls a regression (or an improvement) is
taken at alpha over their number (Bonferroni again: with looks there are no p-values to order, as Holm would).
"""

import math
from collections.abc import Sequence
from statistics import median, stdev
from typing import Any

import msgspec

from edgeport import stats
from edgeport.errors import EXIT_INCONCLUSIVE, EXIT_PASS, EXIT_REGRESSED, UsageError
from edgeport.records import Comparison, Criteria, Result, Session, TimedBlock
from edgeport.stats import Estimate

BASELINE, COPY, CANDIDATE = "baseline0", "baseline1", "candidate"  # as long as each other: see edgeport.session
LOOKS = (10, 20, 40, 80)
EFFECT_PER_TOLERANCE = 2.5
PASS, IMPROVED, REGRESSED, INCONCLUSIVE = "PASS", "IMPROVED?", "REGRESSED", "INCONCLUSIVE"
SLOWER, FASTER, SAME, UNCLEAR = "slower", "faster", "same", "unclear"


class Values(msgspec.Struct, frozen=True):
    """What a session's blocks tell, in their order. changes: ln(candidate / baseline); noises: ln(copy / baseline)."""

    changes: tuple[float, ...]
    noises: tuple[float, ...]


class Reading(msgspec.Struct, frozen=True):
    """A session at a look. change, noise: logarithms of ratios. finding: slower than the tolerance, faster, the same
    as far as the effect goes, or unclear. contaminated: something told the baseline from its own copy, which is so
    where the interval of the noise excludes 0; or the noise is above half of the tolerance, and what was found does not
    hold against the one of the two as it does against the other.
    """

    blocks: int
    change: Estimate
    noise: Estimate
    finding: str
    contaminated: bool

    @property
    def decided(self) -> bool:
        return self.finding != UNCLEAR and not self.contaminated


class Verdict(msgspec.Struct, frozen=True):
    """outcome: PASS, IMPROVED?, REGRESSED or INCONCLUSIVE; reason: in words. slowdown, noise: shares, 0.03 is 3%, of
    the last session, with the interval that decided. blocks: of all sessions.
    """

    outcome: str
    reason: str
    slowdown: Estimate | None = None
    noise: Estimate | None = None
    blocks: int = 0


class Check(msgspec.Struct, frozen=True):
    """One thing that a comparison is judged by: latency (ns), size (bytes) or accuracy (share of samples). change: a
    share of the baseline's value, or a difference of shares for the accuracy. outcome: None where it is not judged.
    """

    what: str
    before: float | None
    after: float | None
    change: float | None
    tolerance: float | None
    outcome: str | None
    reason: str


def criteria(tolerance: float, effect: float | None, alpha: float) -> Criteria:
    """effect: 2.5 times the tolerance unless given. Raises UsageError for what cannot be decided by."""
    effect = EFFECT_PER_TOLERANCE * tolerance if effect is None else effect
    if not 0 < tolerance < effect < 10:
        raise UsageError(
            f"--tolerance {tolerance:.2%} and --effect {effect:.2%}: a slowdown is tolerated up to the one and must be "
            "found from the other on, so give 0 < tolerance < effect"
        )
    if not 0 < alpha < 0.5:
        raise UsageError(f"--alpha {alpha:g}: give a chance of a false alarm above 0 and below 0.5")
    return Criteria(tolerance, effect, alpha)


def change(block: TimedBlock) -> float:
    """ln(candidate / baseline): the median over bursts, the baseline's time being the geometric mean of its two arms',
    which halves its own part in the noise and leaves that noise's other half, ln(copy / baseline), to noise().
    """
    candidate, baseline, copy = (_bursts(block, arm) for arm in (CANDIDATE, BASELINE, COPY))
    return median(
        math.log(c) - (math.log(b) + math.log(o)) / 2 for c, b, o in zip(candidate, baseline, copy, strict=True)
    )


def noise(block: TimedBlock) -> float:
    """ln(copy / baseline): what there is between two processes that run the same file."""
    return median(math.log(o / b) for o, b in zip(_bursts(block, COPY), _bursts(block, BASELINE), strict=True))


def _bursts(block: TimedBlock, arm: str) -> list[float]:
    """The median run of each burst, in ns, without what it waited for its core: that is time of other programs."""
    pairs = zip(block.ns[arm], block.waited_ns[arm], strict=True)
    return [median(n - w for n, w in zip(ns, waited, strict=True)) for ns, waited in pairs]


def values(session: Session) -> Values:
    return Values(tuple(map(change, session.blocks)), tuple(map(noise, session.blocks)))


def reading(told: Values, by: Criteria) -> Reading:
    """A session as it stands now. Raises nothing for too few blocks: they are unclear."""
    tail, tolerance = by.alpha / len(LOOKS), math.log1p(by.tolerance)
    if len(told.changes) < LOOKS[0]:
        nothing = Estimate(-math.inf, median(told.changes) if told.changes else 0.0, math.inf)
        return Reading(len(told.changes), nothing, nothing, UNCLEAR, False)
    plain, strict = (stats.hodges_lehmann(told.changes, 1 - 2 * t) for t in (tail, tail / by.comparisons))
    own = stats.hodges_lehmann(told.noises, 1 - 2 * tail)
    finding = _finding(strict, plain.high, by, 0.0)
    # the baseline is the mean of two arms: each is half of their difference away from it
    doubt = abs(own.value) / 2 if abs(own.value) > tolerance / 2 else 0.0
    contaminated = own.low > 0 or own.high < 0 or _finding(strict, plain.high, by, doubt) != finding
    shown = Estimate(strict.low, plain.value, strict.high if finding == FASTER else plain.high)
    return Reading(len(told.changes), shown, own, finding, contaminated)


def _finding(strict: Estimate, high: float, by: Criteria, doubt: float) -> str:
    """doubt: by how much the change may be off, besides what its interval tells."""
    tolerance = math.log1p(by.tolerance)
    if strict.low - doubt > tolerance:
        return SLOWER
    if strict.high + doubt < -tolerance:
        return FASTER
    return SAME if high + doubt < math.log1p(by.effect) else UNCLEAR


def is_over(told: Values, by: Criteria) -> bool:
    """Whether a session that is told this much needs no more blocks. It looks after 10, 20, 40 and 80 alone."""
    n = len(told.changes)
    return n >= LOOKS[-1] or (n in LOOKS and reading(told, by).decided)


def needs_second(first: Values, by: Criteria) -> bool:
    """A slowdown counts once an independent session has found it again."""
    found = reading(first, by)
    return found.decided and found.finding == SLOWER


def verdict(sessions: Sequence[Values], by: Criteria) -> Verdict:
    """Of one session, or of two where the first found a slowdown."""
    if not any(s.changes for s in sessions):
        return Verdict(INCONCLUSIVE, "nothing was measured")
    readings = [reading(s, by) for s in sessions]
    last, blocks = readings[-1], sum(r.blocks for r in readings)
    outcome, reason = _judged(readings, by)
    return Verdict(outcome, reason, _as_share(last.change), _as_share(last.noise), blocks)


def _judged(readings: Sequence[Reading], by: Criteria) -> tuple[str, str]:
    last, twice = readings[-1], len(readings) > 1
    again = "a first session found a slowdown, but in the second one " if twice else ""
    if last.blocks < LOOKS[0]:
        return INCONCLUSIVE, f"{again}there was time for {last.blocks} blocks only, and {LOOKS[0]} are the least"
    if last.contaminated:
        own = _as_share(last.noise).value
        return INCONCLUSIVE, f"{again}the baseline differs from its own copy by {own:+.1%}: the device was disturbed"
    if last.finding == UNCLEAR:
        return INCONCLUSIVE, f"{again}the noise leaves both {by.tolerance:.1%} and {by.effect:.1%} possible"
    if last.finding == SLOWER and twice:
        return REGRESSED, f"slower by more than {by.tolerance:.1%} in two independent sessions"
    if last.finding == SLOWER:
        return INCONCLUSIVE, "slower, but there was no time for the second session that would confirm it"
    if twice:
        return INCONCLUSIVE, f"{again}there was none"
    if last.finding == FASTER:
        return IMPROVED, f"faster by more than {by.tolerance:.1%}, in one session"
    return PASS, f"not slower by {by.effect:.1%}"


def _as_share(logs: Estimate) -> Estimate:
    return Estimate(stats.share(logs.low), stats.share(logs.value), stats.share(logs.high))


# Whole comparisons


def latency_verdict(comparison: Comparison) -> Verdict:
    if comparison.differences:
        return Verdict(INCONCLUSIVE, f"not comparable: {'; '.join(comparison.differences)}")
    found = verdict([values(s) for s in comparison.sessions], comparison.criteria)
    dropped, blocks = (sum(len(getattr(s, kind)) for s in comparison.sessions) for kind in ("dropped", "blocks"))
    if not dropped:
        return found
    throttled = f"the device was slowed down in {dropped} of {dropped + blocks} blocks, which do not count"
    return msgspec.structs.replace(found, reason=f"{throttled}; {found.reason}")


def checks(comparison: Comparison) -> list[Check]:
    """Latency, size and, where there were labelled samples, accuracy."""
    found, by = latency_verdict(comparison), comparison.criteria
    change = found.slowdown.value if found.slowdown else None
    before, after = (_nanoseconds(comparison, arm) for arm in (BASELINE, CANDIDATE))
    latency = Check("latency", before, after, change, by.tolerance, found.outcome, found.reason)
    return [latency, _size(comparison), *_accuracy(comparison)]


def outcome(comparison: Comparison) -> str:
    """The worst of its checks."""
    outcomes = [check.outcome for check in checks(comparison)]
    return next(o for o in (REGRESSED, INCONCLUSIVE, IMPROVED, PASS) if o in outcomes)


def exit_code(outcomes: Sequence[str]) -> int:
    """1 for any regression, else 4 for anything that is not known, which no outcome at all is too; 0 for the rest."""
    if REGRESSED in outcomes:
        return EXIT_REGRESSED
    return EXIT_PASS if outcomes and INCONCLUSIVE not in outcomes else EXIT_INCONCLUSIVE


def block_spread(comparison: Comparison) -> float | None:
    """Standard deviation of the changes that the last session's blocks told: the noise of one block."""
    told = values(comparison.sessions[-1]).changes if comparison.sessions else ()
    return stdev(told) if len(told) > 1 else None


def _nanoseconds(comparison: Comparison, arm: str) -> float | None:
    """Median over all runs: for orientation, since what the device did meanwhile is part of it."""
    samples = [ns for s in comparison.sessions for b in s.blocks for burst in b.ns[arm] for ns in burst]
    return median(samples) if samples else None


def _size(comparison: Comparison) -> Check:
    before, after = comparison.baselines[0].size_bytes, comparison.candidates[0].size_bytes
    tolerance, change = comparison.criteria.size_tolerance, after / before - 1
    if tolerance is None:
        return Check("size", before, after, change, None, None, "")
    worse = after - before > round(tolerance * before, 6)
    reason = f"{'more' if worse else 'not more'} than {tolerance:.1%} larger"
    return Check("size", before, after, change, tolerance, REGRESSED if worse else PASS, reason)


def _accuracy(comparison: Comparison) -> list[Check]:
    counted, tolerance = comparison.accuracy, comparison.criteria.accuracy_tolerance
    if counted is None:
        return []
    before, after = (n / counted.samples for n in (counted.baseline_right, counted.candidate_right))
    lost = counted.baseline_right - counted.candidate_right
    said = f"{-lost:+d} of {counted.samples} samples named rightly"
    if tolerance is None:
        return [Check("accuracy", before, after, after - before, None, None, said)]
    result = REGRESSED if lost > round(tolerance * counted.samples, 6) else PASS
    return [Check("accuracy", before, after, after - before, tolerance, result, said)]


# Comparable or not


def differences(before: Result, after: Result, sides: tuple[str, str] = ("baseline", "candidate")) -> tuple[str, ...]:
    """What forbids to hold two results against each other, in words that name both sides; empty if nothing does."""
    pairs: list[tuple[str, Any, Any]] = [
        ("device", _device(before), _device(after)),
        ("runtime", before.runtime, after.runtime),
        ("precision", before.precision, after.precision),
        ("number of threads", before.num_threads, after.num_threads),
        ("frequency governor", _governors(before), _governors(after)),
        ("kind of run", _emulated(before), _emulated(after)),
        ("inputs", _inputs(before), _inputs(after)),
    ]
    if before.runtime == after.runtime:
        pairs.append((f"version of {before.runtime}", before.runtime_version, after.runtime_version))
    return tuple(f"{what}: {b} ({sides[0]}), {a} ({sides[1]})" for what, b, a in pairs if b != a)


def _device(result: Result) -> str:
    facts = result.facts
    return str(facts.get("device_model") or "") + f" ({facts.get('cpu_model') or facts.get('machine')})"


def _governors(result: Result) -> str:
    return ", ".join(result.facts.get("governors") or ()) or "none told"


def _emulated(result: Result) -> str:
    return "emulated" if result.is_emulated else "real"


def _inputs(result: Result) -> str:
    return ", ".join(f"{i.dtype} {'x'.join(map(str, i.shape))}" for i in result.inputs)
