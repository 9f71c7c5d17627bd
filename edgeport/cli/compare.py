"""edgeport compare."""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from edgeport import display
from edgeport.cli.checks import deliver, destination_file, listed, one_of
from edgeport.cli.history import recorded
from edgeport.cli.options import (
    Calibration,
    Database,
    DevicesFolder,
    InputData,
    InputShape,
    KeepHistory,
    MinSqnr,
    Name,
    Pin,
    Quiet,
    Set,
    Target,
    Wait,
    Weights,
    Wheels,
    complete_model,
)
from edgeport.cli.subjects import (
    PRECISIONS,
    Alpha,
    DeviceName,
    Effect,
    Emulated,
    MaxMinutes,
    Nice,
    NumThreads,
    Precision,
    Runtime,
    Seed,
    Tolerance,
    check_models,
    check_name,
    check_unused,
    find_artifacts,
    find_place,
    how_exported,
    is_converted,
    kind_of,
    open_runner,
    reach,
    shapes_of,
    share,
)
from edgeport.errors import UsageError
from edgeport.records import MIN_SQNR_DB

KINDS = "A model as for export, a .onnx or .tflite file, or an export's folder"


def compare(
    baseline: Annotated[
        str, typer.Argument(metavar="A", help=f"The baseline. {KINDS}.", autocompletion=complete_model)
    ],
    candidate: Annotated[str, typer.Argument(metavar="B", help="The candidate, as A.", autocompletion=complete_model)],
    device: DeviceName = "local",
    devices: DevicesFolder = None,
    runtime: Runtime = None,
    precision: Precision = "fp32,int8",
    num_threads: NumThreads = None,
    tolerance: Tolerance = "2%",
    effect: Effect = None,
    alpha: Alpha = 0.005,
    max_minutes: MaxMinutes = 10.0,
    nice: Nice = 0,
    pin: Pin = "",
    wait: Wait = 0.0,
    wheels: Wheels = None,
    ops: Annotated[bool, typer.Option("--ops/--no-ops", help="Say which modules and operators differ.")] = True,
    depth: Annotated[int, typer.Option(min=0, help="Of the modules.")] = 2,
    seed: Seed = None,
    format: Annotated[str, typer.Option(help="table, json or markdown.", metavar="FORMAT")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    set_: Set = [],  # noqa: B006
    weights: Weights = None,
    input_shape: InputShape = [],  # noqa: B006
    input_data: InputData = None,
    target: Target = None,
    calibration_data: Calibration = None,
    min_sqnr_db: MinSqnr = MIN_SQNR_DB,
    name: Name = None,
    allow_emulated: Emulated = False,
    history: KeepHistory = True,
    database: Database = None,
    quiet: Quiet = False,
) -> int:
    """Tell whether B is slower than A on a device, with a stated error rate, on a machine that others use too.

    Both run alive, by turns, on the same cores, until there is a verdict. Exit code 0: not slower; 1: slower, found in
    two independent sessions; 4: the noise allows no verdict, or they cannot be compared. Comparisons are kept in a
    history: edgeport history.

    Example: edgeport compare old.tflite new.tflite --tolerance 1%
    """
    from edgeport import compare as rules
    from edgeport import inputs, pinning
    from edgeport.reports import View, verdicts
    from edgeport.sessions import Access

    pinning.check(pin)
    check_name(name, ())
    check_models((baseline, candidate))
    listed("--precision", precision, PRECISIONS)
    one_of("--format", format, verdicts.FORMATS)
    by = rules.criteria(share("--tolerance", tolerance), None if effect is None else share("--effect", effect), alpha)
    destination = destination_file(output)
    place = find_place(device, devices)
    values = inputs.load(input_data) if input_data else None
    how = how_exported(set_, weights, input_shape, target, calibration_data, min_sqnr_db)
    check_unused((baseline, candidate), how)
    access = Access(wait, wheels)
    made: list[Any] = []
    with display.steps(not quiet) as progress, recorded(made, history, database) as started:
        reach([place], (baseline, candidate), access, pin, progress)
        models = baseline, candidate
        sides = [find_artifacts(m, runtime, precision, how, place.target, progress, name)[0] for m in models]
        from edgeport import session

        pairs = _pairs(sides[0], sides[1], progress)
        settings = session.Settings(
            criteria=by,
            max_minutes=max_minutes,
            num_threads=num_threads or place.threads,
            nice=nice,
            seed=secrets.randbits(32) if seed is None else seed,
            input_shapes=shapes_of(input_shape, is_converted(baseline) and is_converted(candidate)),
            values=values,
            profile=ops,
            allow_emulated=allow_emulated,
            origin=started,
        )
        try:
            with open_runner(place, access, pin, progress) as (runner, cores):
                tasks = [(pair, msgspec.structs.replace(settings, cores=cores)) for pair in pairs]
                session.compare_all(runner, tasks, len(tasks), made.append, progress)
        finally:  # what was decided before something failed is shown all the same
            if made:
                view = View(depth=depth, width=display.width(sys.stdout))
                deliver(verdicts.render(made, format, view), destination)
    return rules.exit_code([rules.outcome(c) for c in made])


def _pairs(before: Sequence[Any], after: Sequence[Any], progress: Any) -> list[Any]:
    """Files of the same runtime and precision; or two files, whatever they are, if there is one on each side."""
    from edgeport.session import Pair

    if len(before) == len(after) == 1:
        return [Pair(_name(before[0], after[0]), before[0], after[0])]
    candidates = {kind_of(a): a for a in after}
    shared = [a for a in before if kind_of(a) in candidates]
    if not shared:
        kinds = [", ".join(" ".join(kind_of(a)) for a in side) for side in (before, after)]
        raise UsageError(f"nothing to compare: the baseline has {kinds[0]}, the candidate {kinds[1]}")
    left = [a.path.name for a in (*before, *after) if kind_of(a) not in {kind_of(s) for s in shared}]
    if left:
        progress.warned(f"only one side has {', '.join(left)}; not compared")
    return [Pair(_name(a, candidates[kind_of(a)]), a, candidates[kind_of(a)]) for a in shared]


def _name(before: Any, after: Any) -> str:
    name = after.model if before.model == after.model else f"{before.model} → {after.model}"
    return f"{name} {after.precision} {after.runtime}"
