r"""Cleans text that others chose (names of models, modules, operators, devices) for what it is shown in.

One function for each kind of output. What a terminal would obey, or what would hide or reorder text, is shown as an
escape such as \x1b; nothing is left out without a trace.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

# Control characters of both sets, marks of direction, characters of no width, tags, halves of surrogate pairs.
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff"
)
_IN_TEXT, _IN_LINE = re.compile(f"[{_HIDDEN}]"), re.compile(f"[\t\n{_HIDDEN}]")
_PLAIN = re.compile(r"[\w .,:;%+/()='\"?!@→±µ°≤≥-]*")  # what Markdown takes for what it is
_CODE = re.compile(r"`[^`]+`")  # which is shown as it is
_INTERVAL = re.compile(r"\[-?[\d.]+, -?[\d.]+\]$")  # in brackets at the end, where no link can be made of it
_ACTIVE = re.compile(r"://|www\.|mailto:|@(?! )|:\w+:|(?<!\w)_|_(?!\w)", re.IGNORECASE)  # links, mentions, emphasis
_NUMBER = re.compile(r"[+-]?(\d[\d.,]*([eE][+-]?\d+)?\s*%?)?")
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # what a spreadsheet takes for the beginning of a formula


def text(shown: str) -> str:
    """For a terminal, line breaks kept."""
    return _IN_TEXT.sub(_escape, shown)


def line(shown: str) -> str:
    """For one line or one cell of a table."""
    return _IN_LINE.sub(_escape, shown)


def markdown(shown: str) -> str:
    """For a line of Markdown, wherever it is displayed: as code where it would be more than text."""
    cleaned = line(shown).strip()
    if _CODE.fullmatch(cleaned):
        return cleaned
    if _PLAIN.fullmatch(_INTERVAL.sub("", cleaned)) and not _ACTIVE.search(cleaned):
        return cleaned
    fence = "`" * (_longest_run(cleaned) + 1)
    space = " " if "`" in (cleaned[0], cleaned[-1]) else ""
    return f"{fence}{space}{cleaned}{space}{fence}"


def markdown_cell(shown: str) -> str:
    """For a cell of a table in Markdown. A bar after a backslash could not be escaped by another one."""
    return markdown(shown.replace("|", r"\x7c") if "\\" in shown else shown).replace("|", r"\|")


def markdown_block(shown: str) -> str:
    """For several lines of Markdown, as a block of code that nothing in it ends."""
    cleaned = text(shown)
    fence = "`" * max(3, _longest_run(cleaned) + 1)
    return f"{fence}\n{cleaned}\n{fence}"


def figure(shown: str) -> str:
    """For a line of a figure by matplotlib, which takes nothing between dollars for a formula."""
    return line(shown).replace("$", r"\$")


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows for a spreadsheet, which takes no cell for a formula."""
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerows([_csv_cell(cell) for cell in row] for row in rows)
    return out.getvalue()


def as_json(value: Any) -> str:
    """JSON that also a terminal can be shown."""
    import msgspec

    encoded = msgspec.json.format(msgspec.json.encode(value), indent=1).decode()
    return f"{_IN_TEXT.sub(_json_escape, encoded)}\n"


def _csv_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    cleaned = line(cell)
    return f"'{cleaned}" if cleaned.lstrip().startswith(_FORMULA) and not _NUMBER.fullmatch(cleaned) else cleaned


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))


def _longest_run(shown: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", shown)), default=0)
