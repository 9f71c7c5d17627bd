"""Emulated devices to try edgeport on and to test it with: a Raspberry Pi behind ssh, a phone behind adb.

    python scripts/virtual_devices.py make                  # both, into edgeport's cache: some 20 s a device
    python scripts/virtual_devices.py start pi              # runs until it is stopped; prints how to use it
    python scripts/virtual_devices.py stop pi
    python scripts/virtual_devices.py start android --foreground    # runs until Ctrl-C

The Pi is a Debian for ARM with a real sshd on a loopback port and nothing else but Python. The phone has no Python and
no C library: busybox stands for Android's tools, and virtual_adbd.py serves it to the real adb client. Both compute by
QEMU, one instruction after another, so every answer is right and every time is meaningless.

Each start is a device just unboxed: its disk is a layer in memory over the cached root. A device lives in namespaces of
its own (unshare(1)): when its first process ends, however that happens, the kernel ends the others and takes the mounts
down with them. Needs root and a Debian system with qemu-user-static; the phone also needs adb. What a device is made of
stands below and in scripts/virtual/NAME, whose files are copied over its root.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import debian_packages

from edgeport import files
from edgeport.errors import EdgeportError, UsageError

SCRIPTS = Path(__file__).resolve().parent
VIRTUAL = SCRIPTS / "virtual"
READY_SECONDS, STOP_SECONDS = 60, 10
READY, PID, LOG = "ready.json", "pid", "log"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
BINFMT_RULE = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
DEFAULT_DISK_MB = 2048
INTERRUPTED = 130
# (major, minor) of the character devices below /dev
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}

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


class Device(NamedTuple):
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


PI = Device(
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
ANDROID = Device(
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
DEVICES = {device.name: device for device in (PI, ANDROID)}


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        if args.command == "make":
            for name in args.names or DEVICES:
                print(make(DEVICES[name]))
        elif args.command == "start":
            return start(args)
        elif args.command == "stop":
            for name in args.names or DEVICES:
                stop(_state_folder(name, args.folder))
        else:
            run_inside(DEVICES[args.name], Path(args.folder), args)
    except EdgeportError as e:
        print(f"virtual_devices: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def make(device: Device) -> Path:
    """The device's root in edgeport's cache: made if what it is made of has changed since, or if there is none."""
    _check_machine()
    root = files.cache_folder("virtual-devices") / f"{device.name}-{_recipe(device)}"
    if root.is_dir():
        return root
    print(f"Making the emulated device {device.name} ({device.description})", file=sys.stderr)
    beside = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        debian_packages.unpack(device.packages, "arm64", beside)
        if device is ANDROID:
            _keep_only_busybox(beside)
        _compile_library(beside)
        shutil.copytree(VIRTUAL / device.name, beside, dirs_exist_ok=True)
        for name in ("dev", "proc", "sys", "tmp") if device is PI else ("dev", "proc", "sys"):
            (beside / name).mkdir(exist_ok=True)
        for path, target in device.links.items():
            (beside / path).unlink(missing_ok=True)
            (beside / path).symlink_to(target)
        for path, (mode, owner) in device.folders.items():
            (beside / path).mkdir(parents=True, exist_ok=True)
            (beside / path).chmod(mode)
            os.chown(beside / path, owner, owner)
        beside.chmod(0o755)
        with contextlib.suppress(FileExistsError, OSError):  # another one was quicker: its root is as good
            beside.rename(root)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return root


def start(args: argparse.Namespace) -> int:
    """Starts a device in the background and says how to use it; with --foreground stays until it is to stop."""
    device, folder = DEVICES[args.name], _state_folder(args.name, args.folder)
    root = make(device)
    if _running(folder):
        raise UsageError(f"{device.name} runs already, in {folder}; 'stop {device.name}' ends it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = [str(Path(__file__).resolve()), "_inside", device.name, "--folder", str(folder), "--root", str(root)]
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
    options = ["--disk-mb", str(args.disk_mb), "--port", str(args.port), "--adb-state", args.adb_state]
    command = [*isolated, "--", sys.executable, *own, *options]
    if args.foreground:
        return _stay(folder, [*command, "--foreground"])
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    (folder / PID).write_text(str(process.pid), encoding="utf-8")
    deadline = time.monotonic() + READY_SECONDS
    while not (folder / READY).exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            words = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
            raise EdgeportError(f"the device {device.name} did not start:\n{words}")
        time.sleep(0.05)
    print(_how_to_use(device, folder))
    return 0


def _stay(folder: Path, command: Sequence[str]) -> int:
    """Until the device ends, or this process does, however that happens."""
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])  # noqa: S607
    (folder / PID).write_text(str(process.pid), encoding="utf-8")

    def end(*_: object) -> None:
        process.kill()  # which ends the wait below

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return max(0, process.wait())


def stop(folder: Path) -> None:
    """Ends the device that runs in the folder, if any does, and removes the folder."""
    pid = _running(folder)
    if pid:
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + STOP_SECONDS
        while _running(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
    if (folder / PID).exists():
        shutil.rmtree(folder)


def _check_machine() -> None:
    """Raises UsageError with what to do where no device can be emulated here."""
    if os.getuid() != 0:
        raise UsageError("emulated devices need root, for their mounts; run this as root")
    needed = {
        "adb": "adb",
        "unshare": "util-linux",
        "setpriv": "util-linux",
        "mount": "mount",
        "chroot": "coreutils",
        "ssh-keygen": "openssh-client",
    }
    for program, package in needed.items():
        if not shutil.which(program):
            raise UsageError(f"there is no {program} here; run 'apt-get install {package}'")
    if not BINFMT_RULE.exists():
        raise UsageError("QEMU for ARM programs is missing; run 'apt-get install qemu-user-static'")


def _recipe(device: Device) -> str:
    """A hash of all that the root is made of."""
    told = hashlib.sha256(repr(device).encode())
    for path in sorted(p for p in (VIRTUAL / device.name).rglob("*") if p.is_file()):
        told.update(repr((str(path.relative_to(VIRTUAL)), path.stat().st_mode & 0o777)).encode() + path.read_bytes())
    told.update(Path(debian_packages.__file__).read_bytes())
    return told.hexdigest()[:16]


def _keep_only_busybox(root: Path) -> None:
    """A phone has nothing below /usr, /bin and /lib."""
    busybox = (root / "usr/bin/busybox").read_bytes()
    shutil.rmtree(root)
    (root / "system/bin").mkdir(parents=True)
    (root / "system/bin/busybox").write_bytes(busybox)
    (root / "system/bin/busybox").chmod(0o755)


def _compile_library(root: Path) -> None:
    """As Python's package does when it is installed; compiled code is the same on every processor."""
    library = root / f"usr/lib/python3.{sys.version_info.minor}"
    if library.is_dir():
        options = ["-q", "-j0", "-s", str(root), "-x", "/test/|lib2to3"]
        command = [sys.executable, "-m", "compileall", *options, str(library)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run_inside(device: Device, folder: Path, args: argparse.Namespace) -> None:
    """The device's first process: mounts its disk, starts its server and waits. Its end is the end of them all."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(0))
    _enable_emulation()
    root = _mount(device, folder, Path(args.root), args.disk_mb)
    serve = _serve_ssh if device is PI else _serve_adb
    settings = serve(device, folder, root, args)
    ready = {**settings, "device": {"description": f"emulated {device.description}", **settings["device"]}}
    _write(folder / "devices" / f"emulated-{device.name}.toml", _toml(device, ready["device"]))
    files.write_text(folder / READY, json.dumps(ready))
    if args.foreground:
        print(_how_to_use(device, folder), flush=True)
        if not sys.stdin.isatty():  # started by a program: ends with it
            threading.Thread(target=_end_with_input, daemon=True).start()
    while True:  # the first process of a namespace is the one that buries its dead
        pid, status = os.wait()
        if pid == settings["pid"]:
            raise EdgeportError(f"the server of {device.name} ended with {os.waitstatus_to_exitcode(status)}")


def _end_with_input() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


def _enable_emulation() -> None:
    """Tells the kernel to run ARM programs by QEMU, if it has not been told. Holds for as long as a device runs."""
    if not (BINFMT / "register").exists():
        _run("mount", "-t", "binfmt_misc", "none", str(BINFMT))
    if not (BINFMT / "qemu-aarch64").exists():
        with contextlib.suppress(FileExistsError):  # another device that starts now
            (BINFMT / "register").write_text(BINFMT_RULE.read_text(encoding="utf-8").strip(), encoding="utf-8")


def _mount(device: Device, folder: Path, lower: Path, disk_mb: int) -> Path:
    """The device's file system as this namespace sees it. Returns its root."""
    layer, root, system = folder / "layer", folder / "root", folder / "system"
    for path in (layer, root, system):
        path.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={disk_mb}m", "disk", str(layer))
    for name in ("upper", "work"):
        (layer / name).mkdir()
    (layer / "upper").chmod(0o755)
    options = f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work"
    _run("mount", "-t", "overlay", "-o", options, "disk", str(root))
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "system", str(system))
    _write_system(device, system)
    _run("mount", "-t", "proc", "proc", str(root / "proc"))
    _run("mount", "--bind", str(system / "cpuinfo"), str(root / "proc/cpuinfo"))
    _run("mount", "--bind", "-o", "ro", str(system / "sys"), str(root / "sys"))
    _run("mount", "--bind", str(system / "dev"), str(root / "dev"))
    (root / "dev/pts").mkdir()
    _run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=0620", "devpts", str(root / "dev/pts"))
    if device is PI:
        (root / "dev/shm").mkdir(mode=0o1777)
        (root / "dev/shm").chmod(0o1777)
    return root


