"""What scripts/zoo.py kept of each variant, and the page that it makes. Nothing is measured here."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgeport import formats
from edgeport.attribution import CLASS_NAMES, plain
from edgeport.errors import EdgeportError
from edgeport.export.manifest import read_manifest
from edgeport.formats import Graph, Node
from edgeport.records import Manifest, Verification
from edgeport.reports import View, as_markdown
from edgeport.reports.rows import Table
from edgeport.speedup import Speedup

KEPT, PROFILES, SPEEDUPS = "variant.json", "profile.json", "int8_by_fp32.json"  # beside an export's own files
Configuration = tuple[str, str]  # runtime, precision
CONFIGURATIONS: tuple[Configuration, ...] = (
    ("litert", "fp32"),
    ("litert", "int8"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
)
TITLES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
FORMATS = {"tflite": "TFLite", "onnx": "ONNX"}
CONVERSIONS = ("quantize", "dequantize", "quantizelinear", "dequantizelinear")
# "Equal MAdds": where ShuffleNetV1 and V2 at width 1.0 and MobileNetV1 at 0.5 lie.
EQUAL, WITHIN = 145e6, 0.1
MODULES_NAMED = 2  # of those that lose most in int8
LEAST_ATTRIBUTED = 0.8  # of a run's time by its classes: where they tell less, something is wrong with the profile


# What was kept


class Kept(msgspec.Struct, frozen=True):
    """KEPT of a variant's folder, written when all the rest is there. date: of the measurement, UTC."""

    name: str
    model: str
    params: int
    madds: int
    date: str


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds."""

    median: float


class Share(msgspec.Struct, frozen=True):
    """Of a profiled run's time."""

    share: float


class Op(msgspec.Struct, frozen=True):
    op: str
    share: float


class Raw(msgspec.Struct, frozen=True):
    """A list of samples a launch."""

    samples_ns: tuple[tuple[int, ...], ...]


class Profile(msgspec.Struct, frozen=True):
    """What is read of the JSON form of a result (edgeport.reports.as_json)."""

    runtime: str
    runtime_version: str
    precision: str
    device: str
    num_threads: int
    verdict: str
    stolen_share: float | None
    latency_ms: Latency
    classes: dict[str, Share]
    ops: tuple[Op, ...]
    raw: Raw
    facts: dict[str, Any]


class Measured(NamedTuple):
    """A variant with all that is known of it."""

    kept: Kept
    manifest: Manifest
    profiles: dict[Configuration, Profile]
    floats: dict[str, Counter[str]]  # by format: kinds of the operators of the int8 file that work on floats
    speedups: dict[str, Speedup]  # by runtime: int8 and fp32 by turns

    @property
    def name(self) -> str:
        return self.kept.name

    @property
    def madds(self) -> int:
        return self.kept.madds

    def ms(self, key: Configuration) -> float:
        return self.profiles[key].latency_ms.median

    def verification(self, format: str) -> Verification:
        """Of the int8 file."""
        wanted = (format, "int8")
        return next(a.verification for a in self.manifest.artifacts if (a.format, a.precision) == wanted)


def read(folder: Path) -> Measured:
    """Raises EdgeportError for a folder that does not hold all of it."""
    manifest = read_manifest(folder)
    floats = {
        a.format: float_operators(formats.read(folder / a.file)) for a in manifest.artifacts if a.precision == "int8"
    }
    kept = msgspec.json.decode((folder / KEPT).read_bytes(), type=Kept)
    return Measured(kept, manifest, profiles(folder), floats, speedups(folder))


def profiles(folder: Path) -> dict[Configuration, Profile]:
    """Of all CONFIGURATIONS, in their order. Raises EdgeportError where one is missing or makes no sense."""
    decoded = msgspec.json.decode((folder / PROFILES).read_bytes(), type=list[Profile])
    found = {(p.runtime, p.precision): p for p in decoded}
    if set(found) != set(CONFIGURATIONS):
        raise EdgeportError(f"{folder / PROFILES} has {sorted(found)}, not all of {sorted(CONFIGURATIONS)}")
    for key, profile in found.items():
        attributed = sum(share.share for share in profile.classes.values())
        if attributed < LEAST_ATTRIBUTED:
            raise EdgeportError(f"{folder / PROFILES}: the classes of {' '.join(key)} make {attributed:.0%} of its run")
    return {key: found[key] for key in CONFIGURATIONS}


