"""For a spreadsheet: one row an operator of every result (by op), or one a module or class."""

from collections.abc import Iterator, Sequence

from edgeport import breakdown, cleaning, stats
from edgeport.breakdown import Line
from edgeport.records import Result
from edgeport.reports import View
from edgeport.reports.rows import Table

RESULT = ("model", "file", "device", "runtime", "precision", "num_threads", "emulated", "median_ms", "verdict")
COSTS = ("us", "share", "madds", "bytes")


def render(results: Sequence[Result], view: View) -> str:
    keys = ("name", "op", "class", "module", "shape") if view.by == "op" else (view.by,)
    rows = [
        (*_result(result), *row, f"{line.us:.3f}", f"{line.share:.6f}", *_costs(line))
        for result in results
        for row, line in _lines(result, view)
    ]
    return cleaning.as_csv([(*RESULT, *keys, *COSTS), *rows])


def _costs(line: Line) -> tuple[int | str, int | str]:
    """Multiply-adds and bytes, nothing where an operator's are not known."""
    return "" if line.unknown_madds else line.madds, "" if line.unknown_bytes else line.bytes


def draw(tables: Sequence[Table], view: View) -> str:
    """The rows of all tables, each table under its header."""
    return cleaning.as_csv([row for table in tables for row in (table.header, *table.rows)])


def _lines(result: Result, view: View) -> Iterator[tuple[tuple[str, ...], Line]]:
    if result.profile is None:
        yield (("",) * (5 if view.by == "op" else 1)), Line("", 0.0, 0.0, 0, 0)
    elif view.by == "op":
        for op, line in breakdown.by_op(result.profile):
            yield (op.name, op.op, op.class_, op.module or "", "x".join(map(str, op.shape))), line
    else:
        by_module = view.by == "module"
        lines = breakdown.by_module(result.profile, view.depth) if by_module else breakdown.by_class(result.profile)
        yield from (((line.key,), line) for line in lines)


def _result(result: Result) -> tuple[object, ...]:
    median = f"{stats.latency(result.launches).median:.6f}"
    return (
        *(result.model, result.file, result.device, result.runtime, result.precision, result.num_threads),
        *(str(result.is_emulated).lower(), median, stats.verdict(result)),
    )
