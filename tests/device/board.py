"""A board that is this machine: a real sshd on a loopback port, with its own keys, temporary folder and PATH."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
STARTS_WITHIN_S = 120


class Board:
    """home: where its keys, temporary files and edgeport's folder lie. options: more lines of sshd_config."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None, options: str = "") -> None:
        self.home, self.port = home, _free_port()
        self.workdir, self.ssh_config = home / "work dir", home / "ssh_config"
        (home / "tmp").mkdir(parents=True)
        # SHLVL: bash then leaves the user's .bashrc alone, which may do anything and take its time
        own = {"TMPDIR": str(home / "tmp"), "EDGEPORT_LOCK": str(home / "tmp")}
        self._environment = {**own, "SHLVL": "2", **(environment or {})}
        self._sshd: subprocess.Popen[bytes] | None = None
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(home / name)]
            subprocess.run(command, check=True)
        (home / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {(home / 'host.pub').read_text()}")
        self._configure(options)

    def start(self) -> None:
        assert SSHD
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges
        command = [SSHD, "-D", "-e", "-f", str(self.home / "sshd_config")]
        with (self.home / "sshd.log").open("ab") as log:
            self._sshd = subprocess.Popen(command, stderr=log, start_new_session=True)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._sshd.poll() is None, (self.home / "sshd.log").read_text()
            assert time.monotonic() < deadline, "sshd does not answer"
            time.sleep(0.02)

    def cut(self) -> None:
        """Breaks every connection; who wants may connect again."""
        assert self._sshd
        _signal([pid for pid in _children(self._sshd.pid) if pid not in self.processes()], signal.SIGKILL)

    def stop(self) -> None:
        """As when its power is cut: all that runs on it ends at once."""
        if self._sshd:
            connections = [self._sshd.pid, *_children(self._sshd.pid)]
            _signal(connections, signal.SIGSTOP)  # first, so that nobody learns of anybody else's end
            _signal([*self.processes(), *connections], signal.SIGKILL)
            self._sshd.wait()
            self._sshd = None

    def processes(self) -> dict[int, str]:
        """What runs on it: every process that a connection started, with its command line. sshd's own are left out."""
        mark = f"TMPDIR={self.home / 'tmp'}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    if words and not words.startswith("sshd"):
                        found[int(folder.name)] = words
        return found

    def toml(self, **keys: object) -> str:
        """Its file, as a user writes it; keys: in place of ours."""
        given: dict[str, object] = {
            "description": "a board on loopback",
            "transport": "ssh",
            "target": "x86",
            "address": "127.0.0.1",
            "port": self.port,
            "ssh_config": str(self.ssh_config),
            "workdir": str(self.workdir),
            **keys,
        }
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())  # which is TOML too

    def _configure(self, options: str) -> None:
        environment = " ".join(f'"{name}={value}"' for name, value in self._environment.items())
        (self.home / "sshd_config").write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {self.home / "host"}
PidFile none
AuthorizedKeysFile {self.home / "user.pub"}
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
SetEnv {environment}
{options}
"""
        )
        self.ssh_config.write_text(
            f"""Host *
IdentityFile {self.home / "user"}
IdentitiesOnly yes
UserKnownHostsFile {self.home / "known_hosts"}
GlobalKnownHostsFile /dev/null
"""
        )


@contextlib.contextmanager
def board(home: Path, environment: Mapping[str, str] | None = None, options: str = "") -> Iterator[Board]:
    """A running one."""
    made = Board(home, environment, options)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _children(parent: int) -> list[int]:
    """All below a process, of a process tree that a reader of /proc sees."""
    parents = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, below = [], {parent}
    while below:
        below = {pid for pid, above in parents.items() if above in below}
        found += sorted(below)
    return found


def _signal(processes: Iterable[int], number: signal.Signals) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
