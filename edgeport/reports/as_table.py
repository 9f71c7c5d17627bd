"""For a terminal: tables that fit its width."""

from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from edgeport.records import Result
from edgeport.reports import View, rows


def render(results: Sequence[Result], view: View) -> str:
    return draw(rows.tables(results, view), view)


def draw(tables: Sequence[rows.Table], view: View) -> str:
    console = Console(file=StringIO(), width=view.width, highlight=False, color_system=None, legacy_windows=False)
    for n, table in enumerate(tables):
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, name in enumerate(table.header):
            numeric = i in table.numeric
            shown.add_column(name, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
        for row in table.rows:
            shown.add_row(*(cell.replace("[", "\\[") for cell in row))
        if n:
            console.print()
        console.print(table.title, markup=False, highlight=False)
        console.print(shown)
    file = console.file
    assert isinstance(file, StringIO)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
