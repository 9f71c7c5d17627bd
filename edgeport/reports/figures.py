"""matplotlib, where it is installed: figures that are the same files for the same results."""

from io import BytesIO
from typing import Any

from edgeport.errors import UsageError

DPI = 150


def pyplot(what: str) -> Any:
    """Raises UsageError that names what needs matplotlib where there is none."""
    try:
        import matplotlib as mpl
    except ImportError as e:
        raise UsageError(f"{what} needs matplotlib; run pip install 'edgeport[plot]'") from e
    mpl.rcdefaults()  # a matplotlibrc of the current folder is nobody's wish
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "edgeport"
    from matplotlib import pyplot as found

    return found


def date_axis(axes: Any) -> None:
    """Dates that do not run into each other."""
    from matplotlib import dates

    locator = dates.AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def saved(figure: Any, format: str) -> bytes:
    """The figure as svg or png, closed."""
    out = BytesIO()
    figure.savefig(out, format=format, dpi=DPI, metadata={"Date": None} if format == "svg" else {"Software": None})
    pyplot("a figure").close(figure)
    return out.getvalue()
