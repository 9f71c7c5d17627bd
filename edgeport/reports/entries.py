"""How the rows of a history are shown: as a table, or as records for machines."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from edgeport import cleaning
from edgeport.history import SHOWN_ID, Entry
from edgeport.reports import View, as_markdown, as_table
from edgeport.reports.rows import Table

FORMATS = ("table", "json", "csv", "markdown")
SHOWN_COMMIT = 9  # hex digits


def render(entries: Sequence[Entry], format: str, view: View, title: str = "") -> str:
    """format: one of FORMATS. title: of the tables."""
    if format == "json":
        return cleaning.as_json(entries)
    if format == "csv":
        return cleaning.as_csv([Entry.__struct_fields__, *map(msgspec.structs.astuple, entries)])
    draw = {"table": as_table.draw, "markdown": as_markdown.draw}[format]
    return draw([_table(entries, title)], view)


def moment(entry: Entry) -> str:
    """By the clock of whoever reads it."""
    return datetime.fromtimestamp(entry.unix_time).astimezone().strftime("%Y-%m-%d %H:%M")


def commit(entry: Entry) -> str:
    """A commit, with a plus where files were not as in it."""
    return f"{entry.git_commit[:SHOWN_COMMIT]}{'+' * bool(entry.git_dirty)}" if entry.git_commit else ""


def _table(entries: Sequence[Entry], title: str) -> Table:
    header = (
        *("id", "kind", "time", "model", "device", "runtime", "precision", "threads", "median ms", "interval"),
        *("verdict", "commit", "branch"),
    )
    return Table(title, header, tuple(_row(entry) for entry in entries), (7, 8, 9), (12, 11, 1, 5, 10, 2))


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        *(entry.id[:SHOWN_ID], entry.kind, moment(entry), entry.model, entry.device + " EMULATED" * entry.emulated),
        *(entry.runtime, entry.precision, str(entry.num_threads)),
        "" if entry.median_ms is None else f"{entry.median_ms:.3f}",
        "" if entry.low_ms is None else f"{entry.low_ms:.3f} to {entry.high_ms:.3f}",
        *(entry.verdict, commit(entry), entry.git_branch or ""),
    )
