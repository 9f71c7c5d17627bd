"""What a profile's operators add up to: by class, by module, one by one. Pure."""

import math
from collections.abc import Sequence

import msgspec

from edgeport import stats
from edgeport.attribution import CLASS_NAMES
from edgeport.records import OpProfile, OpTime

UNATTRIBUTED = "(unattributed)"
ROOT = "(network)"
BY = ("class", "op", "module")
# A run below SHORT_US is too short to break down where operators are told for less than this share of it; any run is
# where the error of their sum, each being rounded to a microsecond, is above that share of it.
SHORT_US, SHORT_TOLD, SHORT_ERROR = 200.0, 0.75, 0.05
TICK_DEVIATION_US = 12**-0.5
DISTURBED = (
    "other programs interrupted every run with the profiler on: times by operator are of each one's own quicker half"
)
TOO_SHORT = "a run is too short for the profiler's clock and cost: its breakdown tells little"


class Line(msgspec.Struct, frozen=True):
    """share: of the run's time by the profiler. madds, and bytes read and written, weights too: of the operators of
    which they are known; unknown_madds, unknown_bytes: how many there are of which they are not.
    """

    key: str
    us: float
    share: float
    madds: int
    bytes: int
    unknown_madds: int = 0
    unknown_bytes: int = 0

    @property
    def gmacs(self) -> float:
        """Giga multiply-adds a second."""
        return self.madds / self.us / 1e3 if self.us else 0.0


def by_class(profile: OpProfile) -> list[Line]:
    """The classes of Fig. 2, in its order, then what belongs to no operator."""
    whole = stats.invoke_us(profile)
    lines = [_line(whole, name, [o for o in profile.ops if o.class_ == name]) for name in CLASS_NAMES]
    rest = whole - sum(o.us for o in profile.ops)
    return [*lines, Line(UNATTRIBUTED, rest, _share(rest, whole), 0, 0)]


def by_module(profile: OpProfile, depth: int) -> list[Line]:
    """Modules cut off below this depth (0: the network alone), slowest first; then what belongs to none."""
    groups: dict[str, list[OpTime]] = {}
    for op in profile.ops:
        if op.module is not None:
            groups.setdefault(module_label(op.module, depth), []).append(op)
    whole = stats.invoke_us(profile)
    lines = [_line(whole, name, ops) for name, ops in groups.items()]
    rest = whole - sum(line.us for line in lines)
    ordered = sorted(lines, key=lambda line: -line.us)
    return [*ordered, Line(UNATTRIBUTED, rest, _share(rest, whole), 0, 0)]


def by_op(profile: OpProfile) -> list[tuple[OpTime, Line]]:
    """Operators in the order in which they ran."""
    whole = stats.invoke_us(profile)
    return [(op, _line(whole, op.name, [op])) for op in profile.ops]


class Change(msgspec.Struct, frozen=True):
    """Operators of one module, and of one kind unless that is "": how many there are and how long they take."""

    module: str
    op: str
    ops_before: int
    ops_after: int
    us_before: float
    us_after: float

    @property
    def us(self) -> float:
        return self.us_after - self.us_before


def changes(before: Sequence[OpProfile], after: Sequence[OpProfile], depth: int, by_op: bool = False) -> list[Change]:
    """What takes longer or shorter than before, by module or by module and kind of operator, the largest change first.

    Each side is profiled several times, and the quickest time counts: what else a device does only adds to times.
    """
    old, new = _quickest(before, depth, by_op), _quickest(after, depth, by_op)
    none = (0, 0.0)
    made = []
    for module, op in {**old, **new}:
        (count_before, us_before), (count_after, us_after) = old.get((module, op), none), new.get((module, op), none)
        made.append(Change(module, op, count_before, count_after, us_before, us_after))
    return sorted(made, key=lambda change: -abs(change.us))


def _quickest(profiles: Sequence[OpProfile], depth: int, by_op: bool) -> dict[tuple[str, str], tuple[int, float]]:
    """{(module, kind of operator): (how many, us)}."""
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for profile in profiles:
        groups: dict[tuple[str, str], list[OpTime]] = {}
        for op in profile.ops:
            module = UNATTRIBUTED if op.module is None else module_label(op.module, depth)
            groups.setdefault((module, op.op if by_op else ""), []).append(op)
        for key, ops in groups.items():
            us = sum(op.us for op in ops)
            found[key] = len(ops), min(us, found.get(key, (0, us))[1])
    return found


def unattributed_share(profile: OpProfile) -> float:
    """Share of the run's time that no module of the network can be given."""
    attributed = sum(op.us for op in profile.ops if op.module is not None)
    return 1 - _share(attributed, stats.invoke_us(profile))


def is_too_short(profile: OpProfile) -> bool:
    """Whether a run is over before the profiler can tell its operators: most of it is the profiler's own, some 20 us a
    run in LiteRT, or the operators last a few of the whole microseconds that it counts.
    """
    whole, told = stats.invoke_us(profile), sum(op.us for op in profile.ops)
    error_us = TICK_DEVIATION_US * math.sqrt(len(profile.ops))
    return (whole < SHORT_US and told < SHORT_TOLD * whole) or error_us > SHORT_ERROR * whole


def module_label(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth]) or ROOT


def _line(whole: float, key: str, ops: Sequence[OpTime]) -> Line:
    us = sum(op.us for op in ops)
    return Line(
        key=key,
        us=us,
        share=_share(us, whole),
        madds=sum(op.madds or 0 for op in ops),
        bytes=sum(op.bytes or 0 for op in ops),
        unknown_madds=sum(op.madds is None for op in ops),
        unknown_bytes=sum(op.bytes is None for op in ops),
    )


def _share(us: float, whole: float) -> float:
    """0 of a run that is too short for the profiler's clock."""
    return us / whole if whole > 0 else 0.0
