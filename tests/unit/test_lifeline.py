"""A child ends with its parent, whatever it is at, and with the block that holds its line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from command_line import until

from edgeport import lifeline

CHILD = "import time; from edgeport import lifeline; lifeline.follow(); print('ready', flush=True); time.sleep(600)"
PARENT = f"""
import subprocess, sys, time
from edgeport import lifeline
with lifeline.held() as line:
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=line, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    time.sleep(600)
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert runs(child)
        os.kill(parent.pid, signal.SIGKILL)
        until(lambda: not runs(child), "the child ends")


def test_a_child_lives_as_long_as_the_block() -> None:
    with lifeline.held() as line:
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=line, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        assert child.poll() is None
    with child:
        assert child.wait(timeout=60) == lifeline.GONE