def speedups(folder: Path) -> dict[str, Speedup]:
    """Of both runtimes. Raises EdgeportError where one is missing."""
    path = folder / SPEEDUPS
    if not path.is_file():
        raise EdgeportError(f"{path} is not there; measure it: scripts/zoo.py measure --again")
    found = {s.runtime: s for s in msgspec.json.decode(path.read_bytes(), type=list[Speedup])}
    if found.keys() != TITLES.keys():
        raise EdgeportError(f"{path} has {sorted(found)}, not both of {sorted(TITLES)}")
    return found


def float_operators(graph: Graph) -> Counter[str]:
    """How many operators of each kind work on floats in an int8 file: those that read one which no dequantizer made,
    or make one that others than quantizers read. (In ONNX, what stands between the two is int8 when it runs.)
    """
    makers, readers = graph.producers(), graph.consumers()

    def is_float(name: str) -> bool:
        tensor = graph.tensors.get(name)
        return tensor is not None and tensor.dtype == "float32" and not tensor.constant

    def works_on_floats(node: Node) -> bool:
        reads = any(is_float(i) and not (i in makers and converts(makers[i].kind)) for i in node.inputs)
        makes = any(is_float(o) and not all(converts(r.kind) for r in readers.get(o, ())) for o in node.outputs)
        return reads or makes

    return Counter(plain(n.kind) for n in graph.nodes if not converts(n.kind) and works_on_floats(n))


def converts(kind: str) -> bool:
    """Whether an operator of this kind only turns floats into integers, or back."""
    return plain(kind) in CONVERSIONS


# What it says


def equals(measured: Sequence[Measured]) -> list[Measured]:
    """Those of about EQUAL multiply-adds."""
    return [m for m in measured if abs(m.madds / EQUAL - 1) <= WITHIN]


def extremes(measured: Sequence[Measured], key: Configuration) -> tuple[Measured, Measured]:
    """(fastest, slowest)."""
    return min(measured, key=lambda m: m.ms(key)), max(measured, key=lambda m: m.ms(key))


def bargain(measured: Sequence[Measured], key: Configuration) -> tuple[Measured, Measured]:
    """(a, b): a is no slower than b, and no two variants have a larger ratio of multiply-adds, a's to b's."""
    pairs = [(a, b) for a, b in permutations(measured, 2) if a.ms(key) <= b.ms(key)]
    return max(pairs, key=lambda pair: pair[0].madds / pair[1].madds)


def page(measured: Sequence[Measured], published: int, figure: str) -> str:
    """Of at least two variants. published: how many the catalogue has; figure: the file's name."""
    parts = [
        "# The catalogue, measured\n",
        paragraph(
            f"""{len(measured)} of the {published} published variants of the networks in models/, each exported to all
            four files and profiled, as `edgeport export` and `edgeport profile` do by default. Made by `scripts/zoo.py
            measure` and `scripts/zoo.py report`."""
        ),
        f"![Median latency over multiply-adds, in two runtimes and two precisions]({figure})\n",
        *work_and_time(measured),
        "## Circumstances\n",
        *circumstances(measured),
        *latencies(measured),
        *not_faster(measured),
        *shares(measured),
        *agreement(measured),
        *floats(measured),
    ]
    return "\n".join(parts)


def work_and_time(measured: Sequence[Measured]) -> list[str]:
    parts = ["## Multiply-adds do not say how fast a network is\n"]
    equal = equals(measured)
    if len(equal) > 1:
        least, most = (round(madds / 1e6) for madds in (min(m.madds for m in equal), max(m.madds for m in equal)))
        names = ", ".join(m.name for m in equal)
        parts += [
            paragraph(
                f"""These have {least} to {most} million multiply-adds: {names}. If multiply-adds said how fast a
                network is, all would take the same time:"""
            ),
            equal_work(equal),
        ]
    return [*parts, unequal_work(measured)]


def equal_work(equal: Sequence[Measured]) -> str:
    rows = []
    for key in CONFIGURATIONS:
        fast, slow = extremes(equal, key)
        factor = slow.ms(key) / fast.ms(key)
        rows.append((*key, fast.name, f"{fast.ms(key):.2f}", slow.name, f"{slow.ms(key):.2f}", f"{factor:.1f}"))
    header = ("runtime", "precision", "fastest", "ms", "slowest", "ms", "factor")
    return table("Equal work, unequal time", header, rows, (3, 5, 6))


def unequal_work(measured: Sequence[Measured]) -> str:
    rows = []
    for key in CONFIGURATIONS:
        a, b = bargain(measured, key)
        cells = (cell for m in (a, b) for cell in (m.name, f"{m.madds / 1e6:.1f}", f"{m.ms(key):.2f}"))
        rows.append((*key, *cells, f"{a.madds / b.madds:.1f}"))
    header = ("runtime", "precision", "this", "MMAdds", "ms", "no slower than", "MMAdds", "ms", "times its MAdds")
    return table("More work, no more time: the furthest pair", header, rows, (3, 4, 6, 7, 8))