def _write_system(device: Device, folder: Path) -> None:
    """What the kernel of the real device would tell of it: cpuinfo, the parts of /sys that edgeport and the runtimes
    read, and the nodes of /dev.
    """
    cores = range(os.cpu_count() or 1)
    block = (
        f"BogoMIPS\t: 108.00\nFeatures\t: {device.cpu_features}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {device.cpu_part:#05x}\nCPU revision\t: 3\n"
    )
    cpuinfo = "\n".join(f"processor\t: {n}\n{block}" for n in cores) + f"\nModel\t\t: {device.model}\n"
    _write(folder / "cpuinfo", cpuinfo)
    present = f"0-{len(cores) - 1}" if len(cores) > 1 else "0"
    cpu = folder / "sys/devices/system/cpu"
    for name in ("possible", "present", "online"):
        _write(cpu / name, f"{present}\n")
    half = (len(cores) + 1) // 2
    clusters = [(cores[:half], device.max_khz[0]), (cores[half:], device.max_khz[1])]
    if device.max_khz[0] == device.max_khz[1]:
        clusters = [(cores, device.max_khz[0])]
    for members, khz in clusters:
        for core in members:
            _write(cpu / f"cpu{core}/topology/core_id", f"{core}\n")
            (cpu / f"cpu{core}/cpufreq").symlink_to(f"../cpufreq/policy{members[0]}")
        if members:
            _write_policy(cpu / f"cpufreq/policy{members[0]}", members, khz, device.governor)
    thermal = folder / "sys/class/thermal/thermal_zone0"
    _write(thermal / "type", "cpu-thermal\n")
    _write(thermal / "temp", "48312\n")
    if device is PI:  # where /proc/device-tree leads to
        _write(folder / "sys/firmware/devicetree/base/model", f"{device.model}\0")
    (folder / "dev").mkdir()
    for name, (major, minor) in NODES.items():
        os.mknod(folder / "dev" / name, 0o20666, os.makedev(major, minor))
        (folder / "dev" / name).chmod(0o666)
    for n, name in enumerate(("stdin", "stdout", "stderr")):
        (folder / "dev" / name).symlink_to(f"/proc/self/fd/{n}")
    (folder / "dev/fd").symlink_to("/proc/self/fd")
    (folder / "dev/ptmx").symlink_to("pts/ptmx")


