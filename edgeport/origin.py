"""When, by which edgeport and on which commit something is measured."""

import subprocess
import time
from pathlib import Path

from edgeport import __version__
from edgeport.records import Commit, Origin

GIT_SECONDS = 20.0  # to look through the files of a large repository
DETACHED = "(detached)"


def here(folder: Path | None = None, branch: str | None = None) -> Origin:
    """Now, this edgeport, and the commit of the folder, which is the working directory unless given. branch: what is
    being built, for where git has none checked out, as in CI.
    """
    return Origin(time.time(), __version__, commit_of(folder or Path(), branch))


def commit_of(folder: Path, branch: str | None = None) -> Commit | None:
    """None without git, outside of a repository and before its first commit."""
    shown = _git(folder, "show", "--no-patch", "--no-show-signature", "--format=%H %ct", "HEAD")
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if shown is None or status is None:
        return None
    lines = status.splitlines()
    head = next((line.removeprefix("# branch.head ") for line in lines if line.startswith("# branch.head ")), DETACHED)
    commit, seconds = shown.split()
    dirty = any(not line.startswith("#") for line in lines)
    return Commit(commit, int(seconds), branch if head == DETACHED else head, dirty)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, None where it fails. It takes no locks and starts no monitor of the repository's choice."""
    command = ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no repository, no commit: then there is none to tell
    return done.stdout.decode(errors="replace")
