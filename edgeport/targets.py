"""Whose kernels int8 ONNX files are made for, and what that asks of their numbers.

ONNX Runtime multiplies unsigned activations by signed weights on x86-64, signed ones on ARM. VNNI and ARM's sdot add
four such products to 32 bits at once. Without VNNI, AVX2's vpmaddubsw first adds two of them to 16 bits, and cuts off
what does not fit: 255 x 127 twice is 64,770, the largest that fits 32,767. A file of full-range weights then answers
with other numbers than its quantisation says: ShuffleNetV2 keeps 9 dB of 32 (scripts/check_saturation.py).
"""

import platform
from pathlib import Path

X86, X86_VNNI, ARM = "x86", "x86-vnni", "arm"
TARGETS = (X86, X86_VNNI, ARM)
VNNI = ("avx512_vnni", "avx_vnni")  # as Linux names them among a processor's flags
CPUINFO = Path("/proc/cpuinfo")


def of_host() -> str:
    """The target whose kernels this machine has."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i686"):
        return ARM
    return X86_VNNI if has_vnni() else X86


def has_vnni() -> bool:
    """Whether this machine's processor says so; False where that cannot be told."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return any(flag in flags for flag in VNNI)


def is_x86(target: str) -> bool:
    """Whether activations are unsigned there."""
    return target in (X86, X86_VNNI)


def saturates(target: str) -> bool:
    """Whether two products may be added to 16 bits there, so that weights must leave room for it."""
    return target == X86


def needs_exact_products(target: str) -> bool:
    """Whether this machine's own kernels would cut off what the target's do not."""
    return not saturates(target) and of_host() == X86
