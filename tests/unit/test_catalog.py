"""What the user wrote, found; or an error that says what there is instead."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from edgeport import catalog, device_files
from edgeport.catalog import Factory
from edgeport.errors import DeviceError, ExportError, UsageError
from edgeport.records import Preprocessing

MODULE = """
from neighbour import WIDTH
from edgeport.records import Preprocessing

INPUT_SHAPE = (3, 64, 48)
PREPROCESSING = Preprocessing(crop=64)
PAPER = "a paper"
SIZE = 3

class Net:
    @staticmethod
    def wide(width: float = WIDTH) -> str:
        return f"net of {width}"

def tiny(width: float = 1.0, fail: bool = False):
    if fail:
        raise ValueError("width is not in the paper")
    return ("tiny", width)
"""


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """User modules that a test imported are gone after it."""
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        if not name.startswith("edgeport"):
            del sys.modules[name]


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    """A model file of the user's own, which imports its neighbour."""
    (tmp_path / "neighbour.py").write_text("WIDTH = 0.5\n")
    path = tmp_path / "my_net.py"
    path.write_text(MODULE)
    return path


# --set NAME=VALUE


def typed(
    width: float = 1.0,
    blocks: int = 4,
    residual: bool = True,
    name: str = "net",
    sizes: tuple[int, ...] = (1, 2),
    optional: float | None = None,
) -> None:
    """A factory with annotations."""


def untyped(width=1.0, blocks=4, anything=None, required=...) -> None:  # type: ignore[no-untyped-def]
    """A factory without."""


class ANetwork:
    """A network that is its own factory."""

    def __init__(self, width: float, depth: int = 3) -> None: ...


def nothing() -> None:
    """A factory without parameters."""


def parsed(call: Callable[..., Any], *assignments: str) -> dict[str, Any]:
    factory = Factory("net", "net.py:net", call, None, None, None)
    return catalog.parse_arguments(factory, assignments)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("width=0.5", 0.5),
        ("width=2", 2.0),
        ("blocks=7", 7),
        ("residual=false", False),
        ("residual=true", True),
        ("residual=1", True),
        ("name=0.5", "0.5"),
        ("name=a=b", "a=b"),
        ("sizes=[3, 4, 5]", (3, 4, 5)),
        ("optional=0.25", 0.25),
        ("optional=null", None),
    ],
)
def test_a_value_becomes_what_the_parameter_is_annotated_as(assignment: str, value: object) -> None:
    found = parsed(typed, assignment)[assignment.partition("=")[0]]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("width=2", 2.0),
        ("blocks=7", 7),
        ("anything=0.5", 0.5),
        ("anything=[1,2]", [1, 2]),
        ("anything=hello", "hello"),
        ("anything=true", True),
    ],
)
def test_without_annotations_a_value_becomes_what_the_default_is_or_what_it_spells(
    assignment: str, value: object
) -> None:
    found = parsed(untyped, assignment)[assignment.partition("=")[0]]
    assert (found, type(found)) == (value, type(value))


def test_a_class_is_a_factory_too() -> None:
    assert parsed(ANetwork, "width=2", "depth=5") == {"width": 2.0, "depth": 5}


def test_a_partly_applied_factory_is_a_factory_too() -> None:
    assert parsed(partial(typed, width=2.0), "blocks=7") == {"blocks": 7}


def test_an_annotation_that_only_a_type_checker_can_resolve_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "annotated.py"
    path.write_text("def build(width: 'somewhere.Width' = 1.0): ...\n")
    factory = catalog.find_factory(f"{path}:build")
    assert catalog.parse_arguments(factory, ["width=0.5"]) == {"width": 0.5}


@pytest.mark.parametrize("assignment", ["blocks=many", "blocks=1.5", "width=wide", "residual=maybe", "sizes=[1, x]"])
def test_a_value_of_the_wrong_type_is_refused_by_its_name(assignment: str) -> None:
    value = assignment.partition("=")[2]
    with pytest.raises(UsageError) as error:
        parsed(typed, assignment)
    assert f"--set {assignment}" in str(error.value)
    assert f"{value!r} is not a" in str(error.value)


