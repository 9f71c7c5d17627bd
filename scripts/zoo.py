"""Counts, measures and reports every published variant of the catalogue's networks.

    python scripts/zoo.py counts                                  # their list in README, with parameters and MAdds
    python scripts/zoo.py measure [--only GLOB] [-o FOLDER]       # exports and measures each, some 50 s a variant
    python scripts/zoo.py report [FOLDER]                         # docs/zoo.md and docs/zoo.svg from what was measured

measure keeps each variant's result in a folder of its own as soon as it has it, and leaves alone what is kept already:
run again, it goes on where it was interrupted. --again measures all that is there once more, some 25 s a variant, which
suits a machine that others use: export at any time, measure when it is quiet. All of them take 1.5 GB.
A variant that fails does not stop the others; the exit code is then 1.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import msgspec
import zoo_figure
import zoo_report
from zoo_report import CONFIGURATIONS, Kept

from edgeport import analysis, catalog, chatter, files, speedup
from edgeport.errors import EdgeportError
from edgeport.export import capture
from edgeport.export.manifest import read_manifest
from edgeport.progress import Silent
from edgeport.records import Variant
from edgeport.reports import View, as_markdown
from edgeport.reports.rows import Table
from edgeport.runner import local_runner

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- variants -->\n", "<!-- /variants -->"
PAGE, FIGURE = "zoo.md", "zoo.svg"
INTERRUPTED = 130


class Network(NamedTuple):
    """A variant of the catalogue."""

    model: str
    variant: Variant

    @property
    def name(self) -> str:
        """shufflenet_v1-g3-0.5: numbers with a point and words as they are, whole numbers by their argument's initial;
        the input's size where it is not the usual one.
        """
        values = [f"{key[0]}{v}" if isinstance(v, int) else str(v) for key, v in self.variant.arguments.items()]
        return "-".join([self.model, *values, *(str(n) for n in (self.variant.input_shape or ())[-1:])])

    @property
    def shapes(self) -> list[str]:
        """As --input-shape takes them; none where the model's own is meant."""
        return [",".join(map(str, (1, *self.variant.input_shape)))] if self.variant.input_shape else []

    @property
    def command(self) -> list[str]:
        """The model and its options, as edgeport export takes them."""
        options = [("--set", f"{key}={value}") for key, value in self.variant.arguments.items()]
        options += [("--input-shape", shape) for shape in self.shapes]
        return [self.model, *(word for option in options for word in option)]


class Count(NamedTuple):
    params: int
    madds: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("counts", help="write README's list of variants")
    measuring = commands.add_parser("measure", help="export and measure each variant")
    measuring.add_argument("--only", default="*", metavar="GLOB", help="variants by name: '*v2-*0.5', 'micronet-*'")
    measuring.add_argument("-o", dest="folder", type=Path, default=ROOT / "build" / "zoo", help="default: %(default)s")
    measuring.add_argument("--again", action="store_true", help="measure what is there again, without exporting it")
    reporting = commands.add_parser("report", help="write docs/zoo.md and docs/zoo.svg")
    reporting.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "zoo", help="default: %(default)s")
    reporting.add_argument("--docs", type=Path, default=ROOT / "docs", help="write there instead of %(default)s")
    args = parser.parse_args()
    try:
        if args.command == "counts":
            return write_counts()
        if args.command == "measure":
            return measure([n for n in zoo() if fnmatch(n.name, args.only)], args.folder, args.again)
        return report(args.folder, args.docs)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here")
        return INTERRUPTED
    except EdgeportError as e:
        print(f"zoo: {e}", file=sys.stderr)
        return e.exit_code


def zoo() -> list[Network]:
    return [Network(model, variant) for model in catalog.model_names() for variant in catalog.variants(model)]


# counts


def write_counts() -> int:
    networks = zoo()
    counts = {}
    for n, network in enumerate(networks, 1):
        counts[network.name] = counted(network)
        print(f"{progress(n, networks)} {network.name}: {counts[network.name].madds / 1e6:.2f}M MAdds", flush=True)
    files.write_text(README, with_section(README.read_text(encoding="utf-8"), section(networks, counts)))
    print(README)
    return 0


def counted(network: Network) -> Count:
    """As edgeport inspect counts it."""
    factory = catalog.find_factory(network.model)
    with tempfile.TemporaryDirectory() as folder, chatter.kept_in(Path(folder, "log")):
        built = capture.make_network(factory, network.variant.arguments, None)
        captured = capture.capture(built, capture.example_inputs(factory, network.shapes), analysis.PASSES)
    found = analysis.analyse(captured, network.name)
    return Count(found.params, found.madds)


def section(networks: Sequence[Network], counts: dict[str, Count]) -> str:
    """The list of variants as README has it between BEGIN and END."""
    rows = tuple(
        (n.name, f"`{' '.join(n.command)}`", f"{counts[n.name].params:,}", f"{counts[n.name].madds / 1e6:.2f}")
        for n in networks
    )
    header = ("variant", "model and arguments", "parameters", "MAdds, millions")
    title = f"The {len(networks)} published variants (scripts/zoo.py counts)"
    return as_markdown.draw([Table(title, header, rows, (2, 3))], View())


