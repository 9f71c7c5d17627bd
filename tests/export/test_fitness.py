"""What files cannot hold is refused before anything is converted, by name and with what to change."""

import random
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeport.errors import ExportError
from edgeport.export import capture
from edgeport.graph import REQUIRED, pad_channels

Pair = namedtuple("Pair", "near far")


class Buffer(nn.Module):
    """A streaming network: the end of what it saw before stands in a buffer."""

    past: Tensor

    def __init__(self, write: Callable[["Buffer", Tensor], None]) -> None:
        super().__init__()
        self.register_buffer("past", torch.zeros(1, 4))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat((self.past, x), 1)
        self.write(self, x)
        return joined * 2


def copied(network: Buffer, x: Tensor) -> None:
    network.past.copy_(x)


def assigned(network: Buffer, x: Tensor) -> None:
    network.past = x + network.past


def in_a_slice(network: Buffer, x: Tensor) -> None:
    network.past[:, 1:] = x[:, :-1]


class Attribute(nn.Module):
    """State in what is no buffer."""

    def __init__(self, kept: Any, step: Callable[[Any, Tensor], tuple[Any, Tensor]]) -> None:
        super().__init__()
        self.kept, self.step = kept, step

    def forward(self, x: Tensor) -> Tensor:
        self.kept, y = self.step(self.kept, x)
        return y


