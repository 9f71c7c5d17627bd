"""What every device has whose commands a POSIX shell runs: files under their hashes, and a folder for a session."""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from edgeport import files
from edgeport.errors import DeviceError, LostConnectionError
from edgeport.protocol import whole_number
from edgeport.transport.process import RUN_SECONDS, Done, Probe, Process, run

GET_SECONDS = 600.0
MOST_FILE_BYTES = 2 << 30  # that is fetched
SLOWEST_BYTES_PER_SECOND = 100_000  # that a push may be
TORN = 75
FIND = """umask 077; unset CDPATH; case "$1" in /*) ;; *) cd || exit ;; esac
mkdir -p -- "$1" && cd -- "$1" && printf '%s%s' "$2" "$(pwd -P)"
"""
FOUND = "edgeport keeps its files in "
HASH = '[ ! -f "$1" ] || sha256sum <"$1"'
SEND = f"""cat >"$1" || {{ rm -f "$1"; exit 1; }}
[ "$(wc -c <"$1")" -eq "$2" ] || {{ rm -f "$1"; exit {TORN}; }}"""
# What is cut off has another hash; what was pushed whole gets its name at once.
NAME = f"""case "$(sha256sum <"$1")" in "$3"*) mv -f "$1" "$2" ;; *) rm -f "$1"; exit {TORN} ;; esac"""
FOLDER = 'umask 077; mkdir -p "$1" && mktemp -d "$1/XXXXXXXXXX"'


class Posix:
    """pushed_bytes: so far. A transport says how a command is carried there, and may say how a file is."""

    def __init__(self, name: str, workdir: str) -> None:
        self.name, self.pushed_bytes = name, 0
        self._wanted, self._workdir, self._session = workdir.removeprefix("~/"), "", ""
        self._verified: set[str] = set()

    @property
    def workdir(self) -> str:
        """The folder for all that edgeport keeps on the device, made when it is first asked for."""
        if not self._workdir:
            told = self._script(FIND, self._wanted, FOUND, what=f"making {self._wanted}")
            if not told.startswith(FOUND):  # it would be taken for a part of every file that is fetched
                noise = told.partition(FOUND)[0].strip()[:60]
                raise DeviceError(
                    f"{self.name}: its shell prints {noise!r} before every command; let its start files (~/.bashrc) "
                    "print nothing where nobody is at a terminal"
                )
            self._workdir = told.removeprefix(FOUND)
            self._session = f"{self._workdir}/sessions/{secrets.token_hex(8)}"
        return self._workdir

    @property
    def session(self) -> str:
        assert self.workdir
        return self._session

    def put(self, path: Path, keep: bool = False) -> str:
        digest, size = _identity(path)
        folder = f"{self.workdir}/kit" if keep else self.session
        target = f"{folder}/{digest}{_ending(path)}"
        if target not in self._verified:
            if not self._script(HASH, target, what=f"reading {target}").startswith(digest):
                self._push(path, size, folder, target, digest)
            self._verified.add(target)
        return target

    @contextlib.contextmanager
    def copied(self, path: Path) -> Iterator[str]:
        digest, size = _identity(path)
        with self.folder() as folder:
            target = f"{folder}/model{_ending(path)}"
            self._push(path, size, folder, target, digest)
            yield target

    def get(self, source: str, destination: Path) -> None:
        with files.whole_file(destination) as beside, beside.open("wb") as file:
            done = self._finished(
                run(self._command(["cat", "--", source]), GET_SECONDS, into=file, most=MOST_FILE_BYTES)
            )
            if done.exit_code:
                raise DeviceError(f"{self.name}: cannot read {source}: {last_line(done.err)}")

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        path = self._script(FOLDER, self.session, what=f"making a folder in {self.session}").removesuffix("\n")
        try:
            yield path
        finally:
            with contextlib.suppress(LostConnectionError):
                self.run(["rm", "-rf", "--", path])

    def probes(self) -> Iterator[Probe]:
        """What must hold there before Python runs, besides what holds for all."""
        yield from ()

    def start(self, argv: Sequence[str], listens: bool = False) -> Process:
        raise NotImplementedError

    def run(self, argv: Sequence[str], timeout: float = RUN_SECONDS) -> Done:
        return self._finished(run(self._command(argv), timeout))

    def forget_session(self, timeout: float) -> None:
        """Leaves nothing of the session on the device, if it can still be reached."""
        if self._workdir:
            with contextlib.suppress(DeviceError):
                self.run(["rm", "-rf", "--", self._session], timeout)

    def _command(self, argv: Sequence[str]) -> list[str]:
        """The command of this machine that runs these words there."""
        raise NotImplementedError

    def _finished(self, done: Done) -> Done:
        """What was run there, from how the command that carried it ended. Raises LostConnectionError."""
        raise NotImplementedError

    def _send(self, path: Path, target: str, timeout: float) -> Done:
        """Writes a file there, in a folder that there is. Nothing of it stays where the way there breaks meanwhile."""
        command = self._command(["sh", "-c", SEND, "sh", target, str(path.stat().st_size)])
        return self._finished(run(command, timeout, path))

    def _script(self, script: str, *words: str, what: str) -> str:
        """What a script of ours prints; words are its $1, $2, ..."""
        done = self.run(["sh", "-c", script, "sh", *words])
        if done.exit_code:
            raise DeviceError(f"{self.name}: {what} failed: {last_line(done.err)}")
        return done.out

    def _push(self, path: Path, size: int, folder: str, target: str, digest: str) -> None:
        part = f"{target}.{secrets.token_hex(4)}.part"
        done = self.run(["sh", "-c", 'umask 077; mkdir -p "$1"', "sh", folder])
        if not done.exit_code:
            done = self._send(path, part, RUN_SECONDS + size / SLOWEST_BYTES_PER_SECOND)
        if done.exit_code:
            self.run(["rm", "-f", "--", part])
        else:
            done = self.run(["sh", "-c", NAME, "sh", part, target, digest])
        if done.exit_code:
            why = "it arrived torn" if done.exit_code == TORN else last_line(done.err)
            full = f"; free some of its disk, or set another workdir{self._free()}" if "space" in why.lower() else ""
            raise DeviceError(f"{self.name}: pushing {path.name} ({size / 1e6:.1f} MB) to {folder} failed: {why}{full}")
        self.pushed_bytes += size

    def _free(self) -> str:
        lines = self.run(["df", "-Pk", "--", self.workdir]).out.splitlines()
        fields = lines[-1].split() if lines else []
        free = whole_number(fields[3]) if len(fields) > 3 else None
        return "" if free is None else f" ({free / 1e3:.1f} MB are free)"


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _identity(path: Path) -> tuple[str, int]:
    """(SHA-256, bytes)."""
    try:
        return files.sha256(path), path.stat().st_size
    except OSError as e:
        raise DeviceError(f"cannot read {path}: {files.reason(e)}") from e


def _ending(path: Path) -> str:
    """By which the runtimes tell what a file is; nothing else of its name is wanted on the device."""
    suffix = PurePosixPath(path.name).suffix
    return suffix if suffix[1:].isascii() and suffix[1:].isalnum() else ""