def mode(mode: Literal["fast", "exact"] = "fast") -> None:
    """A factory with a choice."""


def test_a_choice_is_one_of_those_annotated() -> None:
    assert parsed(mode, "mode=exact") == {"mode": "exact"}


def test_a_wrong_choice_gets_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"'slow' .*fast.*exact"):
        parsed(mode, "mode=slow")


def test_a_misspelt_argument_gets_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"widht.*width: float = 1\.0, blocks: int = 4.*did you mean width\?"):
        parsed(typed, "widht=1")


def test_an_assignment_without_an_equals_sign_gets_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"--set width: net\.py:net takes width"):
        parsed(typed, "width")


def test_a_factory_without_parameters_says_so() -> None:
    with pytest.raises(UsageError, match="takes no arguments"):
        parsed(nothing, "width=1")


# Models


def test_the_catalogue_is_listed_without_importing_it() -> None:
    program = "import sys; from edgeport import catalog; print(*catalog.model_names()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names, imported_torch = done.stdout.splitlines()
    assert {"mobilenet_v2", "shufflenet_v2"} <= set(names.split())
    assert names.split() == sorted(names.split())
    assert imported_torch == "False"


def test_a_misspelt_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'shuflenet_v2'.*mobilenet_v2.*did you mean shufflenet_v2"):
        catalog.find_factory("shuflenet_v2")


def test_a_file_without_a_factory_is_told_how_to_name_one() -> None:
    with pytest.raises(UsageError, match=r"write net\.py:FACTORY"):
        catalog.find_factory("net.py")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*absent\.py"):
        catalog.find_factory(f"{tmp_path / 'absent.py'}:build")


def test_a_file_of_ones_own_is_found_with_what_stands_beside_the_factory(user_file: Path) -> None:
    factory = catalog.find_factory(f"{user_file}:tiny")
    assert (factory.name, factory.input_shapes, factory.paper) == ("tiny", ((1, 3, 64, 48),), "a paper")
    assert factory.preprocessing == Preprocessing(crop=64)
    assert catalog.build(factory, {"width": 0.25}) == ("tiny", 0.25)


def test_a_method_of_a_class_can_be_the_factory(user_file: Path) -> None:
    factory = catalog.find_factory(f"{user_file}:Net.wide")
    assert (factory.name, catalog.build(factory, {})) == ("wide", "net of 0.5")


def test_several_inputs_are_declared_with_their_full_shapes(tmp_path: Path) -> None:
    path = tmp_path / "two_inputs.py"
    path.write_text("INPUT_SHAPES = [(1, 3, 8, 8), [1, 4]]\ndef build(): ...\n")
    factory = catalog.find_factory(f"{path}:build")
    assert factory.input_shapes == ((1, 3, 8, 8), (1, 4))
    assert factory.preprocessing is None


