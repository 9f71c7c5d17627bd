"""Finds a model or a device by what the user wrote, and says what they may have meant where there is none.

A model file (of the catalogue or of one's own) holds a factory and may hold, beside it, INPUT_SHAPE (C, H, W) or
INPUT_SHAPES (full shapes, one an input), PREPROCESSING and PAPER, and recognise(shapes): see Factory.
"""

import contextlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import msgspec

from edgeport import device_files, files
from edgeport.errors import DeviceError, EdgeportError, ExportError, UsageError, nearest
from edgeport.records import MOST_THREADS, Preprocessing, Variant

ARTIFACT_SUFFIXES = (".onnx", ".tflite")
FACTORY = "build"

Recognise = Callable[[Mapping[str, tuple[int, ...]]], tuple[str, dict[str, Any]]]


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device should be; "" for no matter. model: a part of its model's name; abi: as `uname -m` has it."""

    model: str = ""
    abi: str = ""
    governor: str = ""


class Sensors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Commands, as lists of words, that tell what no file does. temperature: prints degrees Celsius, the first number
    counts; throttled: prints vcgencmd's get_throttled, the first hexadecimal number counts.
    """

    temperature: tuple[str, ...] = ()
    throttled: tuple[str, ...] = ()


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of devices/. transport: a file of edgeport/transport; address: as ssh takes it, or a serial number of
    adb; ssh_config: read in place of the user's own (ssh -F); workdir: the folder on the device for all that edgeport
    keeps there, below the home folder if it is relative; python: its interpreter there. threads: what a model runs with
    unless asked otherwise; cores: pinned to, if any. target: whose kernels int8 is made for. runner: what measures
    there, edgeport's agent or TensorFlow Lite's benchmark_model. android_kit: the file that brings Python to a phone,
    where it is not in edgeport's cache; benchmark_model: that program for the device.
    """

    name: str
    description: str
    transport: str
    target: Literal["auto", "x86", "x86-vnni", "arm"]
    address: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    ssh_config: str = ""
    workdir: str = ""
    python: str = "python3"
    threads: Annotated[int, msgspec.Meta(ge=1, le=MOST_THREADS)] = 1
    cores: tuple[int, ...] = ()
    runner: Literal["agent", "benchmark_model"] = "agent"
    android_kit: str = ""
    benchmark_model: str = ""
    expect: Expected = Expected()
    sensors: Sensors = Sensors()


class Factory(msgspec.Struct, frozen=True):
    """Something that makes a network: not yet called. folder: where what it imports may lie beside it.

    recognise: given the shapes of a state dict's tensors by their names, says whose weights they seem to be and which
    arguments make the network that they belong to. Where they are another network's it may raise LookupError,
    ValueError or ArithmeticError, or be wrong: whoever asks holds the shapes against the network so made.
    """

    name: str
    source: str
    call: Callable[..., Any]
    input_shapes: tuple[tuple[int, ...], ...] | None
    preprocessing: Preprocessing | None
    paper: str | None
    folder: Path | None = None
    recognise: Recognise | None = None


def model_names() -> list[str]:
    """The catalogue, without importing any of it."""
    package = importlib.import_module("edgeport.models")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def variants(name: str) -> tuple[Variant, ...]:
    """Those of a network of the catalogue that are published, as its file's VARIANTS lists them."""
    return tuple(getattr(importlib.import_module(f"edgeport.models.{name}"), "VARIANTS", ()))


def is_artifact(model: str) -> bool:
    return model.lower().endswith(ARTIFACT_SUFFIXES)


def check_model(model: str) -> None:
    """Raises UsageError for what names no network, as far as that can be told without an import."""
    place, colon, _ = model.rpartition(":")
    if not colon and model not in model_names():
        raise UsageError(_unknown_model(model))
    if place.endswith(".py") and not Path(place).is_file():
        raise UsageError(f"there is no file {place}{_nearest_file(place)}")


def find_factory(model: str) -> Factory:
    """A catalogue name, path/to/file.py:factory or package.module:attribute. Imports what it names.

    Raises UsageError for what does not exist, ExportError with the user's own message where their code raises.
    """
    check_model(model)
    if ":" in model:
        place, _, attribute = model.rpartition(":")
        module = _user_module(place)
        name = attribute.rpartition(".")[2]
    else:
        module, attribute, name = importlib.import_module(f"edgeport.models.{model}"), FACTORY, model
    call = _attribute(module, attribute, model)
    return Factory(
        name=name,
        source=model,
        call=call,
        input_shapes=_declared_shapes(module, model),
        preprocessing=declared_preprocessing(module, model),
        paper=getattr(module, "PAPER", None),
        folder=_folder(model),
        recognise=getattr(module, "recognise", None),
    )


