"""The cache of exports stays bounded, and nobody loses what he is using."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeport.export import cache

PROGRAM = """
import sys
from pathlib import Path
from edgeport.export import cache
with cache.locked(Path(sys.argv[1])):
    cache.hold(Path(sys.argv[1]) / sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


def export(kept: Path, name: str, last_used: int, size: int = 10) -> Path:
    folder = kept / name
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(size))
    os.utime(folder, (last_used, last_used))
    return folder


def left(kept: Path) -> list[str]:
    with cache.locked(kept):
        cache.prune(kept)
    return sorted(path.name for path in kept.iterdir() if path.name != ".lock")


def test_the_least_recently_used_go_beyond_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 2)
    for last_used, name in enumerate("bcad"):
        export(tmp_path, name, last_used)
    (tmp_path / ".new-unfinished").mkdir()
    assert left(tmp_path) == [".new-unfinished", "a", "d"]


def test_the_least_recently_used_go_beyond_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_BYTES", 25)
    for last_used, name in enumerate("abc"):
        export(tmp_path, name, last_used)
    assert left(tmp_path) == ["b", "c"]


def test_what_is_used_again_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 1)
    folders = [export(tmp_path, name, last_used) for last_used, name in enumerate("ab")]
    with cache.locked(tmp_path):
        cache.hold(folders[0])
    assert left(tmp_path) == ["a"]


def test_what_another_process_uses_stays_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 0)
    export(tmp_path, "used", 1)
    export(tmp_path, "unused", 2)
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path), "used"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "held\n"
        assert left(tmp_path) == ["used"]
        user.communicate()
    assert left(tmp_path) == []
