"""What must be known of a shared library or program for ARM before a device is handed it (elf(5))."""

import struct
from pathlib import Path

from edgeport.errors import ModelFileError

HEADER = struct.Struct("<16s2HI3QI6H")
PROGRAM_HEADER = struct.Struct("<2I6Q")
LOAD = 1
MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64"}
CLASS_64, LITTLE_ENDIAN = 2, 1


class ElfError(ModelFileError):
    """Not a 64-bit little-endian ELF file, or a damaged one."""


def machine(data: bytes) -> str:
    """As `uname -m` has it. Raises ElfError."""
    code = _header(data)[2]
    return MACHINES.get(code, f"ELF machine {code}")


def load_alignment(data: bytes) -> int:
    """The largest page size, in bytes, on which a kernel can map the file: its least aligned segment decides."""
    fields = _header(data)
    offset, size, count = fields[5], fields[9], fields[10]
    try:
        headers = [PROGRAM_HEADER.unpack_from(data, offset + n * size) for n in range(count)]
    except struct.error as e:
        raise ElfError("an ELF file that is cut off") from e
    return min((h[7] for h in headers if h[0] == LOAD), default=0)


def is_elf(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(4) == b"\x7fELF"


def _header(data: bytes) -> tuple[int, ...]:
    try:
        fields: tuple[int, ...] = HEADER.unpack_from(data)
    except struct.error as e:
        raise ElfError("no ELF file") from e
    if data[:4] != b"\x7fELF" or data[4] != CLASS_64 or data[5] != LITTLE_ENDIAN:
        raise ElfError("no 64-bit little-endian ELF file")
    return fields