def with_section(text: str, new: str) -> str:
    """Raises EdgeportError where the text has no place for it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise EdgeportError(f"{README} has no part between {BEGIN.strip()} and {END}")
    return before + begin + new + end + after


# measure


def measure(networks: Sequence[Network], folder: Path, again: bool = False) -> int:
    """Exports and profiles what is not kept from before; again: profiles, and only, what is."""
    if not networks:
        raise EdgeportError(f"no variant is called that; there are {', '.join(n.name for n in zoo())}")
    files.writable_folder(folder)
    start, measured, failed = time.monotonic(), 0, []
    for n, network in enumerate(networks, 1):
        place = folder / network.name
        if (place / zoo_report.KEPT).is_file() != again:
            print(f"{progress(n, networks)} {network.name}: {'not there' if again else 'kept from before'}", flush=True)
            continue
        print(f"{progress(n, networks)} {network.name}: ", end="", flush=True)
        try:
            print((profile_again if again else measure_one)(network, place), end="", flush=True)
        except EdgeportError as e:
            failed.append(network.name)
            print(f"FAILED\n{e}", end="", flush=True)
        measured += 1
        minutes = (time.monotonic() - start) / measured * (len(networks) - n) / 60
        print(f"; {minutes:.0f} min left" if n < len(networks) else "", flush=True)
    print(f"FAILED: {', '.join(failed)}" if failed else f"done: {len(networks)} measured in {folder}")
    return 1 if failed else 0


def measure_one(network: Network, folder: Path) -> str:
    """Exports, profiles and keeps one variant; says how it went. Raises EdgeportError where anything is missing."""
    start = time.monotonic()
    edgeport("export", *network.command, f"--name={network.name}", "-o", folder)
    made = {(a.format, a.precision) for a in read_manifest(folder).artifacts}
    if len(made) < len(CONFIGURATIONS):
        raise EdgeportError(f"edgeport export ended well, but made only {sorted(made)}")
    exported = time.monotonic()
    profiled = profile(folder)
    params, madds = counted(network)
    keep(folder, Kept(network.name, network.model, params, madds, today()))  # last: it says that all is there
    return f"export {exported - start:.0f} s, {profiled}"


def profile_again(network: Network, folder: Path) -> str:
    """Profiles a variant that was measured before."""
    kept = msgspec.json.decode((folder / zoo_report.KEPT).read_bytes(), type=Kept)
    profiled = profile(folder)
    keep(folder, msgspec.structs.replace(kept, date=today()))
    return profiled


def profile(folder: Path) -> str:
    start = time.monotonic()
    edgeport("profile", folder, "--format=json", "-o", folder / zoo_report.PROFILES)
    found = zoo_report.profiles(folder)
    speedups = speedup.find(read_manifest(folder), folder, local_runner(), Silent())
    files.write_text(folder / zoo_report.SPEEDUPS, msgspec.json.encode(speedups).decode() + "\n")
    latencies = ", ".join(f"{' '.join(key)} {p.latency_ms.median:.2f} ms" for key, p in found.items())
    ratios = ", ".join(f"{s.runtime} int8 / fp32 {s.ratio.value:.2f}" for s in speedups)
    return f"profile {time.monotonic() - start:.0f} s: {latencies}; by turns: {ratios}"


def keep(folder: Path, kept: Kept) -> None:
    files.write_text(folder / zoo_report.KEPT, msgspec.json.encode(kept).decode() + "\n")


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def edgeport(*arguments: object) -> None:
    """The command line as users run it. Raises EdgeportError with all that it wrote if it fails."""
    command = [sys.executable, "-m", "edgeport.cli", *map(str, arguments), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        written, _ = process.communicate()
    except KeyboardInterrupt:
        process.communicate()  # Ctrl-C reached it too, and it is clearing up
        raise
    if process.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        said = " ".join(map(str, arguments))
        raise EdgeportError(f"edgeport {said} ended with {process.returncode}:\n{written}")


def progress(n: int, networks: Sequence[Network]) -> str:
    return f"[{n:>{len(str(len(networks)))}}/{len(networks)}]"


# report


def report(folder: Path, docs: Path) -> int:
    names = [n.name for n in zoo()]
    measured = [zoo_report.read(folder / name) for name in names if (folder / name / zoo_report.KEPT).is_file()]
    if len(measured) < 2:
        raise EdgeportError(f"{folder} holds {len(measured)} measured variants, no two to compare; run zoo.py measure")
    files.write_text(docs / FIGURE, zoo_figure.draw(measured))
    files.write_text(docs / PAGE, zoo_report.page(measured, len(names), FIGURE))
    print(f"{docs / PAGE}\n{docs / FIGURE}")
    if len(measured) < len(names):
        print(f"only {len(measured)} of {len(names)} variants have been measured", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
