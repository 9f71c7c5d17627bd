"""An export's folder holds what it held before or what it is to hold, whenever its writer is killed."""

import shutil
import threading
from pathlib import Path

import pytest
from crashes import content, each_step

from edgeport import scratch
from edgeport.errors import ModelFileError
from edgeport.export import folder as folders

LAST = "manifest.json"
OLD = {"a.onnx": "old a", "b.onnx": "old b", LAST: "old", "notes.txt": "the user's"}
NEW = {"a.onnx": "new a", "c.tflite": "new c", LAST: "new"}


def write(folder: Path, new: dict[str, str] = NEW) -> None:
    with scratch.folder(folder) as work:
        fresh = work / "fresh"
        fresh.mkdir()
        for name, text in new.items():
            (fresh / name).write_text(text)
        with folders.changing(folder, LAST):
            folders.settle(folder, LAST)  # as who reads the manifest does
            folders.replace(folder, fresh, LAST)


def prepare(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in OLD.items():
        (folder / name).write_text(text)


def test_a_writer_killed_at_any_step_leaves_the_old_files_or_the_new_ones(tmp_path: Path) -> None:
    folder, after = tmp_path / "out", []
    for _ in each_step(lambda: write(folder), lambda: prepare(folder)):
        folders.settle(folder, LAST)
        after.append(content(folder))
    old, new = after.count(OLD), after.count({**OLD, **NEW})
    assert old + new == len(after)
    assert old >= 2
    assert new >= len(NEW) + 1  # before each move, and before the last one is tidied up


def test_what_a_killed_writer_completed_is_not_lost_by_the_next_writer(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for _ in each_step(lambda: write(folder), lambda: prepare(folder)):
        scratch.remove_abandoned(folder)  # as another process does first
        write(folder, {"d.onnx": "d", LAST: "newest"})
        found = content(folder)
        assert found.pop("d.onnx") == "d"
        assert found in ({**OLD, LAST: "newest"}, {**OLD, **NEW, LAST: "newest"})
        assert [path for path in folder.iterdir() if path.is_dir()] == []


def test_a_reader_killed_while_it_finishes_leaves_it_to_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def killed_writer() -> None:
        prepare(folder)
        (folder / folders.COMPLETE).mkdir()
        for name, text in NEW.items():
            (folder / folders.COMPLETE / name).write_text(text)

    for _ in each_step(lambda: folders.settle(folder, LAST), killed_writer):
        folders.settle(folder, LAST)
        assert content(folder) == {**OLD, **NEW}


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    prepare(tmp_path / "disk")
    (tmp_path / "out").symlink_to("disk")
    write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert content(tmp_path / "disk") == {**OLD, **NEW}


def test_a_folder_where_a_file_is_to_be_changes_nothing(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "c.tflite").mkdir()
    with pytest.raises(IsADirectoryError):
        write(tmp_path)
    assert content(tmp_path) == OLD


def test_a_link_by_that_name_moves_nothing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.tex").touch()
    (tmp_path / folders.COMPLETE).symlink_to("elsewhere")
    with pytest.raises(ModelFileError, match=r"\.edgeport-complete holds files of an export that was killed"):
        folders.settle(tmp_path, LAST)
    assert (tmp_path / "elsewhere" / "thesis.tex").exists()


def test_writers_take_turns(tmp_path: Path) -> None:
    prepare(tmp_path)
    several = [{f"{n}.onnx": str(n), LAST: str(n)} for n in range(8)]
    threads = [threading.Thread(target=write, args=(tmp_path, new)) for new in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = content(tmp_path)
    assert all(found[f"{n}.onnx"] == str(n) for n in range(8))
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
