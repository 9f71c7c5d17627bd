"""What the device is, and the state that it is in: read from /proc and /sys, nothing assumed where nothing is told."""

import functools
import glob
import os
import platform
import time
from typing import Any, Dict, List, Optional


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
        "max_khz": [int(f) for f in map(_read, _policies("scaling_max_freq")) if f],
        "emulated": _emulated(),
    }


def snapshot() -> Dict[str, Any]:
    """What may change: taken before and after the timed runs. Lists are empty where the device does not tell."""
    ticks = _cpu_ticks()
    return {
        "unix_time": time.time(),
        "khz": [int(f) for f in map(_read, _policies("scaling_cur_freq")) if f],
        "celsius": [int(t) / 1000 for t in map(_read, _sorted("/sys/class/thermal/thermal_zone*/temp")) if t],
        "throttle_count": _sum("/sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"),
        "load_1min": os.getloadavg()[0],
        "steal_ticks": ticks[7] if len(ticks) > 7 else None,
        "total_ticks": sum(ticks[:8]) if ticks else None,
    }


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


def _policies(name: str) -> List[str]:
    return _sorted(f"/sys/devices/system/cpu/cpufreq/policy*/{name}")


def _sum(pattern: str) -> Optional[int]:
    values = [int(v) for v in map(_read, _sorted(pattern)) if v]
    return sum(values) if values else None


def _device_model() -> Optional[str]:
    return _read("/proc/device-tree/model") or _read("/sys/class/dmi/id/product_name")


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
    """Whether this process runs under QEMU's user emulation, whose timings mean nothing for a real device."""
    maps = _read("/proc/self/maps") or ""
    return "qemu-" in maps or bool(os.environ.get("QEMU_CPU"))
