"""What an Android phone tells of its state, and keeping it awake and steady while it is measured: by its own commands,
as the shell's user may run them. Whatever a phone does not tell, or does not do, is unknown and said to be.
"""

import contextlib
import os
import re
import signal
import subprocess
from typing import Any, Dict, Iterator, List, Optional

DUMPSYS = "/system/bin/dumpsys"
COMMAND_SECONDS = 5.0
STAY_ON = ["global", "stay_on_while_plugged_in"]
CPU = 0  # TemperatureType of android.hardware.thermal
READINGS = "Current temperatures from HAL"  # of dumpsys thermalservice; those before it may be old


def is_android() -> bool:
    return os.path.exists(DUMPSYS)


def model() -> Optional[str]:
    """As it is sold: its maker, and the maker's name for it."""
    maker, name = _told("getprop", "ro.product.manufacturer"), _told("getprop", "ro.product.model")
    return f"{maker or ''} {name or ''}".strip() or None


def state() -> Dict[str, Any]:
    """{thermal_status, cpu_celsius, battery}: ThrottlingSeverity (0 none, 1 light ... 6 shutdown), None if not told
    (before Android 10); degrees by sensor; {percent, celsius, powered} as far as they are told. {} if not Android.
    """
    if not is_android():
        return {}
    thermal, battery = _told(DUMPSYS, "thermalservice") or "", _told(DUMPSYS, "battery") or ""
    tenths = _number(r"^ *temperature: *(-?\d+)", battery)
    return {
        "thermal_status": _number(r"^Thermal Status: *(\d+)", thermal),
        "cpu_celsius": _cpu_celsius(thermal),
        "battery": {
            "percent": _number(r"^ *level: *(\d+)", battery),
            "celsius": None if tenths is None else tenths / 10,
            "powered": bool(re.search(r"^ *\w+ powered: true", battery, re.MULTILINE)) if battery else None,
        },
    }


@contextlib.contextmanager
def steady() -> Iterator[List[str]]:
    """Keeps the phone awake while it is on its cable and asks it for a speed that it can sustain, until the block ends.
    Yields what it did not do. Before and after it is as it was, even where a signal ends this process.
    """
    if not is_android():
        yield []
        return
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _leave)
    before = _told("settings", "get", *STAY_ON)
    refused = []
    try:
        if before is None or not _done("svc", "power", "stayon", "usb"):
            refused.append("it does not let itself be kept awake; set 'Stay awake' in its developer options")
        if not _done("cmd", "power", "set-fixed-performance-mode-enabled", "true"):
            refused.append("it has no fixed performance mode (Android 11 and later, some phones): its clock may vary")
        yield refused
    finally:
        _done("cmd", "power", "set-fixed-performance-mode-enabled", "false")
        if before == "null":  # it was never set
            _done("settings", "delete", *STAY_ON)
        elif before is not None:
            _done("settings", "put", *STAY_ON, before)


def _leave(*_: Any) -> None:
    raise SystemExit(1)


def _cpu_celsius(thermal: str) -> List[float]:
    """Of the CPU's sensors: Temperature{mValue=43.5, mType=0, mName=CPU0, mStatus=0}, whatever the fields' order."""
    readings = thermal.partition(READINGS)[2] or thermal
    sensors = re.findall(r"Temperature\{([^}]*)\}", readings)
    fields = [dict(part.strip().partition("=")[::2] for part in sensor.split(",")) for sensor in sensors]
    return [float(f["mValue"]) for f in fields if f.get("mType") == str(CPU) and _is_number(f.get("mValue", ""))]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


def _number(pattern: str, text: str) -> Optional[int]:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found.group(1)) if found else None


def _done(*command: str) -> bool:
    return _told(*command) is not None


def _told(*command: str) -> Optional[str]:
    """What a command prints, None where it is not there or fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
