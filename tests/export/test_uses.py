"""What a graph tells of its inputs: what is drawn by that is what the network takes, and shows what it was made for."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeport.export import capture, draws, uses
from edgeport.export.draws import Draw, Mask, Normal, Whole
from edgeport.records import TensorInfo

INTS = torch.int64


class Network(nn.Module):
    """A function of the inputs and of an embedding of ten rows."""

    def __init__(self, run: Callable[..., object] | None = None) -> None:
        super().__init__()
        self.rows, self.run = nn.Embedding(10, 4), run
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.norm = nn.BatchNorm1d(4)
        self.norm.running_mean = torch.arange(4.0)
        self.norm.running_var = torch.full((4,), 9.0)
        self.register_buffer("offsets", torch.tensor([0, 3, 9]))
        self.register_buffer("middle", torch.tensor([5.0, 6.0, 7.0, 8.0]))


class One(Network):
    """Of one input."""

    def forward(self, x: Tensor) -> object:
        assert self.run is not None
        return self.run(self, x)


def rules(network: nn.Module, *inputs: Tensor) -> tuple[Draw, ...]:
    """Those of the inputs; with them, the network is run on a few samples."""
    captured = capture.capture(network.eval(), inputs, ())
    pairs = zip(captured.input_names, inputs, strict=True)
    infos = [TensorInfo(name, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in pairs]
    found = uses.draws_for(captured.plain, infos)
    takes(network, infos, found)
    return found


def takes(network: nn.Module, infos: Sequence[TensorInfo], found: Sequence[Draw]) -> None:
    generator = np.random.default_rng(0)
    arrays = [draws.draw(rule, info, 8, generator) for rule, info in zip(found, infos, strict=True)]
    for sample in zip(*arrays, strict=True):
        with torch.no_grad():
            network(*(torch.from_numpy(np.array(a)) for a in sample))


def ints(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=INTS)


WHOLE: dict[str, tuple[Callable[..., object], tuple[int, int]]] = {
    "rows": (lambda n, x: n.rows(x), (0, 9)),
    "rows, moved and cut": (lambda n, x: n.rows(x.t()[:2].flatten()), (0, 9)),
    "rows behind others": (lambda n, x: n.rows(x + 7), (0, 2)),
    "rows before others": (lambda n, x: n.rows(x - 3), (3, 12)),
    "rows from the end": (lambda n, x: n.rows(9 - x), (0, 9)),
    "every other row": (lambda n, x: n.rows(2 * x + 1), (0, 4)),
    "rows, as another type": (lambda n, x: n.rows(x.int().clamp(0, 9)), (0, 9)),
    "rows, not those of padding": (lambda n, x: n.rows(x.masked_fill(x == -100, 0)), (0, 9)),
    "rows, and a mask of them": (lambda n, x: n.rows(x) * (x != 0).float()[..., None], (0, 9)),
    "rows joined with others": (lambda n, x: n.rows(torch.cat([torch.full((1, 1), 9), x + 1], 1)), (0, 8)),
    "the narrower of two": (lambda n, x: (n.rows(x), n.rows.weight[:6][x]), (0, 5)),
    "places on an axis": (lambda n, x: n.rows.weight.t().index_select(1, x[0]), (0, 9)),
    "places to gather": (lambda n, x: n.rows.weight.gather(0, x.expand(4, -1).t()), (0, 9)),
    "places to write to": (lambda n, x: torch.zeros(1, 6).scatter(1, x, 1.0), (0, 5)),
    "classes": (lambda n, x: F.one_hot(x, 7).float(), (0, 6)),
    "classes by comparison": (lambda n, x: (x[..., None] == torch.arange(7)).float(), (0, 6)),
    "lengths": (lambda n, x: torch.arange(6) < x[:, :1], (1, 6)),
    "parts of 255": (lambda n, x: x.float() / 255, (0, 255)),
}


class Wholes(Network):
    """All of them in one, each with an input of its own."""

    def forward(self, *inputs: Tensor) -> object:
        return [run(self, x) for (run, _), x in zip(WHOLE.values(), inputs, strict=True)]


@pytest.fixture(scope="module")
def wholes() -> dict[str, Draw]:
    return dict(zip(WHOLE, rules(Wholes(), *(ints(1, 3) for _ in WHOLE)), strict=True))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_are_those_that_the_graph_takes(name: str, wholes: dict[str, Draw]) -> None:
    rule, (low, high) = wholes[name], WHOLE[name][1]
    assert isinstance(rule, Whole)
    assert (int(np.max(rule.low)), int(np.min(rule.high))) == (low, high)


def test_columns_have_their_own_rows() -> None:
    (rule,) = rules(One(lambda n, x: n.rows(x + n.offsets)), ints(1, 3))
    assert isinstance(rule, Whole)
    np.testing.assert_array_equal(rule.high, [[9, 6, 0]])


def with_bias(network: Network, x: Tensor, bias: Tensor) -> Tensor:
    return torch.softmax(x @ x.transpose(1, 2) + bias, -1)


LOWEST = torch.finfo(torch.float32).min
MASKS: dict[str, tuple[Callable[..., object], torch.dtype, int]] = {
    "by name": (lambda n, x, m: x * m[..., None], INTS, 1),
    "what is one is kept": (lambda n, x, m: with_bias(n, x, (1.0 - m[:, None].float()) * LOWEST), INTS, 1),
    "what is zero is filled": (
        lambda n, x, m: with_bias(n, x.masked_fill(m[..., None] == 0, -1e9), m[:, None] * 0.0),
        INTS,
        1,
    ),
    "what is true is filled": (
        lambda n, x, m: with_bias(n, x.masked_fill(m[..., None], -1e9), m[:, None] * 0.0),
        torch.bool,
        0,
    ),
    "what is one is taken away": (lambda n, x, m: with_bias(n, x, m[:, None].float() * -1e4), INTS, 0),
    "chosen": (lambda n, x, m: with_bias(n, x, torch.where(m[:, None], 0.0, LOWEST)), torch.bool, 1),
    "chosen the other way": (lambda n, x, m: with_bias(n, x, torch.where(m[:, None], LOWEST, 0.0)), torch.bool, 0),
    "attention": (lambda n, x, m: F.scaled_dot_product_attention(x, x, x, m[:, None]), torch.bool, 1),
    "attention's padding": (lambda n, x, m: n.attention(x, src_key_padding_mask=m), torch.bool, 0),
    "both": (lambda n, x, m: with_bias(n, x, torch.where(m[:, None] & (torch.eye(6) > 0), 0.0, LOWEST)), torch.bool, 1),
}


class Masks(Network):
    """All of them in one, each with a mask of its own."""

    def forward(self, x: Tensor, *masks: Tensor) -> object:
        return [run(self, x, mask) for (run, _, _), mask in zip(MASKS.values(), masks, strict=True)]


@pytest.fixture(scope="module")
def masks() -> dict[str, Draw]:
    given = [torch.ones(1, 6, dtype=dtype) for _, dtype, _ in MASKS.values()]
    values, *others = rules(Masks(), torch.randn(1, 6, 4), *given)
    assert values == Normal()
    return dict(zip(MASKS, others, strict=True))


@pytest.mark.parametrize("name", MASKS)
def test_masks_keep_most_whichever_value_keeps(name: str, masks: dict[str, Draw]) -> None:
    assert masks[name] == Mask(MASKS[name][2])


def test_a_mask_of_any_name_is_known_by_what_it_is_compared_with() -> None:
    assert rules(One(lambda n, x: (x > 0).float()), ints(1, 3)) == (Mask(),)


def test_integers_of_which_nothing_is_known_are_by_their_type() -> None:
    (small,) = rules(One(lambda n, x: torch.cumsum(x, 1)), ints(1, 3))
    (byte,) = rules(One(lambda n, x: x.float()), ints(1, 3).to(torch.uint8))
    assert (small, byte) == (Whole(0, draws.SMALL), Whole(0, 255))


def test_floats_are_as_the_first_normalisation_tells() -> None:
    (by_batches,) = rules(One(lambda n, x: n.norm(x / 2)), torch.randn(1, 4))
    assert isinstance(by_batches, Normal)
    np.testing.assert_allclose(by_batches.mean, [[0, 2, 4, 6]])
    np.testing.assert_allclose(by_batches.std, [[6, 6, 6, 6]])
    (by_constants,) = rules(One(lambda n, x: F.relu((x - n.middle) / 2)), torch.randn(1, 4))
    assert isinstance(by_constants, Normal)
    np.testing.assert_allclose(by_constants.mean, [[5, 6, 7, 8]])
    np.testing.assert_allclose(by_constants.std, [[2, 2, 2, 2]])


@pytest.mark.parametrize(
    "run",
    [lambda n, x: F.relu(x), lambda n, x: x + F.relu(x * 3), lambda n, x: x * n.rows.weight[0]],
    ids=["nothing", "also as it is", "what is learnt is no normalisation"],
)
def test_other_floats_are_standard_normal(run: Callable[..., object]) -> None:
    assert rules(One(run), torch.randn(1, 4)) == (Normal(),)
