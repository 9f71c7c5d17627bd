"""The pieces of outputs: what a network joins last is told apart, wherever it lies then; anything else is one piece."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeport.export import capture, pieces
from edgeport.export.pieces import Pieces

Joined = Callable[[Tensor, Tensor], Tensor]


class Heads(nn.Module):
    """Two heads of one body, and all that becomes of their answers, (1, 4, 6) and (1, 3, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.scores = nn.Conv1d(2, 4, 1), nn.Conv1d(2, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        boxes, scores = self.boxes(x), self.scores(x)
        joined = {name: join(boxes, scores) for name, (join, _) in JOINS.items()}
        return {**joined, **{name: join(boxes, scores) for name, join in OTHERS.items()}}


@pytest.fixture(scope="module")
def outputs() -> dict[str, Pieces]:
    captured = capture.capture(Heads().eval(), (torch.randn(1, 2, 6),), ())
    return dict(zip(captured.output_names, pieces.of_outputs(captured.plain), strict=True))


JOINS: dict[str, tuple[Joined, tuple[str, ...]]] = {
    "cat": (lambda a, b: torch.cat([a, b], 1), ("[:, 0:4]", "[:, 4:7]")),
    "turned": (lambda a, b: torch.cat([a, b], 1).transpose(1, 2), ("[:, :, 0:4]", "[:, :, 4:7]")),
    "stack": (lambda a, b: torch.stack([a[:, :3], b], -1), ("[:, :, :, 0:1]", "[:, :, :, 1:2]")),
    "nested": (
        lambda a, b: torch.cat([torch.cat([a * 8, a.exp()], 1), b.sigmoid()], 1),
        ("[:, 0:4]", "[:, 4:8]", "[:, 8:11]"),
    ),
    "sigmoid behind": (lambda a, b: torch.cat([a, b], 1).sigmoid(), ("[:, 0:4]", "[:, 4:7]")),
    "scale behind": (lambda a, b: torch.cat([a, b], 1) * torch.ones(1, 7, 1), ("[:, 0:4]", "[:, 4:7]")),
    "slices of it": (lambda a, b: torch.cat([a, b], 1)[:, 2:, ::2], ("[:, 0:2]", "[:, 2:5]")),
    "without an axis": (lambda a, b: torch.cat([a[0], b[0]]).unsqueeze(1), ("[0:4]", "[4:7]")),
}


def shuffled(a: Tensor, b: Tensor) -> Tensor:
    first, second, third = torch.split(torch.cat([a, b], 1), [2, 2, 3], 1)
    return torch.cat([third, second, first], 1)


WHOLES: dict[str, Joined] = {
    "no join": lambda a, b: a + b.mean(),
    "a join that is computed with": lambda a, b: torch.softmax(torch.cat([a, b], 1), 1),
    "one piece of a join": lambda a, b: torch.cat([a, b], 1)[:, :4],
    "more pieces than anybody reads": lambda a, b: torch.cat([a * (i + 2.0) for i in range(pieces.MOST_PIECES + 1)], 1),
}
OTHERS: dict[str, Joined] = {
    **WHOLES,
    "shuffled": shuffled,
    "by turns": lambda a, b: torch.stack([a[:, :3], b], 2).flatten(1, 2).flip(1)[:, 1:],
}


@pytest.mark.parametrize("name", JOINS)
def test_pieces_are_named_by_where_they_lie(name: str, outputs: dict[str, Pieces]) -> None:
    output = outputs[name]
    assert output.names == JOINS[name][1]
    values = np.arange(2 * output.labels.size).reshape(2, *output.labels.shape)
    for piece, values_of_it in zip(output.names, output.split(values), strict=True):
        slices = eval(f"np.s_[:, {piece[1:-1]}]")  # noqa: S307  a name is a slice of NumPy's, of one sample
        np.testing.assert_array_equal(values_of_it, values[slices].reshape(2, -1))


def test_pieces_in_another_order_are_where_they_went(outputs: dict[str, Pieces]) -> None:
    output = outputs["shuffled"]
    assert sorted(output.names) == ["[:, 0:3]", "[:, 3:7]"]  # both parts of the boxes are one piece
    assert len(set(output.labels[0, :3].flat)) == len(set(output.labels[0, 3:].flat)) == 1


def test_a_piece_that_is_no_slice_is_named_by_its_operator(outputs: dict[str, Pieces]) -> None:
    output = outputs["by turns"]
    assert len(output.names) == 2
    assert all(name and not name.startswith("[") for name in output.names)
    assert sorted(int((output.labels == n).sum()) for n in range(2)) == [12, 18]


@pytest.mark.parametrize("name", WHOLES)
def test_any_other_output_is_one_piece(name: str, outputs: dict[str, Pieces]) -> None:
    output = outputs[name]
    assert output.names == ("",)
    values = np.zeros((3, *output.labels.shape))
    assert [piece.shape for piece in output.split(values)] == [(3, output.labels.size)]
