"""A PostgreSQL of the tests' own: Debian's server, in a temporary folder, heard on a socket in it alone."""

import contextlib
import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

PASSWORD = "p@ss:w/rd?#7"  # noqa: S105  what a URL must write with percent codes
UNPRIVILEGED = ("postgres", "nobody")  # the server refuses to be root
PATIENCE_S = 300
SERVERS = Path("/usr/lib/postgresql")


class Server(NamedTuple):
    """A running server. user: whom its processes and files belong to."""

    folder: Path
    programs: Path
    user: str

    def url(self, name: str, password: str = PASSWORD) -> str:
        return f"postgresql://edgeport:{quote(password, safe='')}@/{name}?host={self.folder}"

    def sql(self, statement: str, name: str = "postgres") -> str:
        """What psql prints of a statement that a superuser runs in the database of this name."""
        psql = [
            str(self.programs / "psql"),
            "-h",
            str(self.folder),
            "-U",
            "edgeport",
            "-d",
            name,
            "-qAtX",
            "-c",
            statement,
        ]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(psql, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    programs = _programs()
    if programs is None:
        pytest.skip("NOT TESTED: the history with PostgreSQL: there is no server; apt-get install postgresql")
    user = _user()
    if user is None:
        pytest.skip(f"NOT TESTED: the history with PostgreSQL: root cannot run it and there is no {UNPRIVILEGED}")
    # A short name, for a socket's path is limited, in a folder that all users may enter.
    folder = Path(tempfile.mkdtemp(prefix="edgeport-pg-", dir="/tmp"))
    try:
        shutil.chown(folder, user)
        found = Server(folder, programs, user)
        with _running(found):
            yield found
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"test_{abs(hash(request.node.nodeid))}"
    server.sql(f"CREATE DATABASE {name}")
    yield server.url(name)
    server.sql(f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path | None:
    """The newest server's folder: Debian keeps several side by side, outside of PATH."""
    found = sorted(SERVERS.glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _user() -> str | None:
    if os.getuid() != 0:
        return getpass.getuser()
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in UNPRIVILEGED if name in names), None)


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    data, secret = server.folder / "data", server.folder / "password"
    secret.write_text(PASSWORD)
    shutil.chown(secret, server.user)
    _as_user(
        server, ["initdb", "-D", data, "-U", "edgeport", "--auth=scram-sha-256", f"--pwfile={secret}", "-N"]
    ).wait()
    # fsync: nothing here has to outlast the machine
    options = [f"-k{server.folder}", "-clisten_addresses=", "-cfsync=off", "-cmax_connections=40"]
    with (server.folder / "log").open("wb") as log:
        process = _as_user(server, ["postgres", "-D", data, *options], log.fileno())
        try:
            _wait(server, process)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _as_user(
    server: Server, command: Sequence[str | Path], output: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    program, *arguments = command
    argv = [server.programs / program, *arguments]
    entry = pwd.getpwnam(server.user) if os.getuid() == 0 else None
    identity: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []} if entry else {}
    return subprocess.Popen(argv, stdout=output, stderr=output, cwd=server.folder, **identity)


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    start = time.monotonic()
    ready = [str(server.programs / "pg_isready"), "-q", "-h", str(server.folder), "-d", "postgres"]
    while subprocess.run(ready, check=False).returncode:
        log = (server.folder / "log").read_text(errors="replace")
        assert process.poll() is None, f"the server has ended: {log}"
        assert time.monotonic() - start < PATIENCE_S, f"the server does not answer: {log}"
        time.sleep(0.05)
