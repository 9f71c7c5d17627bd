"""Whether a candidate is slower than its baseline, and how sure that is: values of blocks in, a verdict out. Pure.

A session is judged at up to four looks, after 10, 20, 40 and 80 blocks, by exact confidence intervals that need
nothing to be normally distributed; each look spends a quarter of alpha (Bonferroni over looks: Jennison, Turnbull: Group
Sequential Methods, 2000, 2). Where several comparisons are made together, the bound that calls a regression (or an
improvement) is taken at alpha over their number (Bonferroni again: with looks, there are no p-values to order, as Holm
would).
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from edgeport import stats
from edgeport.errors import UsageError
from edgeport.records import Criteria, Result, Session, TimedBlock
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
    as far as the effect goes, or unclear. contaminated: something told the baseline from its own copy.
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


def criteria(tolerance: float, effect: float | None, alpha: float, comparisons: int = 1) -> Criteria:
    """effect: 2.5 times the tolerance unless given. Raises UsageError for what cannot be decided by."""
    effect = EFFECT_PER_TOLERANCE * tolerance if effect is None else effect
    if not 0 < tolerance < effect < 10:
        raise UsageError(
            f"--tolerance {tolerance:.2%} and --effect {effect:.2%}: a slowdown is tolerated up to the one and must be "
            "found from the other on, so give 0 < tolerance < effect"
        )
    if not 0 < alpha < 0.5:
        raise UsageError(f"--alpha {alpha:g}: give a chance of a false alarm above 0 and below 0.5")
    return Criteria(tolerance, effect, alpha, comparisons)


def change(block: TimedBlock) -> float:
    """ln(candidate / baseline): the median over bursts, the baseline's time being the geometric mean of its two arms',
    which halves its own part in the noise and leaves that noise's other half, ln(copy / baseline), to noise().
    """
    rows = zip(*(map(median, block.ns[arm]) for arm in (CANDIDATE, BASELINE, COPY)), strict=True)
    return median(math.log(c) - (math.log(b) + math.log(copy)) / 2 for c, b, copy in rows)


def noise(block: TimedBlock) -> float:
    """ln(copy / baseline): what there is between two processes that run the same file."""
    return stats.log_ratio(block.ns[COPY], block.ns[BASELINE])


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
    if strict.low > tolerance:
        finding = SLOWER
    elif strict.high < -tolerance:
        finding = FASTER
    else:
        finding = SAME if plain.high < math.log1p(by.effect) else UNCLEAR
    contaminated = own.low > 0 or own.high < 0 or abs(own.value) > tolerance / 2
    shown = Estimate(strict.low, plain.value, strict.high if finding == FASTER else plain.high)
    return Reading(len(told.changes), shown, own, finding, contaminated)


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


# Comparable or not


def differences(before: Result, after: Result) -> tuple[str, ...]:
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
    return tuple(f"another {what}: {b} before, {a} now" for what, b, a in pairs if b != a)


def _device(result: Result) -> str:
    facts = result.facts
    return str(facts.get("device_model") or "") + f" ({facts.get('cpu_model') or facts.get('machine')})"


def _governors(result: Result) -> str:
    return ", ".join(result.facts.get("governors") or ()) or "none told"


def _emulated(result: Result) -> str:
    return "emulated" if result.facts.get("emulated") else "real"


def _inputs(result: Result) -> str:
    return ", ".join(f"{i.dtype} {'x'.join(map(str, i.shape))}" for i in result.inputs)