def parse_arguments(factory: Factory, assignments: Sequence[str]) -> dict[str, Any]:
    """--set name=value pairs as the factory's parameters are typed. Raises UsageError that lists the right ones."""
    known = parameters(factory.call)
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in known:
            right = ", ".join(str(p) for p in known.values()) or "no arguments"
            raise UsageError(f"--set {assignment}: {factory.source} takes {right}{nearest(name, known)}")
        values[name] = _convert(text, _annotation(factory.call, known[name]), assignment)
    return values


def build(factory: Factory, arguments: dict[str, Any]) -> Any:
    """The network. Raises ExportError with the factory's own message if it raises."""
    with user_code(f"{factory.source} raised"), _importable(factory.folder):
        return factory.call(**arguments)


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Turns whatever a user's own Python raises into an ExportError that shows it and where it was raised."""
    try:
        yield
    except EdgeportError:
        raise
    except (Exception, SystemExit) as e:
        frame = inspect.getinnerframes(e.__traceback__)[-1] if e.__traceback__ else None
        where = f" ({frame.filename}:{frame.lineno})" if frame else ""
        raise ExportError(f"{what} {type(e).__name__}: {e}{where}") from e


def device_names(folder: Path | None = None) -> list[str]:
    """folder: of devices that count besides edgeport's own and the user's; as for find_device."""
    return sorted(device_files.find(folder).counted)


def find_device(name: str, folder: Path | None = None) -> Device:
    """Raises UsageError for an unknown one and for one of the current folder that the user has not trusted, DeviceError
    for a file that does not fit. folder: whose files are trusted.
    """
    found = device_files.find(folder)
    if name in found.counted:
        return read_device(found.counted[name])
    if name in found.untrusted:
        path = found.untrusted[name]
        raise UsageError(f"device {name!r} is told of by {path} alone: {device_files.how_to_trust(name)}")
    known = found.counted
    raise UsageError(f"unknown device {name!r}; there are {', '.join(sorted(known))}{nearest(name, known)}")


def read_device(path: Path) -> Device:
    """Raises DeviceError, which names the file and the key."""
    try:
        raw = tomllib.loads(files.content(path, device_files.MOST_BYTES).decode())
        if "name" in raw:
            raise msgspec.ValidationError(f"Object contains unknown field `name`: its file's name is {path.stem!r}")
        device = msgspec.convert({"name": path.stem, **raw}, Device)
        if device.transport == "local" and (device.address or device.port):
            raise msgspec.ValidationError(
                'transport = "local" is the machine that edgeport runs on and has no address or port: write '
                'transport = "ssh" for another one'
            )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, msgspec.ValidationError) as e:
        raise DeviceError(f"{path}: {e}") from e
    except OSError as e:
        raise DeviceError(f"{path}: {files.reason(e)}") from e
    beside = {
        key: str(device_files.beside(path, named)) for key in device_files.BESIDE if (named := getattr(device, key))
    }
    return msgspec.structs.replace(device, **beside)


def _unknown_model(model: str) -> str:
    known = model_names()
    if Path(model).suffix == ".py":
        return f"{model!r} names a file but no factory in it; write {model}:FACTORY"
    forms = "or path/to/file.py:factory, package.module:attribute"
    return f"unknown model {model!r}; the catalogue has {', '.join(known)}, {forms}{nearest(model, known)}"


def series_name(model: str) -> str:
    """What the results of a network are kept under: a name of the catalogue, or the file and the factory in it, since
    many files have a factory of the same name.
    """
    place, colon, attribute = model.rpartition(":")
    return f"{Path(place).stem if place.endswith('.py') else place}:{attribute}" if colon else model


def _nearest_file(place: str) -> str:
    """What the file may have been meant to be: another one of its folder."""
    path = Path(place)
    return nearest(place, [str(path.with_name(p.name)) for p in path.parent.glob("*.py")])


def _user_module(place: str) -> ModuleType:
    if not place.endswith(".py") and not all(place.split(".")):
        raise UsageError(f"{place!r} names no module; give path/to/file.py:factory or package.module:attribute")
    if not place.endswith(".py"):
        try:
            with user_code(f"importing {place} raised"), _importable(_folder(f"{place}:")):
                return importlib.import_module(place)
        except ExportError as e:
            if isinstance(e.__cause__, ModuleNotFoundError) and (e.__cause__.name or "") in (
                place,
                place.split(".", maxsplit=1)[0],
            ):
                raise UsageError(f"there is no module {place!r} here; give package.module:attribute") from e
            raise
    path = Path(place)
    name = f"edgeport_user_{path.stem}"  # a user's profile.py must not stand in for anybody else's
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with user_code(f"importing {place} raised"), _importable(_folder(f"{place}:")):
        spec.loader.exec_module(module)
    return module


