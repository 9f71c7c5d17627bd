"""What users get wrong: an exit code that says which kind of wrong, a message that helps, and nothing half-written."""

import json
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import NETWORKS, Edgeport, edgeport, network
from torch import nn

from edgeport import catalog

USAGE, FAILURE = 2, 3
FP32_TFLITE = ("--formats=tflite", "--precisions=fp32")


def nothing_in(folder: Path) -> bool:
    """Whether an export left nothing there but its log."""
    return not folder.exists() or {p.name for p in folder.rglob("*") if p.is_file()} <= {"export.log"}


# The command itself: said in a fraction of a second, before anything is imported


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "shuflenet_v2"], ["shuflenet_v2", "did you mean shufflenet_v2", "path/to/file.py:factory"]),
        (["export", "resnet9000"], ["resnet9000", "mobilenet_v2", "shufflenet_v2"]),
        (["export", str(NETWORKS)], ["names a file", f"{NETWORKS}:FACTORY"]),
        (["export", "nowhere.py:build"], ["there is no file nowhere.py"]),
        (["export", "no.such.module:build"], ["no.such.module"]),
        (["export", "model.onnx"], ["already converted"]),
        (["export", "mobilenet_v2", "--formats", "onx"], ["--formats onx", "onnx, tflite", "did you mean onnx"]),
        (["export", "mobilenet_v2", "--precisions", "int4"], ["--precisions int4", "fp32, int8"]),
        (["export", "mobilenet_v2", "--target", "mips"], ["--target mips", "x86, x86-vnni, arm"]),
        (["export", "mobilenet_v2", "--no-such-flag"], ["--no-such-flag"]),
        (["export"], ["Missing argument"]),
        (["profile", "mobilenet_v2", "--device", "lokal"], ["unknown device 'lokal'", "local"]),
        (["profile", "mobilenet_v2", "--format", "jsn"], ["'jsn'", "did you mean json"]),
        (["profile", "mobilenet_v2", "--by", "modul"], ["--by modul", "did you mean module"]),
        (["profile", "mobilenet_v2", "--num-runs", "0"], ["--num-runs"]),
        (["profile", "mobilenet_v2", "--runtime", "litertt"], ["--runtime litertt", "did you mean litert"]),
        (["profile", "."], ["manifest.json", "edgeport export"]),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) and value[0] in ("export", "profile") else "",
)
def test_wrong_commands(
    arguments: list[str], words: list[str], tmp_path: Path, here: Edgeport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here(*arguments, code=FAILURE if arguments == ["profile", "."] else USAGE)
    for word in words:
        assert word in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_command_ends_a_process_of_its_own_with_its_exit_code(tmp_path: Path) -> None:
    assert "did you mean shufflenet_v2" in edgeport("export", "shuflenet_v2", code=USAGE, cwd=tmp_path).err


# Factories


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("widht=1", ["--set widht=1", "did you mean width"]),
        ("layers=two", ["'two' is not a int"]),
        ("width=wide", ["'wide' is not a float"]),
        ("wide=maybe", ["'maybe' is not a bool"]),
        ("width", ["--set width", "width: float"]),
    ],
)
def test_wrong_arguments_of_a_factory(assignment: str, words: list[str], tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("typed"), "--set", assignment, "-o", tmp_path / "out", code=USAGE)
    for word in words:
        assert word in done.err
    assert nothing_in(tmp_path)


