"""edgeport inspect: counts, shares and what the guidelines say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

OWN_FILE = """
import torch
from torch import nn

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.narrow = nn.Conv2d(16, 192, 1)
        self.grouped = nn.Conv2d(192, 192, 1, groups=8)
    def forward(self, x):
        return torch.cumsum(self.grouped(self.narrow(x)), 1)

INPUT_SHAPE = (16, 28, 28)
"""


def inspect(*arguments: str) -> str:
    command = [sys.executable, "-m", "edgeport.cli", "inspect", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    names = ("mobilenet_v1", "mobilenet_v2", "shufflenet_v2")
    found = json.loads(inspect(*names, "--format=json"))
    return dict(zip(names, found, strict=True))


def test_mobilenets_table_2_is_reproduced(documents: dict[str, Any]) -> None:
    types = {t["type"]: t for t in documents["mobilenet_v1"]["layer_types"]}
    shares = {name: (round(t["madds_share"], 4), round(t["params_share"], 4)) for name, t in types.items()}
    # Conv 3x3 is printed as 1.19%, a swap of digits: the printed column then sums to 99.29%.
    assert shares == {
        "Conv 1x1": (0.9486, 0.7459),
        "Conv DW 3x3": (0.0306, 0.0106),
        "Conv 3x3": (0.0191, 0.0002),
        "FC": (0.0018, 0.2433),
    }


def test_counts_are_the_published_ones(documents: dict[str, Any]) -> None:
    counts = {name: (d["params"], round(d["madds"] / 1e6, 2)) for name, d in documents.items()}
    assert counts == {
        "mobilenet_v1": (4231976, 568.74),
        "mobilenet_v2": (3504872, 300.77),
        "shufflenet_v2": (2278604, 144.91),
    }


def test_shufflenet_v2_keeps_its_papers_guidelines_and_mobilenet_v2_breaks_the_first(
    documents: dict[str, Any],
) -> None:
    assert documents["shufflenet_v2"]["guidelines"]["follows"] == ["G1", "G2", "G3", "G4"]
    assert "G1" not in documents["mobilenet_v2"]["guidelines"]["follows"]
    worst = documents["mobilenet_v2"]["findings"][0]
    assert (worst["guideline"], worst["module"]) == ("G1", "features.2.conv.0.0")


def test_one_pointwise_layer_by_hand(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(OWN_FILE)
    document = json.loads(inspect(f"{tmp_path / 'odd.py'}:Odd", "--format=json"))
    narrow, grouped = (layer for layer in document["layers"] if layer["kind"] == "conv")
    assert narrow["mac_bytes"] == 4 * (28 * 28 * (16 + 192) + 16 * 192)
    assert grouped["mac_bytes"] == 4 * (28 * 28 * (192 + 192) + 192 * 192 // 8)
    assert (narrow["madds"], grouped["madds"]) == (28 * 28 * 16 * 192, 28 * 28 * 192 * 192 // 8)
    assert {f["guideline"] for f in document["findings"]} >= {"G1", "G2"}


def test_what_is_not_counted_is_said(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(OWN_FILE)
    assert "not counted: aten.cumsum.default x1" in inspect(f"{tmp_path / 'odd.py'}:Odd")


def test_several_networks_are_compared_in_one_table() -> None:
    text = inspect("mobilenet_v2", "shufflenet_v2", "--format=markdown")
    assert text.count("| mobilenet_v2 |") == 1
    assert text.count("| shufflenet_v2 |") == 1
