"""What JSON files hold is checked where it is read: forms, depths, names and hashes."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_exports import export
from small_models import small_onnx, small_tflite
from small_results import result

from edgeport import baseline, cli, documents, files
from edgeport.cli.subjects import _artifacts
from edgeport.errors import ModelFileError, ResultFileError
from edgeport.export.manifest import MANIFEST, read_manifest
from edgeport.records import BaselineEntry, ExportOptions
from edgeport.reports import View, as_json

DEEP = b"[" * 200_000
Change = dict[str, Any]


@given(
    st.recursive(st.none() | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
)
def test_depth_is_that_of_brackets_and_not_of_text(value: Any) -> None:
    def depth(of: Any) -> int:
        inner = of.values() if isinstance(of, dict) else of if isinstance(of, list) else ()
        return max((1 + depth(item) for item in inner), default=1) if isinstance(of, dict | list) else 0

    assert documents._depth(msgspec.json.encode(value)) == depth(value)


def test_text_that_does_not_end_is_read_once() -> None:
    assert documents._depth(b'"' + b'\\"[' * 300_000) == 0


def test_a_file_of_an_export_is_the_one_that_was_exported(tmp_path: Path) -> None:
    folder = export(tmp_path)
    [found] = _artifacts(folder, None, ("fp32",))
    assert found.path == folder / "small.fp32.onnx"
    found.path.write_bytes(small_onnx(tmp_path / "other.onnx").read_bytes() + b"\0")
    with pytest.raises(ModelFileError, match="its hash is another one"):
        _artifacts(folder, None, ("fp32",))
    found.path.unlink()
    with pytest.raises(ModelFileError, match="is missing"):
        _artifacts(folder, None, ("fp32",))


@pytest.mark.parametrize("name", ["../small.fp32.onnx", "/etc/passwd", "sub/x.onnx", "x.txt", "", "a\0.onnx", ".."])
def test_a_manifest_names_files_of_its_folder_alone(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match=r"damaged.*artifacts\[0\]\.file.*export again"):
        read_manifest(export(tmp_path, file=name))


def test_an_ending_in_capitals_is_one(tmp_path: Path) -> None:
    folder = export(tmp_path, file="B.ONNX")
    (folder / "small.fp32.onnx").rename(folder / "B.ONNX")
    assert [a.runtime for a in _artifacts(folder, None, ("fp32",))] == ["onnxruntime"]


@pytest.mark.parametrize("kind", ["deep", "pipe"])
def test_a_manifest_that_is_none_is_an_error(tmp_path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(tmp_path / MANIFEST)
    else:
        (tmp_path / MANIFEST).write_bytes(b'{"a":' * 100_000)
    with pytest.raises(ModelFileError, match="nested more than 64 deep" if kind == "deep" else "no plain file"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("change", [{"sha256": "../../victim/precious"}, {"file": "x.txt"}, {"sha256": "0" * 63}])
def test_a_baseline_deletes_nothing_that_is_not_its_own(tmp_path: Path, change: Change) -> None:
    model, folder = small_tflite(tmp_path / "build.int8.tflite"), tmp_path / "baseline"
    made = result(file=model.name, sha256=files.sha256(model))
    kept = BaselineEntry(model="a.tflite", options=ExportOptions(), result=made)
    baseline.save(folder, [(kept, model)])
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious.tflite").write_text("x")
    index = folder / baseline.INDEX
    forged = json.loads(index.read_text())
    forged["entries"][0]["result"].update(change)
    index.write_text(json.dumps(forged))
    with pytest.raises(ModelFileError, match="remove it and save the baseline anew"):
        baseline.save(folder, [(kept, model)])
    assert (tmp_path / "victim" / "precious.tflite").exists()


def test_a_baseline_is_its_owners_where_it_was_saved_and_as_it_was(tmp_path: Path) -> None:
    folder, copy = tmp_path / "baseline", tmp_path / "copy"
    baseline.save(folder, [])
    assert not baseline.is_trusted(folder)
    baseline.trust_saved(folder)
    assert baseline.is_trusted(folder)
    baseline.save(copy, [])
    assert not baseline.is_trusted(copy)
    (folder / baseline.INDEX).write_bytes((folder / baseline.INDEX).read_bytes() + b" ")
    assert not baseline.is_trusted(folder)


def negative_time(document: Change) -> None:
    document["raw"]["launches"][0]["samples_ns"][0] = -5


def negative_start(document: Change) -> None:
    document["raw"]["launches"][0]["init_ns"] = -1


def no_hash(document: Change) -> None:
    document["file"]["sha256"] = "../x"


def path_for_name(document: Change) -> None:
    document["file"]["name"] = "../../x.onnx"


def endless_threads(document: Change) -> None:
    document["num_threads"] = 10**9


@pytest.mark.parametrize("forge", [negative_time, negative_start, no_hash, path_for_name, endless_threads])
def test_a_result_that_cannot_be_is_not_added(tmp_path: Path, forge: Any) -> None:
    document = json.loads(as_json.render([result()], View()))
    forge(document)
    with pytest.raises(ResultFileError, match=r"x\.json holds no results"):
        as_json.read(json.dumps(document).encode(), "x.json")


def test_files_that_are_no_results_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep.json").write_bytes(DEEP)
    os.mkfifo(tmp_path / "pipe.json")
    for name, told in (("deep.json", "nested more than 64 deep"), ("pipe.json", "no plain file"), ("none", "no such")):
        assert cli.run(["history", "add", str(tmp_path / name), "--database", str(tmp_path / "h.db")]) == 3
        assert told in capsys.readouterr().err