def test_a_misspelt_factory_gets_the_nearest_ones(user_file: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no 'tinny'; did you mean tiny"):
        catalog.find_factory(f"{user_file}:tinny")


def test_an_attribute_that_cannot_be_called_is_no_factory(user_file: Path) -> None:
    with pytest.raises(UsageError, match="'SIZE' is a int"):
        catalog.find_factory(f"{user_file}:SIZE")


def test_a_package_here_is_found_by_its_dotted_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "zoo_of_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text("def tiny(): return 'tiny'\n")
    monkeypatch.chdir(tmp_path)
    factory = catalog.find_factory("zoo_of_mine.nets:tiny")
    assert (factory.name, catalog.build(factory, {})) == ("tiny", "tiny")
    with pytest.raises(UsageError, match="did you mean tiny"):
        catalog.find_factory("zoo_of_mine.nets:tinny")


@pytest.mark.parametrize("place", ["no_such_package.nets", "no_such_package"])
def test_a_package_that_is_not_there_is_a_wrong_name(place: str) -> None:
    with pytest.raises(UsageError, match=f"there is no module '{place}'"):
        catalog.find_factory(f"{place}:build")


def test_a_package_whose_own_import_fails_shows_which_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's module is there; what it imports is not."""
    (tmp_path / "needs_more.py").write_text("import something_not_installed\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=r"importing needs_more raised .*No module named 'something_not_installed'"):
        catalog.find_factory("needs_more:build")


@pytest.mark.parametrize("name", ["broken.py:build", "broken:build"])
def test_a_module_that_raises_shows_its_own_message_and_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("x = 1\nraise RuntimeError('my own words')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=r"RuntimeError: my own words \(.*broken\.py:2\)"):
        catalog.find_factory(name)


def test_a_module_with_a_syntax_error_is_an_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "typo.py"
    path.write_text("def build(:\n")
    with pytest.raises(ExportError, match=r"importing .*typo\.py raised SyntaxError"):
        catalog.find_factory(f"{path}:build")


def test_a_factory_that_raises_shows_its_own_message(user_file: Path) -> None:
    factory = catalog.find_factory(f"{user_file}:tiny")
    with pytest.raises(ExportError, match=r"my_net\.py:tiny raised ValueError: width is not in the paper"):
        catalog.build(factory, {"fail": True})


def test_a_factory_may_import_its_neighbour_when_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "late_neighbour.py").write_text("WIDTH = 0.5\n")
    path = tmp_path / "late.py"
    path.write_text("def build():\n    from late_neighbour import WIDTH\n    return WIDTH\n")
    assert catalog.build(catalog.find_factory(f"{path}:build"), {}) == 0.5


def test_a_script_that_ends_the_process_on_import_is_an_error_of_the_file(tmp_path: Path) -> None:
    """As one does that reads its command line outside of main()."""
    path = tmp_path / "script.py"
    path.write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(ExportError, match=r"script\.py raised SystemExit"):
        catalog.find_factory(f"{path}:build")


@pytest.mark.parametrize("name", ["a.onnx", "dir/a.TFLITE"])
def test_artifacts_are_known_by_their_endings(name: str) -> None:
    assert catalog.is_artifact(name)
    assert not catalog.is_artifact(f"{name}.txt")


# Devices


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of devices in place of edgeport's own."""
    monkeypatch.setattr(device_files, "shipped_folder", lambda: tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    text = 'description = "a board"\ntransport = "ssh"\ntarget = "arm"\nthreads = 4\ncores = [2, 3]\n'
    (tmp_path / "rpi4.toml").write_text(text)
    return tmp_path


def test_a_device_is_what_its_file_says(devices: Path) -> None:
    device = catalog.find_device("rpi4")
    assert (device.name, device.transport, device.target) == ("rpi4", "ssh", "arm")
    assert (device.threads, device.cores) == (4, (2, 3))
    assert catalog.device_names() == ["rpi4"]


def test_a_device_runs_models_with_one_thread_on_any_core_unless_its_file_says_otherwise(devices: Path) -> None:
    (devices / "plain.toml").write_text('description = "d"\ntransport = "ssh"\ntarget = "arm"\n')
    device = catalog.find_device("plain")
    assert (device.threads, device.cores) == (1, ())


def test_a_misspelt_device_gets_the_nearest_ones(devices: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown device 'rpi'; there are rpi4; did you mean rpi4"):
        catalog.find_device("rpi")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('description = "d"\ntransport = "ssh"\ntarget = "arm"\ncolour = "red"\n', "colour"),
        ('description = "d"\ntransport = "ssh"\n', "target"),
        ('description = "d"\ntransport = "ssh"\ntarget = "arm"\nthreads = "four"\n', "threads"),
        ("description = \n", "line 1"),
    ],
)
def test_a_device_file_that_does_not_fit_is_named_with_what_is_wrong(devices: Path, text: str, told: str) -> None:
    (devices / "mine.toml").write_text(text)
    with pytest.raises(DeviceError) as error:
        catalog.find_device("mine")
    assert "mine.toml" in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize("name", catalog.device_names())
def test_every_device_that_edgeport_ships_can_be_read(name: str) -> None:
    assert catalog.find_device(name).description


def test_this_machine_is_a_device() -> None:
    assert catalog.find_device("local").transport == "local"