def _write_policy(policy: Path, cores: range, khz: int, governor: str) -> None:
    told = {
        "affected_cpus": " ".join(map(str, cores)),
        "related_cpus": " ".join(map(str, cores)),
        "scaling_governor": governor,
        "scaling_available_governors": f"performance powersave {governor}",
        "scaling_cur_freq": khz,
        "scaling_max_freq": khz,
        "scaling_min_freq": 600_000,
        "cpuinfo_max_freq": khz,
        "cpuinfo_min_freq": 600_000,
    }
    for name, value in told.items():
        _write(policy / name, f"{value}\n")


def _serve_ssh(device: Device, folder: Path, root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """sshd on a loopback port; the host's keys and an ssh_config that knows them lie in the folder."""
    port = args.port or _free_port()
    for name in ("host_key", "user_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"emulated-{device.name}", "-f", str(folder / name))
    shutil.copy(folder / "host_key", root / "etc/ssh/host_key")
    (root / "etc/ssh/host_key").chmod(0o600)
    shutil.copy(folder / "user_key.pub", root / "etc/ssh/authorized_keys")
    host_key = (folder / "host_key.pub").read_text(encoding="utf-8")
    _write(folder / "known_hosts", f"[127.0.0.1]:{port} {host_key}")
    _write(
        folder / "ssh_config",
        f"Host emulated-{device.name}\n"
        f"    HostName 127.0.0.1\n    Port {port}\n    User pi\n    IdentityFile {folder}/user_key\n"
        f"    IdentitiesOnly yes\n    UserKnownHostsFile {folder}/known_hosts\n    StrictHostKeyChecking yes\n",
    )
    sshd = ["/usr/sbin/sshd", "-D", "-e", "-p", str(port), "-h", "/etc/ssh/host_key"]
    options = [f"ListenAddress=127.0.0.1:{port}", f"SetEnv=QEMU_CPU={device.cpu}"]
    process = _start_server(device, [*_chroot(root), *sshd, *(f"-o{option}" for option in options)], {})
    _wait_for_port(port, process)
    keys = {"transport": "ssh", "address": f"emulated-{device.name}", "ssh_config": f"{folder}/ssh_config"}
    return {"pid": process.pid, "device": keys, "try": f"ssh -F {folder}/ssh_config emulated-{device.name}"}


def _serve_adb(device: Device, folder: Path, root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The test's adbd, and an adb server of its own that is connected to it, so that the user's own stays alone."""
    port, server_port = args.port or _free_port(), _free_port()
    adbd = [sys.executable, str(SCRIPTS / "virtual_adbd.py"), "--root", str(root), "--port", str(port)]
    adbd.append(f"--state={args.adb_state}")
    process = _start_server(device, adbd, dict(os.environ))
    _wait_for_port(port, process)
    environment = {"HOME": str(folder), "TMPDIR": str(folder), "ANDROID_ADB_SERVER_PORT": str(server_port)}
    adb, own = shutil.which("adb") or "adb", {**os.environ, **environment}
    server = subprocess.Popen([adb, "nodaemon", "server"], env=own, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for_port(server_port, server)
    said = subprocess.run([adb, "connect", f"127.0.0.1:{port}"], env=own, capture_output=True, check=True).stdout
    if args.adb_state == "device" and not said.startswith(b"connected"):
        raise EdgeportError(f"adb connect: {said.decode(errors='replace')}")
    keys = {"transport": "adb", "address": f"127.0.0.1:{port}"}
    set_port = f"export ANDROID_ADB_SERVER_PORT={server_port}"
    return {"pid": process.pid, "device": keys, "environment": environment, "try": f"{set_port}; adb shell"}


def _start_server(device: Device, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    emulated = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment, "QEMU_CPU": device.cpu}
    return subprocess.Popen(command, env=emulated, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _chroot(root: Path) -> list[str]:
    return [shutil.which("chroot") or "chroot", str(root)]


def _how_to_use(device: Device, folder: Path) -> str:
    """How to reach it, and the file that names it to edgeport."""
    ready, file = json.loads((folder / READY).read_text(encoding="utf-8")), f"emulated-{device.name}.toml"
    toml = (folder / "devices" / file).read_text(encoding="utf-8")
    place = f"# {file}; pass --devices {folder / 'devices'}, or copy it to ~/.config/edgeport/devices:"
    return f"{ready['try']}\n\n{place}\n{toml}"


def _toml(device: Device, keys: dict[str, str]) -> str:
    told = {**keys, "target": "arm", "threads": 1}
    lines = [f"{key} = {json.dumps(value)}" for key, value in told.items()]  # JSON's words and numbers are TOML's too
    if device is PI:
        sensors = {"temperature": ["vcgencmd", "measure_temp"], "throttled": ["vcgencmd", "get_throttled"]}
        lines += ["", "[sensors]", *(f"{key} = {json.dumps(words)}" for key, words in sensors.items())]
    return "\n".join([*lines, ""])


def _state_folder(name: str, folder: str | None) -> Path:
    return Path(folder).resolve() if folder else files.cache_folder("virtual-devices") / "running" / name


def _running(folder: Path) -> int | None:
    """The process whose end is the device's end; None if there is none (or another one has its number now)."""
    try:
        pid = int((folder / PID).read_text(encoding="utf-8"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if str(folder).encode() in command else None


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise EdgeportError(f"nothing listens on port {port}")


def _free_port() -> int:
    """Not one that adb searches for emulators (odd, 5555 to 5585), as the system's own range lies above."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise EdgeportError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")


def _parser() -> argparse.ArgumentParser:
    text = __doc__ or ""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="make|start|stop", required=True)
    sub = commands.add_parser("make", help="make the devices' roots, if they are not in the cache; prints where")
    sub.add_argument("names", nargs="*", choices=[*DEVICES, []], metavar="NAME", help=f"{', '.join(DEVICES)}; all")
    sub = commands.add_parser("start", help="start a device; prints how to use it")
    sub.add_argument("name", choices=DEVICES)
    sub.add_argument("--foreground", action="store_true", help="until Ctrl-C, or until a piped standard input ends")
    sub.add_argument("--folder", help="for what belongs to this one: keys, log (default: in edgeport's cache)")
    _add_settings(sub)
    sub = commands.add_parser("stop", help="end a device that was started in the background")
    sub.add_argument("names", nargs="*", choices=[*DEVICES, []], metavar="NAME", help=f"{', '.join(DEVICES)}; all")
    sub.add_argument("--folder", help="as given to start")
    sub = commands.add_parser("_inside")
    sub.add_argument("name", choices=DEVICES)
    for option in ("--folder", "--root"):
        sub.add_argument(option, required=True)
    sub.add_argument("--foreground", action="store_true")
    _add_settings(sub)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--disk-mb", type=int, default=DEFAULT_DISK_MB, help="room for what is written to it")
    parser.add_argument("--port", type=int, default=0, help="of its sshd or adbd on 127.0.0.1 (default: a free one)")
    states = ("device", "unauthorized", "offline")
    parser.add_argument("--adb-state", choices=states, default="device", help="how adb finds the phone")


if __name__ == "__main__":
    sys.exit(main())
