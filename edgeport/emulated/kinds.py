"""What the emulated devices are made of."""

from typing import NamedTuple

DEBIAN = (
    "base-files base-passwd bash coreutils dash debianutils diffutils findutils grep gzip hostname libc-bin mawk "
    "sed util-linux procps libstdc++6 python3 openssh-server"
)
# Those of busybox's commands that Android has too (as toybox).
ANDROID_COMMANDS = (
    "[ awk base64 basename cat chgrp chmod chown cksum clear cmp comm cp cut date dd df diff dirname dmesg du echo env "
    "expand expr false find fold free grep groups gunzip gzip head hostname id kill killall link ln ls md5sum mkdir "
    "mkfifo mktemp more mv nice nl nohup nproc od paste patch pidof printenv printf ps pwd readlink realpath renice rm "
    "rmdir sed seq setsid sh sha1sum sha256sum sha512sum sleep sort split stat strings stty sync tac tail tar taskset "
    "tee test time timeout top touch tr true truncate tty uname uniq uptime usleep vi wc which whoami xargs yes zcat"
)


class Kind(NamedTuple):
    """What a kind of device is made of. links: path -> target; folders: path -> (mode, owner)."""

    name: str
    description: str
    packages: tuple[str, ...]
    model: str
    cpu: str  # QEMU's name
    cpu_part: int  # Arm's number, as the kernel tells it
    cpu_features: str
    max_khz: tuple[int, int]  # of the first half of the cores, and of the second
    governor: str
    links: dict[str, str]
    folders: dict[str, tuple[int, int]]


PI = Kind(
    name="pi",
    description="Raspberry Pi 4, Debian for ARM, sshd",
    packages=tuple(DEBIAN.split()),
    model="Raspberry Pi 4 Model B Rev 1.5",
    cpu="cortex-a72",
    cpu_part=0xD08,
    cpu_features="fp asimd evtstrm crc32 cpuid",
    max_khz=(1_800_000, 1_800_000),
    governor="ondemand",
    links={"usr/bin/awk": "mawk"},
    folders={"home/pi": (0o755, 1000), "run/sshd": (0o755, 0), "run/vcgencmd": (0o777, 0)},
)
ANDROID = Kind(
    name="android",
    description="phone with Android's tools, no Python and no C library, adbd",
    packages=("busybox-static",),
    model="edgeport Emulated phone",
    cpu="cortex-a76",
    cpu_part=0xD0B,
    cpu_features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    max_khz=(1_804_800, 2_419_200),
    governor="schedutil",
    links={f"system/bin/{name}": "busybox" for name in ANDROID_COMMANDS.split()},
    folders={"data/local/tmp": (0o771, 2000), "data/emulated": (0o777, 0)},
)
KINDS = {kind.name: kind for kind in (PI, ANDROID)}
