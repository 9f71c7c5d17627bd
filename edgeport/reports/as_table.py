"""For a terminal: tables that fit its width."""

from collections.abc import Sequence
from io import StringIO

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeport import cleaning
from edgeport.records import Result
from edgeport.reports import View, rows

GAP = 3


def render(results: Sequence[Result], view: View) -> str:
    return draw(rows.tables(results, view), view)


def draw(tables: Sequence[rows.Table], view: View) -> str:
    console = Console(file=StringIO(), width=view.width, highlight=False, color_system=None, legacy_windows=False)
    for n, table in enumerate(tables):
        if n:
            console.print()
        cleaned = _cleaned(table)
        console.print(cleaned.title, markup=False, highlight=False, emoji=False)
        dropped = sorted(_dropped(cleaned, view.width))
        console.print(_shown(cleaned, view.width, dropped))
        if dropped:
            names = ", ".join(cleaned.header[i] for i in dropped)
            console.print(f"left out for want of width: {names}", markup=False, highlight=False, emoji=False)
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _cleaned(table: rows.Table) -> rows.Table:
    cells = tuple(tuple(map(cleaning.line, row)) for row in table.rows)
    return msgspec.structs.replace(table, title=cleaning.line(table.title), rows=cells)


def _shown(table: rows.Table, width: int, dropped: Sequence[int]) -> Table:
    """Without the columns that are dropped; where it is too wide all the same, numbers wrap at their spaces."""
    columns = [i for i in range(len(table.header)) if i not in dropped]
    fits = _needed(table, columns) <= width
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i in columns:
        numeric = i in table.numeric
        shown.add_column(
            table.header[i], justify="right" if numeric else "left", no_wrap=numeric and fits, overflow="fold"
        )
    for row in table.rows:
        shown.add_row(*(Text(row[i]) for i in columns))
    return shown


def _dropped(table: rows.Table, width: int) -> set[int]:
    dropped: set[int] = set()
    for column in table.optional:
        if _needed(table, [i for i in range(len(table.header)) if i not in dropped]) <= width:
            break
        dropped.add(column)
    return dropped


def _needed(table: rows.Table, columns: Sequence[int]) -> int:
    """Characters that these columns take, with the space between them."""
    widest = (max(len(row[i]) for row in (table.header, *table.rows)) for i in columns)
    return sum(widest) + GAP * len(columns)