def circumstances(measured: Sequence[Measured]) -> list[str]:
    everything = [p for m in measured for p in m.profiles.values()]
    dates = sorted(m.kept.date for m in measured)
    versions = {f"{name} {m.manifest.versions[name]}" for m in measured for name in ("edgeport", "torch")}
    runtimes = {f"{TITLES[p.runtime]} {p.runtime_version}" for p in everything}
    stolen = max((p.stolen_share for p in everything if p.stolen_share is not None), default=0.0)
    verdicts = Counter(p.verdict for p in everything)
    lines = [
        f"Device: {distinct(map(device, everything))}.",
        f"Versions: {', '.join([*sorted(versions), *sorted(runtimes)])}.",
        f"Measured {distinct([dates[0], dates[-1]], ' to ')}, batch 1: {distinct(map(way, everything))}.",
        f"""Verdicts: {", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())}; what is not stable is
        marked \\* below. The hypervisor took up to {stolen:.1%} of the processors' time.""",
        f"""Weights: {distinct(m.manifest.model.weights or "random, of a fixed seed" for m in measured)}. Latency hardly
        depends on them, int8 agreement does.""",
        f"""int8 for {distinct(m.manifest.target for m in measured)}, calibrated with
        {distinct(m.manifest.calibration.source for m in measured)}.""",
    ]
    return ["".join(paragraph(f"- {line}", indent="  ") for line in lines)]


def device(profile: Profile) -> str:
    facts = profile.facts
    machine = f"{facts['cpu_model']}, {facts['cpus']} processors, {facts['system']} {facts['kernel']}"
    return f"{profile.device} ({machine}), {profile.num_threads} thread{'s' * (profile.num_threads > 1)}"


def way(profile: Profile) -> str:
    launches = profile.raw.samples_ns
    return f"the median of {len(launches)} launches' medians of {len(launches[0])} runs"


def distinct(values: Iterable[str], between: str = "; ") -> str:
    """Every value once: there are several where the circumstances changed from one variant to another."""
    return between.join(dict.fromkeys(values))


def latencies(measured: Sequence[Measured]) -> list[str]:
    header = ["variant", "params M", "MMAdds"]
    for title in TITLES.values():
        header += [f"{title} fp32 ms", "int8 ms", "int8 / fp32"]
    rows = []
    for m in measured:
        row = [m.name, f"{m.kept.params / 1e6:.2f}", f"{m.madds / 1e6:.1f}"]
        for runtime in TITLES:
            times = [milliseconds(m.profiles[runtime, precision]) for precision in ("fp32", "int8")]
            row += [*times, ratio(m.speedups[runtime])]
        rows.append(tuple(row))
    found = " and ".join(how_many(measured, runtime) for runtime in TITLES)
    return [
        "## Latency\n",
        paragraph(
            f"""int8 / fp32: int8's time by fp32's with its 95% interval, both alive at once and run by turns in short
            bursts; the milliseconds are of launches that nothing else was timed beside, and on a busy machine their
            quotient is another. Of the {len(measured)} variants, int8 is {found}."""
        ),
        table("Median latency", header, rows, range(1, len(header))),
    ]


def how_many(measured: Sequence[Measured], runtime: str) -> str:
    """For how many variants int8 is faster there, and for how many it is not."""
    ratios = [m.speedups[runtime].ratio for m in measured]
    faster, slower = sum(r.high < 1 for r in ratios), sum(r.low > 1 for r in ratios)
    open_ones = f", {n} not told apart" if (n := len(ratios) - faster - slower) else ""
    return f"faster than fp32 for {faster} in {TITLES[runtime]} ({slower} slower{open_ones})"


def ratio(speedup: Speedup) -> str:
    found = speedup.ratio
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def not_faster(measured: Sequence[Measured]) -> list[str]:
    """The modules that are the reason, as edgeport export --explain names them."""
    found = [(m, s) for m in measured for s in m.speedups.values() if not s.is_faster]
    rows = [(m.name, TITLES[s.runtime], ratio(s), reasons(s)) for m, s in found]
    header = ("variant", "runtime", "int8 / fp32", "what loses most: module, microseconds, what runs there in int8")
    return [
        "## Where int8 is not faster\n",
        table("The modules that lose most", header, rows, (2,)) if rows else "It is everywhere.\n",
    ]


def reasons(speedup: Speedup) -> str:
    named = [(r.change.module, r.change.us, r.operators) for r in speedup.reasons[:MODULES_NAMED]]
    return "; ".join(f"{module}, {us:+.0f} us: {operators}" for module, us, operators in named)


