"""Which cores to run on, as --pin names them. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeport.errors import DeviceError, UsageError

MOST_CORES = 8192  # that Linux can be built for
FORMS = "big, little, a mask such as 0xf0, or a list such as 4-7 or 2,3"


def check(pin: str) -> None:
    """Raises UsageError for what no device could be pinned to."""
    if pin and pin not in ("big", "little"):
        _listed(pin)


def cores(pin: str, facts: Mapping[str, Any]) -> tuple[int, ...]:
    """facts: the device's, as its agent told them. big: where exactly two cores are the fastest, those; otherwise all
    but the slowest ones; all where they are equal. little: the slowest ones. Raises UsageError and DeviceError.
    """
    allowed = tuple(facts.get("cores") or range(facts.get("cpus") or 1))
    if pin not in ("big", "little"):
        wanted = _listed(pin)
        if not set(wanted) <= set(allowed):
            raise UsageError(f"--pin {pin}: the device has the cores {', '.join(map(str, allowed))}")
        return wanted
    told = facts.get("core_max_khz") or {}
    khz = {core: told[str(core)] for core in allowed if str(core) in told}
    if len(khz) < len(allowed):
        raise DeviceError(f"--pin {pin}: the device does not tell its cores' frequencies; give a list of cores")
    return _clustered(pin, khz)


def _clustered(pin: str, khz: Mapping[int, int]) -> tuple[int, ...]:
    """khz: each core's highest frequency."""
    slowest, fastest = min(khz.values()), max(khz.values())
    if pin == "little":
        return tuple(core for core in khz if khz[core] == slowest)
    top = tuple(core for core in khz if khz[core] == fastest)
    return top if len(top) in (2, len(khz)) else tuple(core for core in khz if khz[core] > slowest)


def _listed(pin: str) -> tuple[int, ...]:
    try:
        if pin.lower().startswith("0x"):
            mask = int(pin, 16)
            found: Sequence[int] = [core for core in range(mask.bit_length()) if mask >> core & 1]
        else:
            found = [core for part in pin.split(",") for core in _range(part)]
    except ValueError:
        found = ()
    if not found:
        raise UsageError(f"--pin {pin}: write {FORMS}")
    return tuple(sorted(set(found)))


def _range(part: str) -> range:
    first, dash, last = part.partition("-")
    end = int(last if dash else first)
    if end >= MOST_CORES:
        raise ValueError(part)
    return range(int(first), end + 1)
