"""Keeps a device for one host: a lock that ends with whoever asked for it, and what they leave behind is cleaned."""

import argparse
import fcntl
import glob
import json
import os
import select
import shutil
import signal
import stat
import tempfile
import time
from typing import Any, Dict, List, Set

from . import android
from .host import STDIN
from .messages import AgentError, emit

LOCK = "edgeport.lock"
# Where the lock of a machine lies: the first of these that all may write to, whoever asks and wherever their own
# temporary files are. A phone has none of them; its shell's user has one folder.
FOLDERS = ("/run/lock", "/tmp")  # noqa: S108
OWN_FOLDER = "EDGEPORT_LOCK"  # a folder for it, where several systems share a machine, or none of these
ASK_SECONDS = 1.0


def hold(args: argparse.Namespace) -> None:
    """Takes the device's lock, says so, and keeps it until standard input ends or is silent for --silence seconds.

    The kernel holds the lock for this process (flock(2)): it ends with it however that ends, and a file that a dead
    owner left says nothing. No clock but this device's own count of seconds since its start has a say.
    """
    lock = _open_lock(os.path.join(lock_folder(), LOCK))
    _take(lock, args.wait)
    owner = {"owner": args.owner, "since": _seconds()}
    with open(lock, "r+b", closefd=False) as f:
        f.write(json.dumps(owner).encode())
        f.truncate()
    try:
        removed = _clean_others(args.session) if args.session else []
        with android.steady() as refused:
            emit("held", removed=removed, refused=refused)
            _listen(args.silence)
    finally:
        if args.session:
            _remove(args.session)


def lock_folder() -> str:
    """The same for all users of the machine."""
    shared = (folder for folder in FOLDERS if os.path.isdir(folder) and os.stat(folder).st_mode & stat.S_IWOTH)
    return os.environ.get(OWN_FOLDER) or next(shared, tempfile.gettempdir())


def _open_lock(path: str) -> int:
    """Anybody's file will do: it is the lock on it that counts."""
    try:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
            os.fchmod(lock, 0o666)  # whatever the umask
        except FileExistsError:
            lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as e:
        raise AgentError("lock", f"cannot open the lock {path}: {e.strerror}") from e
    return lock


def _take(lock: int, wait: float) -> None:
    deadline = _seconds() + wait
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(lock)
        if _seconds() >= deadline:
            emit("busy", **holder)
            raise AgentError("busy", f"it is in use by {holder['owner']}")
        emit("waiting", **holder)
        if not _listen(min(ASK_SECONDS, deadline - _seconds())):
            raise AgentError("gone", "the host has gone")


def _holder(lock: int) -> Dict[str, Any]:
    """Who says to hold it, and for how many seconds they have."""
    try:
        told = json.loads(os.pread(lock, 1 << 16, 0))
        return {"owner": str(told["owner"]), "seconds": max(0.0, _seconds() - float(told["since"]))}
    except (ValueError, KeyError, TypeError):
        return {"owner": "somebody who is only just taking it", "seconds": 0.0}


def _listen(silence: float) -> bool:
    """Reads standard input, whose lines mean nothing but that the host is there, until none has come for so many
    seconds. Whether the host still is.
    """
    while select.select([STDIN], [], [], max(0.0, silence))[0]:
        if not os.read(STDIN, 4096):
            return False
    return True


def _clean_others(session: str) -> List[str]:
    """Removes what sessions that are over left: their processes, their folders, files that were only half pushed."""
    folder = os.path.dirname(session)
    old = [path for path in glob.glob(os.path.join(glob.escape(folder), "*")) if path != session]
    for path in old:
        _remove(path)
    for path in glob.glob(os.path.join(glob.escape(os.path.dirname(folder)), "kit", "*.part")):
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    os.makedirs(session, mode=0o700, exist_ok=True)
    return old


def _remove(session: str) -> None:
    """The session's folder, and the processes that were started with files of it."""
    spared = _ancestors()
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        pid = int(path.split("/")[2])
        try:
            with open(path, "rb") as f:
                words = f.read()
            if pid not in spared and os.fsencode(session) in words:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    shutil.rmtree(session, ignore_errors=True)


def _ancestors() -> Set[int]:
    """This process and all that it runs below."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                pid = int(f.read().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def _seconds() -> float:
    """Since the device was switched on (clock_gettime(2)): its date may be wrong, or be set meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
