"""A device behind SSH: the OpenSSH programs, so that people's own configuration, keys and jump hosts work.

One connection carries everything (ControlMaster in ssh_config(5)). Host keys are checked as the user's configuration
says; edgeport never asks for less.
"""

import contextlib
import os
import secrets
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from edgeport import files
from edgeport.catalog import Device
from edgeport.errors import ConnectError, DeviceError, LostConnectionError, UsageError
from edgeport.transport.process import RUN_SECONDS, Done, Process, run
from edgeport.transport.shell import exit_code, quoted

CONNECT_SECONDS, LOGIN_SECONDS = 10, 60  # of one address; of all that a login takes, jump hosts included
ALIVE_SECONDS, ALIVE_COUNT = 5, 3  # a cable that is pulled is noticed after so many times these seconds
PERSIST_SECONDS = 120  # how long the connection outlives an edgeport that was killed
GOODBYE_SECONDS = 3.0
SLOWEST_BYTES_PER_SECOND = 100_000  # that a push may be
WORKDIR = ".cache/edgeport"
LOST = 255  # ssh(1): an error of ssh itself
TORN = 75
OPTIONS = {
    "BatchMode": "yes",  # nobody is there to be asked
    "ConnectTimeout": CONNECT_SECONDS,
    "ServerAliveInterval": ALIVE_SECONDS,
    "ServerAliveCountMax": ALIVE_COUNT,
    "ControlMaster": "auto",
    "ControlPersist": PERSIST_SECONDS,
    "ClearAllForwardings": "yes",  # a port that the user's own session holds already would be an error
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
FIND = 'umask 077; unset CDPATH; cd && mkdir -p -- "$1" && cd -- "$1" && pwd -P'
HASH = '[ ! -f "$1" ] || sha256sum <"$1"'
# What is cut off has another hash; what was pushed whole gets its name at once.
PUSH = f"""umask 077; mkdir -p "$1" || exit 1
cat >"$2" || {{ rm -f "$2"; exit 1; }}
case "$(sha256sum <"$2")" in "$4"*) mv -f "$2" "$3" ;; *) rm -f "$2"; exit {TORN} ;; esac"""
FOLDER = 'umask 077; mkdir -p "$1" && mktemp -d "$1/XXXXXXXXXX"'
# How ssh words a failure, which step failed, and what to do; ssh's own words and the address are filled in.
FAILURES = (
    (
        "IDENTIFICATION HAS CHANGED",
        "host key",
        """its host key is not the one that was known: it was installed anew, or another machine answers.
  If you know why, forget the old one (ssh-keygen -R HOST), run '{ssh}' once and compare the fingerprint""",
    ),
    (
        "Host key verification failed",
        "host key",
        "its host key is not known here; run '{ssh}' once, compare its fingerprint, and accept it",
    ),
    ("Permission denied", "login", "it does not let you in; run 'ssh-copy-id {where}', or name your key in ssh_config"),
    ("Could not resolve", "reachable", "its name is not known here; is the address {where} right, and is it on?"),
    ("", "reachable", "no answer; is it on, in this network, and its SSH server enabled? Try '{ssh}'"),
)


@contextlib.contextmanager
def connect(device: Device) -> Iterator["Ssh"]:
    """Raises UsageError for a device without an address, and ConnectError."""
    if not device.address or device.address.startswith("-"):
        raise UsageError(
            f"device {device.name!r} has {f'the address {device.address!r}' if device.address else 'no address'}; "
            f"run 'edgeport devices add NAME --like {device.name} --address USER@HOST'"
        )
    base = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108  mkdtemp's; a socket's path may not be long
    with tempfile.TemporaryDirectory(prefix="edgeport-", dir=base, ignore_cleanup_errors=True) as folder:
        ssh = Ssh(device, f"{folder}/s")
        try:
            ssh.open(Path(folder, "errors"))
            yield ssh
        finally:
            ssh.close()


class Ssh:
    """pushed_bytes: so far."""

    def __init__(self, device: Device, control: str) -> None:
        self.name, self.python = device.name, (device.python, "-I", "-S")
        self.pushed_bytes = 0
        options = [f"-o{key}={value}" for key, value in {**OPTIONS, "ControlPath": control}.items()]
        config = ["-F", device.ssh_config] if device.ssh_config else []
        port = ["-p", str(device.port)] if device.port else []
        self._where = [*config, *port, device.address]
        self._ssh = ["ssh", *config, *port, *options]
        self._address, self._wanted = device.address, device.workdir or WORKDIR
        self._verified: set[str] = set()
        self._workdir = ""

    @property
    def workdir(self) -> str:
        """The folder for all that edgeport keeps on the device, made when it is first asked for."""
        if not self._workdir:
            self._workdir = self._script(FIND, self._wanted, what=f"making {self._wanted}").removesuffix("\n")
            self._session = f"{self._workdir}/sessions/{secrets.token_hex(8)}"
        return self._workdir

    @property
    def session(self) -> str:
        assert self.workdir
        return self._session

    def open(self, errors: Path) -> None:
        """errors: a file for what ssh says; a pipe would stay open as long as the connection."""
        with errors.open("wb") as stderr:
            try:
                done = subprocess.run(
                    [*self._ssh, "-f", "-N", "--", self._address],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    timeout=LOGIN_SECONDS,
                    check=False,
                )
                code = done.returncode
            except subprocess.TimeoutExpired:
                code = LOST
            except OSError as e:
                raise DeviceError(f"cannot run ssh: {e.strerror}; install OpenSSH's client") from e
        text = errors.read_text(encoding="utf-8", errors="replace").strip()
        if code:
            step, remedy = next((step, remedy) for words, step, remedy in FAILURES if words in text)
            said = "".join(f"\n  {line}" for line in text.splitlines() if line.strip(" @"))
            remedy = remedy.format(ssh=shlex.join(["ssh", *self._where]), where=shlex.join(self._where))
            raise ConnectError(step, f"{self.name}: {remedy}{said}")

    def close(self) -> None:
        """Leaves nothing of the session on the device, if it can still be reached."""
        with contextlib.suppress(DeviceError):
            if self._workdir:
                self.run(["rm", "-rf", "--", self._session], GOODBYE_SECONDS)
        with contextlib.suppress(DeviceError):
            run([*self._ssh, "-O", "exit", "--", self._address], GOODBYE_SECONDS)

    def put(self, path: Path, keep: bool = False) -> str:
        try:
            digest, size = files.sha256(path), path.stat().st_size
        except OSError as e:
            raise DeviceError(f"cannot read {path}: {files.reason(e)}") from e
        folder = f"{self.workdir}/kit" if keep else self.session
        target = f"{folder}/{digest}{_ending(path)}"
        if target not in self._verified:
            if not self._script(HASH, target, what=f"reading {target}").startswith(digest):
                self._push(path, size, folder, target, digest)
            self._verified.add(target)
        return target

    def get(self, source: str, destination: Path) -> None:
        with files.whole_file(destination) as beside, beside.open("wb") as file:
            done = self._finished(run(self._command(["cat", "--", source]), into=file))
        if done.exit_code:
            raise DeviceError(f"{self.name}: cannot read {source}: {_last(done.err)}")

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        path = self._script(FOLDER, self.session, what=f"making a folder in {self.session}").removesuffix("\n")
        try:
            yield path
        finally:
            with contextlib.suppress(LostConnectionError):
                self.run(["rm", "-rf", "--", path])

    def start(self, argv: Sequence[str], listens: bool = False) -> Process:
        return Remote(self._command(argv), listens, own_group=True)

    def run(self, argv: Sequence[str], timeout: float = RUN_SECONDS) -> Done:
        return self._finished(run(self._command(argv), timeout))

    def _command(self, argv: Sequence[str]) -> list[str]:
        return [*self._ssh, "--", self._address, quoted(argv)]

    def _finished(self, done: Done) -> Done:
        if done.exit_code == LOST:
            raise LostConnectionError(f"{self.name}: the connection was lost\n{done.err}".rstrip())
        return Done(exit_code(done.exit_code), done.out, done.err)

    def _script(self, script: str, *words: str, what: str) -> str:
        """What a script of ours prints; words are its $1, $2, ..."""
        done = self.run(["sh", "-c", script, "sh", *words])
        if done.exit_code:
            raise DeviceError(f"{self.name}: {what} failed: {_last(done.err)}")
        return done.out

    def _push(self, path: Path, size: int, folder: str, target: str, digest: str) -> None:
        part = f"{target}.{secrets.token_hex(4)}.part"
        command = self._command(["sh", "-c", PUSH, "sh", folder, part, target, digest])
        done = self._finished(run(command, RUN_SECONDS + size / SLOWEST_BYTES_PER_SECOND, path))
        if done.exit_code:
            why = "it arrived torn" if done.exit_code == TORN else _last(done.err)
            full = f"; free some of its disk, or set another workdir{self._free()}" if "space" in why.lower() else ""
            raise DeviceError(f"{self.name}: pushing {path.name} ({size / 1e6:.1f} MB) to {folder} failed: {why}{full}")
        self.pushed_bytes += size

    def _free(self) -> str:
        lines = self.run(["df", "-Pk", "--", self.workdir]).out.splitlines()
        fields = lines[-1].split() if lines else []
        return f" ({int(fields[3]) / 1e3:.1f} MB are free)" if len(fields) > 3 and fields[3].isdigit() else ""


class Remote(Process):
    """A command on the device. It ends when its input does, which is how it is ended."""

    def kill(self) -> None:
        if self._process.stdin:
            self.close_input()
            self.ended_within(GOODBYE_SECONDS)
        super().kill()

    @property
    def exit_code(self) -> int:
        return exit_code(super().exit_code)

    @property
    def lost(self) -> bool:
        return self._process.returncode == LOST


def _ending(path: Path) -> str:
    """By which the runtimes tell what a file is; nothing else of its name is wanted on the device."""
    suffix = PurePosixPath(path.name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() else ""


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
