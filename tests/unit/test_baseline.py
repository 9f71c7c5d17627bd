"""What a baseline keeps, and what becomes of a folder that is not one."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from crashes import each_step
from small_models import small_onnx, small_tflite
from small_results import result

from edgeport import baseline, files, scratch
from edgeport.errors import EdgeportError, ModelFileError, NothingComparedError, UsageError
from edgeport.records import BaselineEntry, ExportOptions


def entry(path: Path, source: str = "net.py:build", **fields: Any) -> BaselineEntry:
    options = ExportOptions(**fields.pop("options", {}))
    made = result(file=path.name, sha256=files.sha256(path), **{"model": "build", **fields})
    return BaselineEntry(model=source, options=options, result=made)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_tflite(tmp_path / "build.int8.tflite")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "baseline"


def objects(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / baseline.OBJECTS).iterdir())


def test_what_is_saved_is_loaded(folder: Path, model: Path) -> None:
    kept = entry(model)
    saved = baseline.save(folder, [(kept, model)])
    assert baseline.load(folder) == saved
    assert saved.entries == (kept,)
    artifact = baseline.artifact(folder, kept)
    assert artifact.path.read_bytes() == model.read_bytes()
    assert artifact.path.stem == files.sha256(model)
    assert (artifact.runtime, artifact.precision) == ("litert", "int8")


def test_the_same_again_takes_the_place_of_the_old_and_what_nobody_names_goes(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    other = small_onnx(tmp_path / "build.fp32.onnx")
    both = [(entry(model), model), (entry(other, runtime="onnxruntime", precision="fp32"), other)]
    baseline.save(folder, both)
    model.write_bytes(model.read_bytes() + b"\0")
    newer = entry(model)
    saved = baseline.save(folder, [(newer, model)])
    assert saved.entries == (both[1][0], newer)
    assert objects(folder) == sorted([f"{files.sha256(model)}.tflite", f"{files.sha256(other)}.onnx"])


def test_files_that_are_not_its_own_stay(folder: Path, model: Path) -> None:
    (folder / baseline.OBJECTS / "of.others").mkdir(parents=True)
    (folder / baseline.OBJECTS / "main.o").write_bytes(b"")
    baseline.save(folder, [(entry(model), model)])
    assert objects(folder) == sorted([f"{files.sha256(model)}.tflite", "main.o", "of.others"])


def test_a_damaged_artifact_is_mended_by_saving_it_again(folder: Path, model: Path) -> None:
    kept = entry(model)
    baseline.save(folder, [(kept, model)])
    (folder / baseline.OBJECTS / f"{files.sha256(model)}.tflite").write_bytes(b"half")
    with pytest.raises(ModelFileError, match="save the baseline again"):
        baseline.artifact(folder, kept)
    baseline.save(folder, [(kept, model)])
    assert baseline.artifact(folder, kept).path.read_bytes() == model.read_bytes()


def test_an_option_that_this_edgeport_does_not_know_is_no_regression(folder: Path, model: Path) -> None:
    baseline.save(folder, [(entry(model, options={"target": "arm"}), model)])
    index = folder / baseline.INDEX
    index.write_text(index.read_text().replace('"target"', '"sparsity"'))
    with pytest.raises(ModelFileError, match=r"unknown field `sparsity`.*; remove it and save") as raised:
        baseline.load(folder)
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    "fields",
    [{"device": "rpi4"}, {"num_threads": 2}, {"precision": "fp32"}, {"options": {"assignments": ["width=0.5"]}}],
)
def test_what_differs_in_how_it_was_made_or_measured_stands_beside(
    folder: Path, model: Path, fields: dict[str, Any]
) -> None:
    baseline.save(folder, [(entry(model), model)])
    assert len(baseline.save(folder, [(entry(model, **fields), model)]).entries) == 2
    assert len(objects(folder)) == 1  # the same bytes are kept once


def test_where_there_is_no_baseline_that_is_no_verdict(folder: Path) -> None:
    with pytest.raises(NothingComparedError, match="edgeport baseline save") as raised:
        baseline.load(folder)
    assert raised.value.exit_code == 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "entries": [{"model": 3}]}'])
def test_a_damaged_index_is_an_error_and_is_not_overwritten(folder: Path, model: Path, content: str) -> None:
    folder.mkdir()
    index = folder / baseline.INDEX
    index.write_text(content)
    with pytest.raises(ModelFileError, match="damaged or of another version"):
        baseline.load(folder)
    with pytest.raises(ModelFileError):
        baseline.save(folder, [(entry(model), model)])
    assert index.read_text() == content


def test_a_baseline_of_a_newer_edgeport_is_refused(folder: Path, model: Path) -> None:
    baseline.save(folder, [(entry(model), model)])
    index = folder / baseline.INDEX
    index.write_text(json.dumps({**json.loads(index.read_text()), "schema": 99}))
    with pytest.raises(ModelFileError, match="schema 99"):
        baseline.load(folder)


def test_an_artifact_that_is_gone_or_damaged_is_never_measured(folder: Path, model: Path) -> None:
    kept = entry(model)
    baseline.save(folder, [(kept, model)])
    path = folder / baseline.OBJECTS / objects(folder)[0]
    path.write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="damaged"):
        baseline.artifact(folder, kept)
    path.unlink()
    with pytest.raises(ModelFileError, match="missing"):
        baseline.artifact(folder, kept)


def test_models_are_chosen_as_they_were_given_or_by_name_and_devices_too(folder: Path, model: Path) -> None:
    entries = [entry(model), entry(model, "other.py:net", model="net"), entry(model, device="rpi4")]
    kept = baseline.save(folder, [(e, model) for e in entries])
    assert baseline.select(kept, [], []) == entries
    assert baseline.select(kept, ["net.py:build"], []) == [entries[0], entries[2]]
    assert baseline.select(kept, ["net"], []) == [entries[1]]
    assert baseline.select(kept, ["build"], ["rpi4"]) == [entries[2]]


def test_a_name_that_the_baseline_does_not_have_gets_the_nearest(folder: Path, model: Path) -> None:
    kept = baseline.save(folder, [(entry(model), model)])
    with pytest.raises(UsageError, match=r"net\.py:biuld.*did you mean net\.py:build"):
        baseline.select(kept, ["net.py:biuld"], [])
    with pytest.raises(UsageError, match=r"--device rpi4: the baseline has local"):
        baseline.select(kept, [], ["rpi4"])


def test_an_empty_baseline_is_no_pass(folder: Path) -> None:
    kept = baseline.save(folder, [])
    with pytest.raises(NothingComparedError):
        baseline.select(kept, [], [])


def test_a_save_that_is_killed_at_any_step_leaves_a_whole_baseline_and_the_next_one_nothing_else(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    first = entry(model)
    newer = tmp_path / "newer.tflite"
    newer.write_bytes(model.read_bytes() + b"\0")
    second = entry(newer)

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        baseline.save(folder, [(first, model)])

    for _ in each_step(lambda: baseline.save(folder, [(second, newer)]), prepare):
        found = baseline.load(folder).entries
        assert found in ((first,), (second,))
        assert baseline.artifact(folder, found[0]).path.is_file()
        for place in (folder, folder / baseline.OBJECTS):
            scratch.remove_abandoned(place)  # as another process does first
        baseline.save(folder, [(first, model)])
        assert objects(folder) == [f"{first.result.sha256}.tflite"]
        assert sorted(p.name for p in folder.iterdir()) == [baseline.INDEX, baseline.OBJECTS]


def test_saves_side_by_side_lose_no_entry(folder: Path, model: Path) -> None:
    entries = [entry(model, source=f"net.py:build{n}") for n in range(8)]
    threads = [threading.Thread(target=baseline.save, args=(folder, [(e, model)])) for e in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(e.model for e in baseline.load(folder).entries) == [e.model for e in entries]


def test_a_save_that_fails_leaves_what_was_there_and_nothing_else(folder: Path, model: Path, tmp_path: Path) -> None:
    first = entry(model)
    baseline.save(folder, [(first, model)])
    newer = tmp_path / "newer.tflite"
    newer.write_bytes(model.read_bytes() + b"\0")
    gone = tmp_path / "gone.tflite"
    gone.write_bytes(model.read_bytes() + b"\0\0")
    made = [(entry(newer), newer), (entry(gone, source="gone"), gone)]
    gone.unlink()
    with pytest.raises(EdgeportError, match="cannot write"):
        baseline.save(folder, made)
    assert baseline.load(folder).entries == (first,)
    assert objects(folder) == [f"{first.result.sha256}.tflite"]
