"""The inside of an emulated device: its first process, which mounts its disk, starts its server and waits.

It is started by control.py, in namespaces of its own; its options are those that control.py gives it.
"""

import argparse
import contextlib
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
from typing import Any

from edgeport import files
from edgeport.emulated.kinds import KINDS, PI, Kind
from edgeport.emulated.roots import BINFMT_RULE
from edgeport.errors import EdgeportError

READY_SECONDS = 60
READY = "ready.json"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
DEFAULT_DISK_MB = 2048
ADB_STATES = ("device", "unauthorized", "offline")
# (major, minor) of the character devices below /dev
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until the device is to end. Returns an exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=KINDS)
    for option in ("--folder", "--root"):
        parser.add_argument(option, required=True)
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--disk-mb", type=int, default=DEFAULT_DISK_MB)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--adb-state", choices=ADB_STATES, default=ADB_STATES[0])
    args = parser.parse_args(argv)
    try:
        run(KINDS[args.name], Path(args.folder), args)
    except EdgeportError as e:
        sys.stderr.write(f"{e}\n")
        return e.exit_code
    return 0


def run(device: Kind, folder: Path, args: argparse.Namespace) -> None:
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
        sys.stdout.write(f"{how_to_use(device, folder)}\n")
        sys.stdout.flush()
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


def _mount(device: Kind, folder: Path, lower: Path, disk_mb: int) -> Path:
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


def _write_system(device: Kind, folder: Path) -> None:
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


def _serve_ssh(device: Kind, folder: Path, root: Path, args: argparse.Namespace) -> dict[str, Any]:
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


def _serve_adb(device: Kind, folder: Path, root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Our adbd, and an adb server of its own that is connected to it, so that the user's own stays alone."""
    port, server_port = args.port or _free_port(), _free_port()
    adbd = [sys.executable, "-P", "-m", "edgeport.emulated.adbd", "--root", str(root), "--port", str(port)]
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


def _start_server(device: Kind, command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    emulated = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment, "QEMU_CPU": device.cpu}
    return subprocess.Popen(command, env=emulated, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _chroot(root: Path) -> list[str]:
    return [shutil.which("chroot") or "chroot", str(root)]


def how_to_use(device: Kind, folder: Path) -> str:
    """How to reach it, and the file that names it to edgeport."""
    ready, file = json.loads((folder / READY).read_text(encoding="utf-8")), f"emulated-{device.name}.toml"
    toml = (folder / "devices" / file).read_text(encoding="utf-8")
    place = f"# {file}; pass --devices {folder / 'devices'}, or start it with --add"
    return f"{ready['try']}\n\n{place}\n{toml}"


def _toml(device: Kind, keys: dict[str, str]) -> str:
    told = {**keys, "target": "arm", "threads": 1}
    lines = [f"{key} = {json.dumps(value)}" for key, value in told.items()]  # JSON's words and numbers are TOML's too
    if device is PI:
        sensors = {"temperature": ["vcgencmd", "measure_temp"], "throttled": ["vcgencmd", "get_throttled"]}
        lines += ["", "[sensors]", *(f"{key} = {json.dumps(words)}" for key, words in sensors.items())]
    return "\n".join([*lines, ""])


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


if __name__ == "__main__":
    sys.exit(main())