def test_a_width_that_the_network_does_not_have(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", "shufflenet_v2", "--set", "width=3", "-o", tmp_path / "out", code=FAILURE)
    assert "0.5, 1.0, 1.5, 2.0" in done.err
    assert nothing_in(tmp_path / "out")


def test_a_factory_that_raises(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("raising"), "-o", tmp_path / "out", code=FAILURE)
    assert re.search(r"raised LookupError: the moon is full \(.*users_networks\.py:\d+\)", done.err)
    assert nothing_in(tmp_path / "out")


def test_a_factory_that_makes_no_network(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("a_list"), "-o", tmp_path / "out", code=USAGE)
    assert "returned a list, not a torch.nn.Module" in done.err


def test_a_factory_that_there_is_not(here: Edgeport) -> None:
    assert "did you mean small" in here("export", network("smal"), code=USAGE).err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def build(:\n", ["SyntaxError", "broken.py"]),
        ("import no_such_package\n", ["no_such_package"]),
        ("1 / 0\n", ["ZeroDivisionError", "broken.py:1"]),
        ("def build():\n    import torch\n    return torch.nn.ReLU()\n", ["input shape", "--input-shape 1,3,224,224"]),
    ],
    ids=["syntax", "import", "raises", "no input shape"],
)
def test_a_file_that_is_broken(source: str, words: list[str], tmp_path: Path, here: Edgeport) -> None:
    (tmp_path / "broken.py").write_text(source)
    code = USAGE if "def build()" in source else FAILURE
    done = here("export", f"{tmp_path / 'broken.py'}:build", "-o", tmp_path / "out", code=code)
    for word in words:
        assert word in done.err
    assert nothing_in(tmp_path / "out")


# Inputs


def test_an_input_of_the_wrong_shape_names_the_module_that_refuses_it(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("small"), "--input-shape=1,1,16,16", "-o", tmp_path / "out", code=FAILURE)
    assert "in module 0 (Conv2d" in done.err
    assert "to have 3 channels, but got 1 channels instead" in done.err
    assert nothing_in(tmp_path / "out")


def test_a_network_that_raises_names_the_module_and_the_line(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("picky"), "-o", tmp_path / "out", code=FAILURE)
    assert re.search(r"in module 1 \(Picky, .*users_networks\.py:\d+\): TypeError: only on Sundays", done.err)


@pytest.mark.parametrize("shape", ["1,a", "1,0,16,16", "1,3,16,16:float33", "-1,3,16,16"])
def test_an_input_shape_that_is_none(shape: str, tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("small"), f"--input-shape={shape}", "-o", tmp_path / "out", code=USAGE)
    assert f"--input-shape {shape}" in done.err
    assert nothing_in(tmp_path / "out")


def test_too_few_inputs(tmp_path: Path, here: Edgeport) -> None:
    done = here("export", network("two_inputs"), "-o", tmp_path / "out", code=FAILURE)
    assert "right" in done.err


def calibration_cases(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "photo.jpg").write_bytes(b"no photo")
    np.savez(folder / "shape.npz", x=np.zeros((4, 3, 8, 8), np.float32))
    np.savez(folder / "names.npz", a=np.zeros(3), b=np.zeros(3))
    (folder / "text.npz").write_text("no archive")
    np.savez(folder / "objects.npz", x=np.array([{}], dtype=object))
    return {
        "missing": (folder / "nowhere", "a folder of images or an .npz"),
        "empty": (folder / "empty", "holds no images"),
        "broken": (folder / "broken", "photo.jpg cannot be read"),
        "shape": (folder / "shape.npz", "(4, 3, 8, 8); it must be (samples, 1, 3, 16, 16)"),
        "names": (folder / "names.npz", "it has a, b"),
        "text": (folder / "text.npz", "not an .npz"),
        "objects": (folder / "objects.npz", "not an .npz of plain arrays"),
    }


@pytest.mark.parametrize("case", ["missing", "empty", "broken", "shape", "names", "text", "objects"])
def test_calibration_data_that_does_not_fit(case: str, tmp_path: Path, here: Edgeport) -> None:
    path, words = calibration_cases(tmp_path)[case]
    options = ("--calibration-data", path, "-o", tmp_path / "out")
    done = here("export", network("small"), *options, code=USAGE)
    assert "--calibration-data" in done.err
    assert words in done.err
    assert nothing_in(tmp_path / "out")


# Weights


def small() -> nn.Module:
    made = catalog.find_factory(network("small")).call()
    assert isinstance(made, nn.Module)
    return made


def test_weights_of_another_network(tmp_path: Path, here: Edgeport) -> None:
    torch.save(catalog.find_factory("mobilenet_v2").call(width=0.35).state_dict(), tmp_path / "w.pth")
    options = ("--weights", tmp_path / "w.pth", "-o", tmp_path / "out")
    done = here("export", network("small"), *options, code=FAILURE)
    assert re.search(r"missing: 0\.weight, .*; \d+ unexpected: features\.0\.0\.weight, .* and \d+ more", done.err)
    assert nothing_in(tmp_path / "out")


