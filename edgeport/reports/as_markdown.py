"""For a README or a pull request."""

from collections.abc import Sequence

from edgeport import cleaning
from edgeport.records import Result
from edgeport.reports import View, rows


def render(results: Sequence[Result], view: View) -> str:
    return draw(rows.tables(results, view), view)


def draw(tables: Sequence[rows.Table], view: View) -> str:
    return "\n".join(_table(table) for table in tables)


def _table(table: rows.Table) -> str:
    rule = ["-:" if i in table.numeric else "-" for i in range(len(table.header))]
    lines = [table.header, rule, *table.rows]
    body = "\n".join(f"| {' | '.join(map(cleaning.markdown_cell, line))} |" for line in lines)
    return f"**{cleaning.markdown(table.title)}**\n\n{body}\n"
