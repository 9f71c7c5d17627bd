"""What an export did to the network and why its files are as they are: --explain."""

from edgeport.records import Manifest
from edgeport.reports import View, as_table
from edgeport.reports.rows import Table


def render(manifest: Manifest, view: View) -> str:
    return as_table.draw([_passes(manifest)], view)


def _passes(manifest: Manifest) -> Table:
    rows = tuple(
        (p.name, " ".join(p.formats), str(p.changes), str(p.operators_before - p.operators_after), p.what)
        for p in manifest.passes
    )
    title = f"{manifest.model.name}: what the graph passes did" if rows else "no graph pass ran (--no-optimize)"
    return Table(title, ("pass", "for", "changes", "operators gone", "what it does"), rows, (2, 3))