def test_weights_of_another_width(tmp_path: Path, here: Edgeport) -> None:
    torch.save(small().state_dict(), tmp_path / "w.pth")
    options = ("--set", "classes=5", "--weights", tmp_path / "w.pth", "-o", tmp_path / "out")
    done = here("export", network("small"), *options, code=FAILURE)
    assert "6.weight ((10, 8) in the file, (5, 8) in the network)" in done.err
    assert nothing_in(tmp_path / "out")


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["pickle", "torch.save", "in a state dict"])
def test_weights_that_would_run_code_are_refused_and_do_not(form: str, tmp_path: Path, here: Edgeport) -> None:
    payload, path = Payload(tmp_path / "executed"), tmp_path / "w.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload if form == "torch.save" else {**small().state_dict(), "x": payload}, path)
    done = here("export", network("small"), "--weights", path, "-o", tmp_path / "out", code=FAILURE)
    assert "cannot be read as data alone" in done.err
    assert "torch.save(network.state_dict(), FILE)" in done.err
    assert not (tmp_path / "executed").exists()
    assert nothing_in(tmp_path / "out")


@pytest.mark.parametrize("content", ["truncated", "text", "empty", "a list", "missing"])
def test_weights_that_are_no_state_dict(content: str, tmp_path: Path, here: Edgeport) -> None:
    path = tmp_path / "w.pth"
    if content == "truncated":
        torch.save(small().state_dict(), path)
        path.write_bytes(path.read_bytes()[:1000])
    elif content == "a list":
        torch.save([1, 2], path)
    elif content != "missing":
        path.write_text("" if content == "empty" else "no weights")
    code = USAGE if content == "missing" else FAILURE
    done = here("export", network("small"), "--weights", path, "-o", tmp_path / "out", code=code)
    assert f"--weights {path}" in done.err
    assert nothing_in(tmp_path / "out")


# Files to profile


@pytest.mark.parametrize("file", ["fp32.onnx", "int8.onnx", "fp32.tflite", "int8.tflite"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_files(shufflenet: Path, file: str, share: float, tmp_path: Path, here: Edgeport) -> None:
    data = (shufflenet / f"shufflenet_v2.{file}").read_bytes()
    path = tmp_path / f"cut.{file}"
    path.write_bytes(data[: int(share * len(data))])
    done = here("profile", path, "--launches=1", "--num-runs=1", code=FAILURE)
    assert path.name in done.err
    assert "model" in done.err
    assert done.out == ""


@pytest.mark.parametrize("name", ["text.onnx", "text.tflite", "other.onnx", "other.tflite", "missing.onnx"])
def test_files_that_are_not_what_their_name_says(small: Path, name: str, tmp_path: Path, here: Edgeport) -> None:
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("A text.\n" * 20)
    elif name.startswith("other"):
        other = {".onnx": "tflite", ".tflite": "onnx"}[path.suffix]
        shutil.copy(small / f"small.fp32.{other}", path)
    done = here("profile", path, code=USAGE if name.startswith("missing") else FAILURE)
    kind = {".onnx": "ONNX", ".tflite": "TFLite"}[path.suffix]
    assert name in done.err
    assert ("there is no file" if name.startswith("missing") else f"is not an {kind} model") in done.err.replace(
        "not a TFLite", "not an TFLite"
    )


def test_a_damaged_file_that_crashes_the_runtime_is_an_error_message(
    small: Path, tmp_path: Path, here: Edgeport
) -> None:
    """Bytes changed at random: refused on reading, by the runtime, or by its crash in the agent's process."""
    generator = np.random.default_rng(1)
    codes = set()
    data = np.frombuffer((small / "small.fp32.tflite").read_bytes(), np.uint8)
    for _ in range(6):
        damaged = data.copy()
        damaged[generator.integers(8, len(data), 8)] = generator.integers(0, 256, 8)
        (tmp_path / "damaged.tflite").write_bytes(damaged.tobytes())
        # Where only weights were changed it runs.
        done = here("profile", tmp_path / "damaged.tflite", "--launches=1", "--num-runs=1", code=(0, FAILURE))
        codes.add(done.code)
        assert "damaged.tflite" in done.err
    assert FAILURE in codes


@pytest.mark.parametrize("damage", ["file gone", "manifest gone", "manifest of another version", "manifest no JSON"])
def test_a_folder_that_is_no_longer_an_export(small: Path, damage: str, tmp_path: Path, here: Edgeport) -> None:
    folder = tmp_path / "small"
    shutil.copytree(small, folder)
    manifest = folder / "manifest.json"
    if damage == "file gone":
        (folder / "small.fp32.onnx").unlink()
    elif damage == "manifest gone":
        manifest.unlink()
    elif damage == "manifest of another version":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 99}))
    else:
        manifest.write_text("{")
    done = here("profile", folder, "--launches=1", "--num-runs=1", code=FAILURE)
    assert ("small.fp32.onnx" if damage == "file gone" else "export") in done.err


