"""What a profile's operators add up to: by class, by module, one by one. Pure."""

from collections.abc import Sequence

import msgspec

from edgeport import stats
from edgeport.attribution import CLASS_NAMES
from edgeport.records import OpProfile, OpTime

UNATTRIBUTED = "(unattributed)"
ROOT = "(network)"
BY = ("class", "op", "module")


class Line(msgspec.Struct, frozen=True):
    """share: of the run's time by the profiler. bytes: read and written, weights too."""

    key: str
    us: float
    share: float
    madds: int
    bytes: int

    @property
    def gmacs(self) -> float:
        """Giga multiply-adds a second."""
        return self.madds / self.us / 1e3 if self.us else 0.0


def by_class(profile: OpProfile) -> list[Line]:
    """The classes of Fig. 2, in its order, then what belongs to no operator."""
    lines = [_line(profile, name, [o for o in profile.ops if o.class_ == name]) for name in CLASS_NAMES]
    rest = stats.invoke_us(profile) - sum(o.us for o in profile.ops)
    return [*lines, Line(UNATTRIBUTED, rest, rest / stats.invoke_us(profile), 0, 0)]


def by_module(profile: OpProfile, depth: int) -> list[Line]:
    """Modules cut off below this depth (0: the network alone), slowest first; then what belongs to none."""
    groups: dict[str, list[OpTime]] = {}
    for op in profile.ops:
        if op.module is not None:
            groups.setdefault(module_label(op.module, depth), []).append(op)
    lines = [_line(profile, name, ops) for name, ops in groups.items()]
    rest = stats.invoke_us(profile) - sum(line.us for line in lines)
    ordered = sorted(lines, key=lambda line: -line.us)
    return [*ordered, Line(UNATTRIBUTED, rest, rest / stats.invoke_us(profile), 0, 0)]


def by_op(profile: OpProfile) -> list[tuple[OpTime, Line]]:
    """Operators in the order in which they ran."""
    return [(op, _line(profile, op.name, [op])) for op in profile.ops]


def unattributed_share(profile: OpProfile) -> float:
    """Share of the run's time that no module of the network can be given."""
    attributed = sum(op.us for op in profile.ops if op.module is not None)
    return 1 - attributed / stats.invoke_us(profile)


def module_label(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth]) or ROOT


def _line(profile: OpProfile, key: str, ops: Sequence[OpTime]) -> Line:
    us = sum(op.us for op in ops)
    return Line(key, us, us / stats.invoke_us(profile), sum(op.madds for op in ops), sum(op.bytes for op in ops))