def _folder(model: str) -> Path | None:
    """Of a user's own file; the one that we are in for a module; none for the catalogue."""
    place, colon, _ = model.rpartition(":")
    if not colon:
        return None
    return Path(place).resolve().parent if place.endswith(".py") else Path.cwd()


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """The folder first on sys.path, so that a user's file can import its neighbours as it does when they run it."""
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _attribute(module: ModuleType, attribute: str, model: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_") and callable(getattr(found, n))]
            raise UsageError(f"{model}: there is no {attribute!r}{nearest(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{model}: {attribute!r} is a {type(found).__name__}; it must be a factory or a network")
    return found


def declared_preprocessing(holder: object, what: str) -> Preprocessing | None:
    """PREPROCESSING of a module or of a network, if it has one. what: to name it by in a UsageError."""
    found = getattr(holder, "PREPROCESSING", None)
    if found is None:
        return None
    try:
        if isinstance(found, Preprocessing):
            return msgspec.convert(msgspec.to_builtins(found), Preprocessing)  # which checks the fields' types
        why = f"it is a {type(found).__name__}"
    except msgspec.ValidationError as e:
        why = str(e)
    raise UsageError(f"PREPROCESSING of {what}: {why}; write edgeport.records.Preprocessing(mean=(0, 0, 0), ...)")


def _declared_shapes(module: ModuleType, model: str) -> tuple[tuple[int, ...], ...] | None:
    """INPUT_SHAPES, or INPUT_SHAPE with a batch of 1 before it. Raises UsageError for what is neither."""
    if hasattr(module, "INPUT_SHAPES"):
        shapes = _sizes_of_each(module.INPUT_SHAPES)
        if not shapes:
            raise UsageError(
                f"INPUT_SHAPES of {model} is {module.INPUT_SHAPES!r}; write the whole shape of each input, its batch "
                f"as well, in a list: INPUT_SHAPES = {_meant(module.INPUT_SHAPES)}"
            )
        return shapes
    if hasattr(module, "INPUT_SHAPE"):
        shape = _sizes(module.INPUT_SHAPE)
        if not shape or (len(shape) == 4 and shape[0] == 1):
            raise UsageError(
                f"INPUT_SHAPE of {model} is {module.INPUT_SHAPE!r}; write the one input's sizes without the batch, "
                f"which is 1: INPUT_SHAPE = {(shape or (3, 224, 224))[-3:]}; for other inputs, whole shapes in a list: "
                f"INPUT_SHAPES = [{shape or (1, 3, 224, 224)}]"
            )
        return ((1, *shape),)
    return None


def _sizes(declared: object) -> tuple[int, ...]:
    """A shape; () for what is none."""
    sizes = tuple(declared) if isinstance(declared, (list, tuple)) else ()
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)
    return sizes if whole else ()


def _sizes_of_each(declared: object) -> tuple[tuple[int, ...], ...]:
    """Shapes; () where one of them is none, or where there are none."""
    shapes = tuple(_sizes(shape) for shape in declared) if isinstance(declared, (list, tuple)) else ()
    return shapes if all(shapes) else ()


def _meant(declared: object) -> str:
    """How INPUT_SHAPES would be written: of one shape that is no list of shapes, as the list of it."""
    return str([_sizes(declared) or (1, 3, 224, 224)])


def parameters(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What a factory can be given by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {n: p for n, p in inspect.signature(call).parameters.items() if p.kind in kinds}


def _annotation(call: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    target = call.__init__ if inspect.isclass(call) else call
    try:
        hints = typing.get_type_hints(target)
    except (NameError, TypeError):  # annotations for a type checker alone, or a callable that carries none
        hints = {}
    if parameter.name in hints:
        return hints[parameter.name]
    if parameter.default not in (inspect.Parameter.empty, None):
        return type(parameter.default)
    return Any


def _convert(text: str, annotation: Any, assignment: str) -> Any:
    """A string as the annotation wants it; where there is none, the JSON value that it spells, or the string."""
    try:
        if annotation is Any:
            return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    try:
        return msgspec.convert(text, annotation, strict=False)
    except msgspec.ValidationError:
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.convert(msgspec.json.decode(text), annotation)
        wanted = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        raise UsageError(f"--set {assignment}: {text!r} is not a {wanted}") from None