@pytest.mark.parametrize(
    ("shape", "code", "words"),
    [
        ("other=1,3,16,16", USAGE, "no input 'other'; it has input_1"),
        ("1,3,x", USAGE, "NAME=1,3,224,224"),
        ("1,3,20,20", USAGE, "the model takes 1,3,16,16"),
    ],
)
def test_input_shapes_that_do_not_fit_the_file(small: Path, shape: str, code: int, words: str, here: Edgeport) -> None:
    assert words in here("profile", small / "small.fp32.onnx", "--input-shape", shape, code=code).err


def test_a_runtime_that_the_folder_or_file_is_not_for(small: Path, tmp_path: Path, here: Edgeport) -> None:
    done = here("profile", small / "small.fp32.onnx", "--runtime=litert", code=USAGE)
    assert "runs with onnxruntime, not litert" in done.err
    only = tmp_path / "only"
    here("export", network("small"), *FP32_TFLITE, "-o", only)
    done = here("profile", only, "--runtime=onnxruntime", code=USAGE)
    assert "it has small.fp32.tflite" in done.err


# Places to write to


def test_an_output_folder_below_a_file(tmp_path: Path, here: Edgeport) -> None:
    (tmp_path / "file").write_text("")
    done = here("export", network("small"), "-o", tmp_path / "file" / "out", code=USAGE)
    assert "cannot write to the folder" in done.err
    assert "not a directory" in done.err
    assert "✓" not in done.err  # it was said first


def test_an_output_file_that_cannot_be_written(small: Path, tmp_path: Path, here: Edgeport) -> None:
    (tmp_path / "file").write_text("")
    done = here("profile", small, "-o", tmp_path / "file" / "out.json", code=USAGE)
    assert "cannot write to the folder" in done.err
    assert "✓" not in done.err
    assert "name a file" in here("profile", small, "-o", tmp_path, code=USAGE).err


@pytest.fixture
def one_megabyte(tmp_path: Path) -> Iterator[Path]:
    """A disk that is soon full."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")


@needs_root
@pytest.mark.parametrize(
    "options",
    [
        ("--set=classes=100000",),
        ("--input-shape=1,3,128,128",),
        ("--set=classes=100000", "--formats=tflite"),
    ],
    ids=["files too large", "samples too large", "tflite too large"],
)
def test_a_full_disk(options: tuple[str, ...], one_megabyte: Path, here: Edgeport) -> None:
    done = here("export", network("small"), *options, "-o", one_megabyte / "out", code=FAILURE)
    assert "no space left on device" in done.err.lower()
    assert nothing_in(one_megabyte)


@needs_root
def test_a_disk_with_room_for_one_file_holds_it_and_its_manifest_or_nothing(one_megabyte: Path, here: Edgeport) -> None:
    out = one_megabyte / "out"
    done = here("export", network("small"), "--set=classes=21000", "--formats=onnx", "-o", out, code=FAILURE)
    assert "no space left on device" in done.err.lower()
    manifest = out / "manifest.json"
    listed = {a["file"] for a in json.loads(manifest.read_text())["artifacts"]} if manifest.exists() else set()
    assert {p.name for p in out.glob("*.onnx")} == listed
