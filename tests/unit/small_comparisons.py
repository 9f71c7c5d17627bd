"""Comparisons made up of block values that are easy to work out by hand."""

import math
from collections.abc import Sequence
from typing import Any

from small_results import MS, result

from edgeport.compare import BASELINE, CANDIDATE, COPY, Values
from edgeport.records import Comparison, Criteria, Result, Session, TimedBlock

WIGGLE = 1e-5  # so that no two blocks are equal


def told(slowdown: float, blocks: int = 20, own: float = 0.0, spread: float = 0.001) -> Values:
    """So many blocks around a slowdown, and around a difference between the baseline and its copy."""
    steps = [spread * (n / (blocks - 1) - 0.5) if blocks > 1 else 0.0 for n in range(blocks)]
    return Values(tuple(math.log1p(slowdown) + s for s in steps), tuple(math.log1p(own) + s for s in steps))


def block(slowdown: float = 0.0, own: float = 0.0, ms: float = 2.0, **telemetry: Any) -> TimedBlock:
    """The copy takes 1 + own times as long as the baseline, the candidate 1 + slowdown times their geometric mean."""
    times = {
        BASELINE: ms,
        COPY: ms * (1 + own),
        CANDIDATE: ms * (1 + slowdown) * math.sqrt(1 + own),
    }
    ns: dict[str, tuple[tuple[int, ...], ...]] = {arm: ((round(t * MS),) * 3,) * 4 for arm, t in times.items()}
    none: dict[str, tuple[tuple[int, ...], ...]] = dict.fromkeys(times, ((0, 0, 0),) * 4)
    return TimedBlock(ns, none, none, telemetry.get("before", {}), telemetry.get("after", {}))


def session(slowdown: float = 0.0, blocks: int = 10, own: float = 0.0) -> Session:
    return Session(0, tuple(block(slowdown + n * WIGGLE, own + n * WIGGLE) for n in range(blocks)))


def comparison(
    *sessions: Session, before: Result | None = None, after: Result | None = None, **fields: Any
) -> Comparison:
    given: dict[str, Any] = {
        "name": "net int8 litert",
        "device": "local",
        "criteria": Criteria(),
        "cores": (1,),
        "nice": 0,
        "max_minutes": 10.0,
        **fields,
    }
    sides: Sequence[Result] = before or result(), after or result()
    return Comparison(baselines=(sides[0],), candidates=(sides[1],), sessions=sessions, **given)
