"""Imports of edgeport run downwards only, so that a layer can be read, tested and replaced without those above it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeport

PACKAGE = Path(edgeport.__file__).parent
MODELS = PACKAGE.parent / "models"
MODULES = sorted(PACKAGE.rglob("*.py"))
# From low to high. What stands in one line does not know its neighbours; modules of one package know each other.
LAYERS = (
    "edgeport errors agent interrupts lifeline scratch",
    "files records progress cleaning targets",
    "protocol",
    "chatter confined cost documents origin trust",
    "device_files debian_packages elf",
    "formats",
    "stats catalog attribution inputs layers",
    "breakdown compare graph transport",
    "history kit probe pinning android_kit emulated",
    "runner",
    "benchmark_model export sessions preflight",
    "measure interleave analysis file_analysis",
    "fleet checkup reach",
    "session guidelines baseline speedup",
    "reports",
    "display",
    "cli",
    "__main__",
)
LAYER_OF = {name: n for n, names in enumerate(LAYERS) for name in names.split()}
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "litert_torch", "sqlalchemy")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, package: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of every import, at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def part_of(name: str) -> str | None:
    """The file or package of edgeport that a full name lies in, None for what is not edgeport's."""
    first, _, rest = name.partition(".")
    if first != "edgeport":
        return None
    part = rest.split(".")[0]
    is_module = part and ((PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file())
    return part if is_module else "edgeport"


def upward(source: str, importer: str, package: str) -> list[str]:
    """The imports in this source that break the rule."""
    own = part_of(importer)
    assert own in LAYER_OF, f"{importer} is in no layer: add it to LAYERS"
    found = []
    for line, name in imported(source, package):
        part = part_of(name)
        if part in (None, own, "edgeport"):
            continue
        assert part in LAYER_OF, f"{name} is in no layer: add it to LAYERS"
        if LAYER_OF[part] >= LAYER_OF[own]:
            found.append(f"{importer}:{line} imports {name}, which is not below it")
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    assert not upward(path.read_text(encoding="utf-8"), name, package)


@pytest.mark.parametrize(
    "source",
    [
        "from edgeport import cli",
        "def f():\n    import edgeport.measure",
        "if True:\n    from edgeport.export.bundle import Request",
        "from ..reports import View",
        "from edgeport import catalog",
    ],
)
def test_an_import_upwards_or_sideways_is_found_wherever_it_stands(source: str) -> None:
    assert len(upward(source, "edgeport.stats.deep", "edgeport.stats")) == 1


def test_an_import_downwards_or_within_the_package_is_let_through() -> None:
    lines = ("from edgeport import errors, __version__", "from edgeport.export.job import Job", "from . import layout")
    source = "\n".join([*lines, "import numpy"])
    assert not upward(source, "edgeport.export.bundle", "edgeport.export")


@pytest.mark.parametrize("path", sorted((PACKAGE / "agent").glob("*.py")), ids=lambda p: p.stem)
def test_the_agent_uses_the_standard_library_and_itself_alone(path: Path) -> None:
    names = [name for _, name in imported(path.read_text(encoding="utf-8"), "edgeport.agent")]
    foreign = [n for n in names if n.split(".")[0] not in sys.stdlib_module_names]
    assert [n for n in foreign if not n.startswith("edgeport.agent.")] == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "agent").glob("*.py")), ids=lambda p: p.stem)
def test_the_agent_imports_itself_by_relative_names(path: Path) -> None:
    """On the device it is no part of a package called edgeport."""
    modules = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    assert not [m.module for m in modules if not m.level and (m.module or "").startswith("edgeport")]


@pytest.mark.parametrize("path", sorted((PACKAGE / "agent").glob("*.py")), ids=lambda p: p.stem)
def test_the_agent_is_written_in_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.py")), ids=lambda p: p.stem)
def test_a_network_of_the_catalogue_needs_nothing_of_edgeport_but_its_records(path: Path) -> None:
    names = [name for _, name in imported(path.read_text(encoding="utf-8"), "edgeport.models")]
    parts = [n for n in names if n.split(".")[0] == "edgeport"]
    assert all(n.startswith("edgeport.records.") for n in parts), parts


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    program = f"import sys, edgeport.cli; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
