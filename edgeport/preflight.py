"""Whether a device is fit to be measured on, and waiting until it is cool."""

import time
from collections.abc import Mapping
from typing import Any

from edgeport import stats
from edgeport.catalog import Device
from edgeport.errors import DeviceError
from edgeport.progress import Progress
from edgeport.runner import Runner

LOOK_SECONDS = 5.0
STEADY_SECONDS, LEAST_FALL = 120.0, 0.3  # what falls by fewer degrees in so long a time falls no further
CLOCK_SECONDS = 60.0


def check(runner: Runner, device: Device, allow_unstable: bool, progress: Progress) -> dict[str, Any]:
    """The device's facts. Raises DeviceError for a state in which numbers would mislead, unless that is allowed; what
    only may disturb is a warning.
    """
    state = runner.state()
    if state.busy:
        busy = ", ".join(f"{program.name} {program.cores:.0%} of a core" for program in state.busy)
        progress.warned(f"{device.name}: other programs compute there: {busy}")
    off = (state.snapshot.get("unix_time") or time.time()) - time.time()
    if abs(off) > CLOCK_SECONDS:
        progress.warned(
            f"{device.name}: its clock is {_span(abs(off))} {'ahead' if off > 0 else 'behind'}; no time depends on it"
        )
    wrong = objections(device, state.facts, state.snapshot)
    if wrong and not allow_unstable:
        listed = "\n".join(f"  {text}" for text in wrong)
        raise DeviceError(f"{device.name} is not fit to be measured on:\n{listed}\n  or pass --allow-unstable")
    for text in wrong:
        progress.warned(f"{device.name}: {text}")
    return state.facts


def _span(seconds: float) -> str:
    """As a person would say it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def objections(device: Device, facts: Mapping[str, Any], snapshot: Mapping[str, Any]) -> list[str]:
    """What is wrong with its state, each with the remedy."""
    found = []
    wanted, governors = device.expect.governor, snapshot.get("governors") or facts.get("governors") or []
    if wanted and governors and set(governors) != {wanted}:
        command = f"echo {wanted} | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        found.append(f"its governor is {', '.join(governors)}, expected {wanted}; run '{command}' on it")
    limits = stats.limits(snapshot, snapshot)
    if limits:
        found.append(f"it is being slowed down ({', '.join(limits)}); check its power supply and its cooling")
    return found


def cool_down(runner: Runner, celsius: float, minutes: float, progress: Progress) -> None:
    """Waits until its hottest sensor shows less, and tells for how long it may. Raises DeviceError where the device
    tells no temperature, cools down no further, or is too hot when the minutes are over.
    """
    hottest = _hottest(runner)
    if hottest < celsius:
        return
    step, began = f"{runner.device} cools down", time.monotonic()
    progress.warned(
        f"{runner.device} is to be below {celsius:g} C before each launch, and is not: waits for at most {minutes:g} "
        "minutes each time (--cool-down-minutes)"
    )
    progress.started(step)
    coolest, since = hottest, began
    while hottest >= celsius:
        now = time.monotonic()
        if hottest <= coolest - LEAST_FALL:
            coolest, since = hottest, now
        why = _in_vain(now - began, now - since, minutes)
        if why:
            progress.failed(step)
            raise DeviceError(
                f"--cool-down: {runner.device} is at {hottest:.1f} C and not below {celsius:g} C {why}; cool it, or "
                "ask for a higher temperature"
            )
        left = minutes - (now - began) / 60
        progress.waited(step, f"{hottest:.1f} C, waits for less than {celsius:g} C, {left:.1f} minutes at most")
        time.sleep(LOOK_SECONDS)
        hottest = _hottest(runner)
    progress.finished(step, f"{hottest:.1f} C")


def _in_vain(seconds: float, steady: float, minutes: float) -> str:
    """Why there is no use in waiting longer, if there is none."""
    if seconds > minutes * 60:
        return f"after {minutes:g} minutes (--cool-down-minutes)"
    if steady > STEADY_SECONDS:
        return f"and has cooled down no further for {steady / 60:.0f} minutes"
    return ""


def _hottest(runner: Runner) -> float:
    sensors = runner.state().snapshot["celsius"]
    if not sensors:
        raise DeviceError(f"--cool-down: {runner.device} tells no temperature; leave out --cool-down")
    return float(max(sensors))
