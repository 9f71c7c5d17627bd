"""What the device is, and the state that it is in: read from /proc and /sys, nothing assumed where nothing is told."""

import functools
import glob
import os
import platform
import random
import re
import resource
import subprocess
import time
from typing import Any, Dict, List, Optional, Tuple

from . import android

SENSOR_SECONDS = 2.0
PAUSE_SECONDS = 0.004  # at most; a turn of the scheduler takes a few milliseconds
BUSY = 0.1  # of a core
MOST_BUSY = 5  # so many are named
_sensors: Dict[str, List[str]] = {}


def use(sensors: Dict[str, List[str]]) -> None:
    """Commands that tell what no file does: temperature, in degrees Celsius, and throttled, as vcgencmd tells it."""
    _sensors.update(sensors)


def facts() -> Dict[str, Any]:
    """What does not change during a launch."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "device_model": _device_model(),
        "cpu_model": _cpu_model(),
        "cpus": os.cpu_count(),
        "page_size": os.sysconf("SC_PAGESIZE"),
        "memory_bytes": os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governors": sorted({g for g in map(_read, _policies("scaling_governor")) if g}),
        "cores": sorted(os.sched_getaffinity(0)),
        "core_max_khz": _core_max_khz(),
        "max_khz": [int(f) for f in map(_read, _policies("scaling_max_freq")) if f],
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        "emulated": _emulated(),
    }


def snapshot() -> Dict[str, Any]:
    """What may change: taken before and after the timed runs. Lists are empty where the device does not tell."""
    ticks, phone = _cpu_ticks(), android.state()
    return {
        "unix_time": time.time(),
        "khz": [int(f) for f in map(_read, _policies("scaling_cur_freq")) if f],
        "celsius": [*phone.pop("cpu_celsius", []), *_celsius()],
        "throttled_bits": _throttled_bits(),
        "throttle_count": _sum("/sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"),
        "governors": sorted({g for g in map(_read, _policies("scaling_governor")) if g}),
        "load_1min": os.getloadavg()[0],
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "total_ticks": sum(ticks[:8]) if ticks else None,
        **phone,
    }


def busy_processes(seconds: float) -> List[Dict[str, Any]]:
    """Others that computed for more than a tenth of a core meanwhile, the busiest first: [{name, pid, cores}]."""
    before = _process_ticks()
    time.sleep(seconds)
    found: List[Dict[str, Any]] = []
    for pid, (name, ticks) in _process_ticks().items():
        cores = (ticks - before.get(pid, (name, ticks))[1]) / os.sysconf("SC_CLK_TCK") / seconds
        if cores > BUSY and pid != os.getpid():
            found.append({"name": name, "pid": pid, "cores": round(cores, 2)})
    return sorted(found, key=lambda process: -process["cores"])[:MOST_BUSY]


def thread_ns(thread: int) -> int:
    """Processor time of a thread of this process so far (proc(5): schedstat), 0 if the kernel does not tell."""
    return int((_read(f"/proc/self/task/{thread}/schedstat") or "0").split()[0])


def waited_ns() -> int:
    """For how long the main thread of this process has been ready to run, but others had its core (proc(5): schedstat);
    0 if the kernel does not tell.
    """
    file = _schedstat()
    return int(os.pread(file, 64, 0).split()[1]) if file >= 0 else 0


@functools.lru_cache(maxsize=None)
def _schedstat() -> int:
    """The open file, which spares some microseconds a run; -1 if there is none."""
    try:
        return os.open("/proc/self/schedstat", os.O_RDONLY)
    except OSError:
        return -1


def involuntary_switches() -> int:
    """How often the system has given a core of this process to another program, over all threads (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def step_aside(switches: int) -> None:
    """After a run with involuntary switches, waits for a moment of random length: the next run then starts with a turn
    of its own, and does not meet those of other programs at the same operators again and again.
    """
    if switches:
        time.sleep(random.uniform(0, PAUSE_SECONDS))


def peak_bytes() -> Optional[int]:
    """The most memory this process has held at once (VmHWM)."""
    for line in (_read("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read().strip().strip("\0") or None
    except OSError:
        return None  # not every kernel shows every file; the value is then unknown, and said to be


def _sorted(pattern: str) -> List[str]:
    return sorted(glob.glob(pattern))


def _celsius() -> List[float]:
    """The device's own sensor first, where it has one."""
    told = re.search(r"-?\d+(\.\d+)?", _told_by("temperature"))
    zones = [int(t) / 1000 for t in map(_read, _sorted("/sys/class/thermal/thermal_zone*/temp")) if t]
    return [float(told.group()), *zones] if told else zones


def _throttled_bits() -> Optional[int]:
    """As vcgencmd tells it: what limits a Raspberry Pi now, and 16 bits higher what has since its start."""
    told = re.search(r"0x[0-9a-fA-F]+", _told_by("throttled"))
    return int(told.group(), 16) if told else None


def _told_by(sensor: str) -> str:
    """What the command of a sensor prints, "" where there is none or it fails: the value is unknown then."""
    if not _sensors.get(sensor):
        return ""
    try:
        done = subprocess.run(_sensors[sensor], capture_output=True, timeout=SENSOR_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def _core_max_khz() -> Dict[str, int]:
    """Of each core, by its number as text, where the kernel tells."""
    found = {}
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"):
        value = _read(path)
        if value:
            found[path.split("/")[5][len("cpu") :]] = int(value)
    return found


def _process_ticks() -> Dict[int, Tuple[str, int]]:
    """Name and processor time so far of every process (proc(5): stat, utime and stime)."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        head, _, tail = (_read(path) or "").rpartition(")")
        fields = tail.split()
        if len(fields) > 12:
            found[int(path.split("/")[2])] = (head.partition("(")[2], int(fields[11]) + int(fields[12]))
    return found


def _policies(name: str) -> List[str]:
    return _sorted(f"/sys/devices/system/cpu/cpufreq/policy*/{name}")


def _sum(pattern: str) -> Optional[int]:
    values = [int(v) for v in map(_read, _sorted(pattern)) if v]
    return sum(values) if values else None


def _device_model() -> Optional[str]:
    if android.is_android():
        return android.model()
    tree = _read("/proc/device-tree/model") or _read("/sys/firmware/devicetree/base/model")
    return tree or _read("/sys/class/dmi/id/product_name")


def _cpu_model() -> Optional[str]:
    fields: Dict[str, str] = {}
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    if "model name" in fields:
        return fields["model name"]
    if "CPU part" in fields:
        return f"ARM implementer {fields.get('CPU implementer')} part {fields['CPU part']}"
    return None


def _cpu_ticks() -> List[int]:
    lines = (_read("/proc/stat") or "").splitlines()
    return [int(v) for v in lines[0].split()[1:]] if lines else []


def _emulated() -> bool:
    """Whether this process runs under QEMU's user emulation, whose timings mean nothing for a real device. It hides
    itself in /proc/self/maps, but not in the kernel's other name for the same file.
    """
    maps = (_read("/proc/thread-self/maps") or "") + (_read("/proc/self/maps") or "")
    return "qemu-" in maps or bool(os.environ.get("QEMU_CPU"))
