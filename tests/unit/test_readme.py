"""README's table of classes is the one that the code uses."""

import re
from pathlib import Path

from edgeport.attribution import CLASSES

README = Path(__file__).parents[2] / "README.md"


def test_the_table_of_classes_in_the_readme_is_the_codes() -> None:
    text = README.read_text(encoding="utf-8")
    section = text.partition("<!-- classes -->")[2].partition("<!-- /classes -->")[0]
    rows = re.findall(r"^\| \*\*(\w+)\*\* \| (.*) \|$", section, re.MULTILINE)
    assert {name: kinds.split(", ") for name, kinds in rows} == {n: kinds.split() for n, kinds in CLASSES.items()}
