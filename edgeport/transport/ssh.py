"""A device behind SSH: the OpenSSH programs, so that people's own configuration, keys and jump hosts work.

One connection carries everything (ControlMaster in ssh_config(5)). Host keys are checked as the user's configuration
says; edgeport never asks for less.
"""

import contextlib
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeport import scratch
from edgeport.catalog import Device
from edgeport.errors import ConnectError, DeviceError, LostConnectionError, UsageError
from edgeport.transport.posix import Posix
from edgeport.transport.process import GOODBYE_SECONDS, Done, Process, Remote, run
from edgeport.transport.shell import exit_code, quoted

CONNECT_SECONDS, LOGIN_SECONDS = 10, 60  # of one address; of all that a login takes, jump hosts included
ALIVE_SECONDS, ALIVE_COUNT = 5, 3  # a cable that is pulled is noticed after so many times these seconds
PERSIST_SECONDS = 120  # how long the connection outlives an edgeport that was killed
WORKDIR = ".cache/edgeport"
SOCKETS = "ssh"  # the ending of a folder with a connection's socket
LOST = 255  # ssh(1): an error of ssh itself
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
# How ssh words a failure, which step failed, and what to do; ssh's own words and the address are filled in.
FAILURES = (
    (
        "IDENTIFICATION HAS CHANGED",
        "host key",
        """its host key is not the one that was known: it was installed anew, or another machine answers.
  If you know why, forget the old one ({forget}), run '{ssh}' once and compare the fingerprint""",
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
    base = Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir())  # noqa: S108  a socket's path is short
    scratch.remove_abandoned(base, SOCKETS, before=_end_connection)
    with scratch.folder(base, SOCKETS) as folder:
        ssh = Ssh(device, f"{folder}/s")
        try:
            ssh.open(folder / "errors")
            yield ssh
        finally:
            ssh.close()


def _end_connection(folder: Path) -> None:
    """Ends the one that an edgeport which was killed left behind; by itself it would in PERSIST_SECONDS."""
    if (folder / "s").exists():
        with contextlib.suppress(DeviceError):
            run(["ssh", "-F", os.devnull, "-S", f"{folder}/s", "-O", "exit", "--", "edgeport"], GOODBYE_SECONDS)


class Ssh(Posix):
    """One multiplexed connection."""

    def __init__(self, device: Device, control: str) -> None:
        super().__init__(device.name, device.workdir or WORKDIR)
        self.python = (device.python, "-I", "-S")
        options = [f"-o{key}={value}" for key, value in {**OPTIONS, "ControlPath": control}.items()]
        config = ["-F", device.ssh_config] if device.ssh_config else []
        port = ["-p", str(device.port)] if device.port else []
        self._where, self._address = [*config, *port, device.address], device.address
        self._ssh = ["ssh", *config, *port, *options]
        self._closed = False

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
            where = shlex.join(self._where)
            remedy = remedy.format(ssh=f"ssh {where}", where=where, forget=_how_to_forget(text))
            raise ConnectError(step, f"{self.name}: {remedy}{said}")

    def close(self) -> None:
        if not self._closed:
            self.forget_session(GOODBYE_SECONDS)
        self._closed = True
        with contextlib.suppress(DeviceError):
            run([*self._ssh, "-O", "exit", "--", self._address], GOODBYE_SECONDS)

    def start(self, argv: Sequence[str], listens: bool = False) -> Process:
        return Carried(self._command(argv), listens)

    def _command(self, argv: Sequence[str]) -> list[str]:
        if self._closed:  # ssh would open another connection
            raise LostConnectionError(f"{self.name}: the connection is closed")
        return [*self._ssh, "--", self._address, quoted(argv)]

    def _finished(self, done: Done) -> Done:
        if done.exit_code == LOST:
            raise LostConnectionError(f"{self.name}: the connection was lost\n{done.err}".rstrip())
        return Done(exit_code(done.exit_code), done.out, done.err)


def _how_to_forget(text: str) -> str:
    """The command that makes ssh forget a host key: as ssh itself prints it, or put together of what it tells."""
    printed = re.search(r"^\s*(ssh-keygen -f .+ -R .+?)\s*$", text, re.MULTILINE)
    if printed:
        return printed[1]
    host = re.search(r"Host key for (\S+) has changed", text)
    file = re.search(r"^Offending .*key in (.+):\d+\s*$", text, re.MULTILINE)
    options = ["-f", file[1]] if file else []
    return shlex.join(["ssh-keygen", *options, "-R", host[1] if host else "HOST"])


class Carried(Remote):
    """By ssh."""

    @property
    def exit_code(self) -> int:
        return exit_code(super().exit_code)

    @property
    def lost(self) -> bool:
        code = self._process.returncode
        return code is not None and (code == LOST or code < 0)  # below 0: our own end of it died, the device's may live