def appended(kept: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
    kept.append(x)
    return kept, torch.stack(kept).sum(0)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Counter(nn.Module):
    """Counts its calls, which its answers do not show."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * 2


class KeyWord(nn.Module):
    def forward(self, x: Tensor, *, scale: float) -> Tensor:
        return x * scale


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def decides(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def counts(x: Tensor) -> Tensor:
    for _ in range(int(x.abs().sum())):
        x = x + 1
    return x


STATE = ["keeps state", "one more input", "one more output"]
CHANCE = ["draws random numbers", "self.training"]
OUTER = "in module 1"
REFUSED: dict[str, tuple[nn.Module, list[str]]] = {
    "copied into a buffer": (Buffer(copied), [*STATE, "past"]),
    "a buffer assigned": (Buffer(assigned), [*STATE, "past"]),
    "a slice of a buffer": (Buffer(in_a_slice), [*STATE, "past"]),
    "a counter": (Counter(), [*STATE, "calls", "aten.add_.Tensor", OUTER]),
    "a list": (Attribute([], appended), [*STATE, "kept"]),
    "a number": (Attribute(0, lambda n, x: (n + 1, x * (n + 1))), [*STATE, "kept"]),
    "a plain tensor": (Attribute(torch.zeros(1, 4), lambda t, x: (t.add_(x), t * 2)), [*STATE, "kept"]),
    "Python's random": (Function(lambda x: x * random.random()), ["draws random numbers that PyTorch"]),
    "dropout": (Function(F.dropout), [*CHANCE, "operator aten.dropout.default", OUTER]),
    "noise": (Function(lambda x: x + torch.randn_like(x)), [*CHANCE, "operator aten.randn_like.default", OUTER]),
    "half": (nn.Linear(4, 4).half(), ["weights are float16", "1.weight, 1.bias", ".float()"]),
    "bfloat16": (nn.Linear(4, 4).bfloat16(), ["weights are bfloat16", ".float()"]),
    "double": (nn.Linear(4, 4).double(), ["weights are float64", ".float()"]),
    "complex weights": (nn.Linear(4, 4, dtype=torch.complex64), ["weights are complex64", ".float()"]),
    "complex output": (Function(torch.fft.fft), ["output 1", "complex64", "view_as_real"]),
    "a number out": (Function(lambda x: (x, 3)), ["output 2", "int 3", "no tensor"]),
    "a text out": (Function(lambda x: {"y": x, "of": "a cat"}), ["output 2", "'a cat'", "no tensor"]),
    "an item out": (Function(lambda x: x.sum().item()), ["output 1", "aten.item.default", "no tensor"]),
    "nothing out": (Function(lambda x: None), ["returns no tensor"]),
    "an object out": (Function(lambda x: Counter()), ["not a known type", "tuples, lists and dicts"]),
    "an open shape": (Function(lambda x: x[x > 0]), ["output 1", "aten.index.Tensor", OUTER, "torch.topk"]),
    "an if": (Function(decides), ["decides by the numbers", f"{OUTER} (Function", "torch.where"]),
    "a loop": (Function(counts), ["decides by the numbers", f"{OUTER} (Function", "torch.where"]),
    "NumPy": (Function(lambda x: torch.tensor(x.numpy() * 2)), [OUTER, "torch alone"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_file_can_hold_is_refused_by_name(name: str) -> None:
    network, words = REFUSED[name]
    whole = nn.Sequential(nn.Identity(), network).eval()
    with pytest.raises(ExportError) as raised:
        capture.capture(whole, (torch.rand(1, 4) + 1,))
    said = str(raised.value)
    for word in words:
        assert word in said
    assert ".." not in said


@pytest.mark.parametrize(
    ("network", "inputs", "words"),
    [
        (KeyWord(), 1, "forward takes scale by name alone"),
        (TwoInputs(), 1, "forward takes x, y, and shapes are given for 1"),
        (TwoInputs(), 3, "forward takes x, y, and shapes are given for 3"),
    ],
    ids=["by name alone", "too few", "too many"],
)
def test_inputs_that_forward_does_not_take(network: nn.Module, inputs: int, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        capture.capture(network.eval(), [torch.rand(1, 4)] * inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.complex64])
def test_inputs_of_another_type(dtype: torch.dtype) -> None:
    with pytest.raises(ExportError, match=r"input 1 of the network is .*--input-shape"):
        capture.capture(nn.ReLU(), (torch.ones(1, 4, dtype=dtype),))


class Lazy(nn.Module):
    """Makes its table when it is first called, and keeps what it has computed, which no answer shows."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None
        self.features: Tensor | None = None
        self.last: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(4.0)
        self.features = x + self.table
        return self.features * 2


class Settled(nn.Module):
    """Draws where its answers do not show it: dropout in evaluation mode, attention without dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.dropout = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.attention(x[None], x[None], x[None], need_weights=False)[0])
        return y


def overwrites(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.sub_(0.5).relu_() + 1, x


KEPT: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
    "a table made once": (Lazy(), ("output",)),
    "inactive dropout": (Settled(), ("output",)),
    "an input overwritten": (Function(overwrites), ("output_0", "output_1")),
    "a dict in a dict": (Function(lambda x: {"a": x, "b": {"c": x + 1, "d": [x * 2]}}), ("a", "b_0", "b_1")),
    "None beside tensors": (Function(lambda x: {"a": None, "b": (x, None)}), ("b",)),
    "None in a tuple": (Function(lambda x: (None, x + 1)), ("output",)),
    "keys that read the same": (Function(lambda x: {"1": x, 1: x + 1, "": x + 2}), ("1", "1_1", "output")),
    "a named tuple": (Function(lambda x: Pair(x, x * 2)), ("near", "far")),
    "an ordered dict": (Function(lambda x: OrderedDict(z=x, a=x * 2)), ("z", "a")),
    "a scalar": (Function(lambda x: x.sum()), ("output",)),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_answers_the_same_is_captured_with_its_names(name: str) -> None:
    network, names = KEPT[name]
    x = torch.rand(1, 4)
    captured = capture.capture(network.eval(), (x.clone(),))
    assert captured.output_names == names
    with torch.no_grad():
        expected = [t for t in torch.utils._pytree.tree_leaves(network(x.clone())) if isinstance(t, Tensor)]
        given = x.clone()
        for _ in range(2):  # a file leaves its inputs as they are
            for answer, wanted in zip(captured.graph(given), expected, strict=True):
                torch.testing.assert_close(answer, wanted)


def test_examining_a_network_leaves_the_random_numbers_be() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    capture.capture(nn.ReLU(), (torch.ones(1, 4),))
    assert torch.equal(torch.rand(3), expected)


def test_a_pass_that_fails_costs_speed_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(gm: torch.fx.GraphModule) -> int:
        gm.graph.output_node().args = ((),)
        raise KeyError("ids")

    monkeypatch.setattr(pad_channels, "run", fail)
    x = torch.rand(1, 4)
    captured = capture.capture(nn.Linear(4, 2).eval(), (x,))
    assert "pass pad_channels failed (KeyError: 'ids')" in captured.warning
    assert [p.name for p in captured.passes] == list(REQUIRED)
    torch.testing.assert_close(captured.graph(x)[0], captured.network(x))