def milliseconds(profile: Profile) -> str:
    return f"{profile.latency_ms.median:.2f}{'' if profile.verdict == 'stable' else chr(92) + '*'}"


def shares(measured: Sequence[Measured]) -> list[str]:
    rows = [(m.name, *map(percentages, m.profiles.values())) for m in measured]
    header = ("variant", *(f"{TITLES[runtime]} {precision}" for runtime, precision in CONFIGURATIONS))
    return [
        "## Where the time goes\n",
        paragraph(
            f"""Percent of the profiled run, in the order {" / ".join(CLASS_NAMES)} (README has the classes). What lacks
            to 100 belongs to no operator."""
        ),
        table("Shares by class", header, rows, range(1, len(header))),
    ]


def percentages(profile: Profile) -> str:
    return " / ".join(f"{100 * profile.classes[name].share:.0f}" for name in CLASS_NAMES)


def agreement(measured: Sequence[Measured]) -> list[str]:
    rows = []
    for m in measured:
        found = [m.verification(format) for format in FORMATS]
        cells = ((decibels(v), share(v.top1_agreement)) for v in found)
        rows.append((m.name, *(cell for pair in cells for cell in pair)))
    header = ["variant", *(f"{title} {what}" for title in FORMATS.values() for what in ("SQNR dB", "top-1"))]
    samples = distinct(str(m.verification("onnx").samples) for m in measured)
    return [
        "## int8 against PyTorch\n",
        paragraph(
            f"""Signal to quantisation noise of the outputs, and how often the largest one is the same, over the
            {samples} samples that int8 is judged on. With random weights this says that the conversion is sound, and
            little more: an untrained network answers much the same to every photo, so that top-1 is kept easily, or
            lost everywhere at once; and what a trained one computes has other ranges."""
        ),
        table("int8 agreement", header, rows, range(1, len(header))),
    ]


def decibels(verification: Verification) -> str:
    return "exact" if verification.sqnr_db is None else f"{verification.sqnr_db:.1f}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def floats(measured: Sequence[Measured]) -> list[str]:
    """Operators of int8 files that are not int8, and what runs to convert between the two."""
    rows = [row for m in measured for row in float_rows(m)]
    header = ("variant", "file", "operators on floats", "conversions run", "their share")
    found = table("Files with operators on floats; all others have none", header, rows, (3, 4))
    return [
        "## What stays float in the int8 files\n",
        paragraph(
            """Operators that read or make floats, quantizers and dequantizers left out. conversions run: from float to
            int8 or back, as the profiled run had them, also around operators whose int8 form the runtime lacks."""
        ),
        found if rows else "No operator in any of them.\n",
        *dynamic_activation([m for m in measured if m.kept.model == "micronet"]),
    ]


def dynamic_activation(measured: Sequence[Measured]) -> list[str]:
    """What becomes of MicroNet's Dynamic Shift-Max, which computes its coefficients as it runs."""
    if not measured:
        return []
    told = []
    for format, title in FORMATS.items():
        sqnr = sorted(m.verification(format).sqnr_db or float("inf") for m in measured)
        stay = sorted(sum(m.floats[format].values()) for m in measured)
        told.append(f"in {title} {span(stay, '.0f')} operators stay float and the outputs keep {span(sqnr, '.1f')} dB")
    text = "MicroNet's Dynamic Shift-Max, whose coefficients are computed from its input, quantised with all the rest"
    return [paragraph(f"{text}: {', '.join(told)}.")]


def span(values: Sequence[float], form: str) -> str:
    """Of sorted values: the first to the last, or the one that they all are."""
    return " to ".join(dict.fromkeys(format(v, form) for v in (values[0], values[-1])))


def float_rows(m: Measured) -> list[tuple[str, ...]]:
    rows = []
    for format, runtime in zip(FORMATS, TITLES, strict=True):
        run = [op for op in m.profiles[runtime, "int8"].ops if converts(op.op)]
        listed = ", ".join(f"{n} {kind}" for kind, n in m.floats[format].most_common())
        rows.append((m.name, FORMATS[format], listed, str(len(run)), f"{sum(op.share for op in run):.0%}"))
    return [row for row in rows if row[2]]


def paragraph(text: str, indent: str = "") -> str:
    """Lines of at most 120 characters, those after the first indented."""
    return textwrap.fill(" ".join(text.split()), 120, subsequent_indent=indent, break_long_words=False) + "\n"


def table(title: str, header: Sequence[str], rows: Iterable[tuple[str, ...]], numeric: Iterable[int]) -> str:
    return as_markdown.draw([Table(title, tuple(header), tuple(rows), tuple(numeric))], View())
