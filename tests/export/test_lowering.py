"""edgeport's own lowering to TFLite: what it writes computes what PyTorch computes, and moves nothing in vain."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor, nn
from torch.nn import functional as F

from edgeport import formats
from edgeport.catalog import find_factory
from edgeport.export import capture, pieces, quantize_tflite, verify
from edgeport.export.capture import Captured
from edgeport.export.job import Job
from edgeport.export.lowering import Lowering, UnsupportedError
from edgeport.formats import Graph
from edgeport.runner import local_runner

from .networks import few, with_statistics
from .random_networks import Chain, networks

RELATIVE_ERROR = 1e-4


def lowered(captured: Captured, folder: Path) -> Path:
    path = folder / "lowered.tflite"
    path.write_bytes(Lowering(captured.graph).run(captured.input_names, captured.output_names))
    return path


def check(network: nn.Module, *inputs: Tensor, folder: Path, names: tuple[str, ...] = ()) -> Path:
    """Lowers the network and runs the file on the inputs, each (samples, *shape): its answers are PyTorch's."""
    first = [x[0].clone() for x in inputs]
    with torch.no_grad():
        made = [network.eval()(*(x.clone() for x in sample)) for sample in zip(*inputs, strict=True)]
    rows = [row if isinstance(row, tuple) else (row,) for row in made]
    expected = [np.stack([row[i].numpy() for row in rows]).astype(np.float64) for i in range(len(rows[0]))]
    path = lowered(capture.capture(network, first), folder)
    found = verify.run_artifact(local_runner(), path, [x.numpy() for x in inputs])
    for i, (got, wanted) in enumerate(zip(found, expected, strict=True)):
        label = names[i] if names else f"output {i}"
        assert got.shape == wanted.shape, label
        assert np.abs(got - wanted).max() <= RELATIVE_ERROR * max(np.abs(wanted).max(), 1e-9), label
    return path


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],  # examples are short as they are, and each takes a process
    suppress_health_check=list(HealthCheck),
)
@given(network=networks())
def test_random_networks_compute_what_pytorch_computes(
    network: Chain, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(network, torch.randn(2, *network.shape), folder=tmp_path_factory.mktemp("lowered"))


def quantized(path: Path, captured: Captured, samples: Tensor) -> Path:
    """The lowered file in int8, ranges from these samples."""
    path.rename(path.with_name("fp32.tflite"))
    job = Job(str(path.parent), ("int8",), "x86", False, captured.input_names, captured.output_names)
    job.store([samples.numpy()], [output.labels for output in pieces.of_outputs(captured.plain)])
    quantize_tflite.run(job)
    return path.with_name("int8.tflite")


@settings(few, max_examples=25, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
@given(network=networks(most_steps=4))
def test_random_networks_survive_int8(network: Chain, tmp_path_factory: pytest.TempPathFactory) -> None:
    samples = torch.randn(16, *network.shape)
    captured = capture.capture(network, (samples[0].clone(),))
    path = quantized(lowered(captured, tmp_path_factory.mktemp("int8")), captured, samples)
    with torch.no_grad():
        rows = [network(x.clone()) for x in samples]
    expected = [np.stack([row[i].numpy() for row in rows]).astype(np.float64) for i in range(len(rows[0]))]
    found = verify.run_artifact(local_runner(), path, [samples.numpy()])
    sqnr = verify.compare(expected, found).sqnr_db
    assert sqnr is None or sqnr > 12


class Each(nn.Module):
    """Every function on the same input, an output each."""

    def __init__(self, functions: dict[str, Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions.values())


ELEMENT_WISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "hardtanh to 6": lambda x: F.hardtanh(x, 0.0, 6.0),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "exp": torch.exp,
    "sqrt": lambda x: x.abs().sqrt(),
    "rsqrt": lambda x: (x.abs() + 0.5).rsqrt(),
    "neg": torch.neg,
    "abs": torch.abs,
    "softmax of channels": lambda x: x.softmax(1),
    "softmax of columns": lambda x: x.softmax(-1),
    "softmax of the batch": lambda x: x.softmax(0),
    "sub": lambda x: x - x.mean((2, 3), keepdim=True),
    "div": lambda x: x / x.abs().mean(1, keepdim=True),
    "maximum": lambda x: torch.maximum(x, -x),
    "minimum": lambda x: torch.minimum(x, x.mean(1, keepdim=True)),
    "number": lambda x: 2 * x + 1,
}
MOVING: dict[str, Callable[[Tensor], Tensor]] = {
    "chunk": lambda x: x.chunk(2, 1)[1],
    "chunk of unequal parts": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "split": lambda x: torch.cat(torch.split(x, 2, 2)[::-1], 2),
    "split with sizes": lambda x: torch.split(x, [1, 3], 1)[1],
    "select": lambda x: x[:, 1] + x[:, -2],
    "select twice": lambda x: x[..., -1, 2],
    "slice from the end": lambda x: x[..., -2:],
    "slice beyond the end": lambda x: x[:, :, 2:99],
    "cat of the batch": lambda x: torch.cat((x, x + 1), 0),
    "channel shuffle": lambda x: x.view(1, 2, 2, 6, 5).transpose(1, 2).reshape(1, 4, 6, 5),
    "pixel shuffle by hand": lambda x: x.view(1, 1, 2, 2, 6, 5).permute(0, 1, 4, 2, 5, 3).reshape(1, 1, 12, 10),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(2, 3),
    "t": lambda x: x.flatten(0, 2).t(),
    "flatten": lambda x: x.flatten(1),
    "unflatten": lambda x: torch.unflatten(x, 1, (2, 2)),
    "squeeze": lambda x: x.squeeze(),
    "squeeze axes": lambda x: x[:, :1].squeeze((0, 1)),
    "unsqueeze": lambda x: x.unsqueeze(2),
    "contiguous": lambda x: x.permute(0, 2, 1, 3).contiguous().view(1, 6, 20),
    "pad": lambda x: F.pad(x, (1, 2, 0, 3)),
    "pad of channels": lambda x: F.pad(x, (0, 0, 0, 0, 1, 2), value=-1.5),
    "dropout": lambda x: F.dropout(x, training=False) * 2,
}
REDUCING: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean((2, 3)),
    "mean of channels": lambda x: x.mean(1),
    "mean kept": lambda x: x.mean((1, 3), keepdim=True),
    "mean of all": lambda x: x.mean(),
    "max pool of negative numbers": lambda x: F.max_pool2d(-x.abs() - 1, 3, 2, padding=1),
    "max pool after relu": lambda x: F.max_pool2d(torch.relu(x), 3, 2, padding=1),
    "max pool like SAME": lambda x: F.max_pool2d(x, 3, 1, padding=1),
    "max pool after sigmoid": lambda x: F.max_pool2d(torch.sigmoid(x), 2, 2, padding=1),
    "average pool": lambda x: F.avg_pool2d(x, 2),
    "average pool like SAME, not counting around": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "average pool with ceil_mode, not counting around": lambda x: F.avg_pool2d(x[..., :5, :], 2, 2, 0, True, False),
    "max pool with ceil_mode, as many windows as without": lambda x: F.max_pool2d(x[..., :5, :], 3, 2, ceil_mode=True),
    "max pool with ceil_mode, one window more": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "average pool with zeros around": lambda x: F.avg_pool2d(x, 3, 2, padding=1),
    "global average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, (3, 1)),
}


@pytest.mark.parametrize("functions", [ELEMENT_WISE, MOVING, REDUCING], ids=["element-wise", "moving", "reducing"])
def test_each_operator(functions: dict[str, Callable[[Tensor], Tensor]], tmp_path: Path) -> None:
    check(Each(functions), 3 * torch.randn(4, 1, 4, 6, 5), folder=tmp_path, names=tuple(functions))


@pytest.mark.parametrize("size", [4, 5, 7, 8])
def test_pools_of_any_windows_are_right_or_refused(size: int, tmp_path: Path) -> None:
    windows = [(k, s, p) for k in (2, 3, 4, 5) for s in (1, 2, 3) for p in range(k // 2 + 1) if k <= size + 2 * p]
    pools: list[tuple[Callable[..., Tensor], dict[str, bool]]] = [
        *[(F.max_pool2d, {"ceil_mode": ceil}) for ceil in (False, True)],
        *[(F.avg_pool2d, {"ceil_mode": c, "count_include_pad": p}) for c in (False, True) for p in (False, True)],
    ]
    given: dict[str, Callable[[Tensor], Tensor]] = {
        f"{pool.__name__}({k}, {s}, {p}) {options}": partial(pool, kernel_size=k, stride=s, padding=p, **options)
        for k, s, p in windows
        for pool, options in pools
    }
    x = 3 * torch.randn(4, 1, 2, size, size)
    can = {name: function for name, function in given.items() if is_known(Each({name: function}), x[0])}
    assert len(can) > len(given) / 2
    check(Each(can), x, folder=tmp_path, names=tuple(can))


def is_known(network: nn.Module, x: Tensor) -> bool:
    captured = capture.capture(network, (x,))
    try:
        Lowering(captured.graph).run(captured.input_names, captured.output_names)
    except UnsupportedError:
        return False
    return True


class Shapes(nn.Module):
    """Linear layers on tensors of two, three and four dimensions, and one without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 3), nn.Linear(3, 4, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.first(x)
        return y, self.second(y.mean(1)), self.second(y.mean((1, 2))), self.first(x.transpose(1, 2)).softmax(1)


def test_linear_layers_of_any_rank(tmp_path: Path) -> None:
    check(Shapes(), torch.randn(3, 2, 4, 6, 5), folder=tmp_path)


class TwoInputs(nn.Module):
    def forward(self, image: Tensor, scale: Tensor) -> Tensor:
        return image * scale[:, :, None, None] + scale.mean((0, 1), keepdim=True)[:, :, None, None]


def test_several_inputs(tmp_path: Path) -> None:
    path = check(TwoInputs(), torch.randn(3, 2, 4, 5, 6), torch.randn(3, 2, 4), folder=tmp_path)
    assert [(i.name, i.shape) for i in formats.read(path).inputs] == [("image", (2, 5, 6, 4)), ("scale", (2, 4))]


# Where a rule may reach too far


class Shared(nn.Module):
    """A convolution's result that somebody else reads too."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.before = nn.Conv2d(4, 4, 1), before

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.conv(x)
        return torch.relu(self.before(y)), y.mean((2, 3))


def test_relu_is_not_fused_into_what_is_read_before_it(tmp_path: Path) -> None:
    check(Shared(lambda y: y), torch.randn(2, 1, 4, 6, 6), folder=tmp_path)


@pytest.mark.parametrize(
    "before",
    [lambda y: y.transpose(2, 3), lambda y: F.dropout(y, training=False), lambda y: y.view(1, 4, 6, 6)],
    ids=["transpose", "dropout", "view"],
)
def test_relu_is_not_fused_through_what_costs_nothing(before: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    check(Shared(before), torch.randn(2, 1, 4, 6, 6), folder=tmp_path)


def test_relu_after_a_concatenation(tmp_path: Path) -> None:
    functions = {"relu": lambda x: torch.relu(torch.cat((x, -x), 1))}
    check(Each(functions), torch.randn(2, 1, 4, 6, 6), folder=tmp_path)


def test_batch_norm_that_could_not_be_folded(tmp_path: Path) -> None:
    network = with_statistics(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    check(network, torch.randn(2, 1, 4, 6, 6), folder=tmp_path)


@pytest.mark.parametrize(
    "functions",
    [
        {"a": torch.relu, "b": torch.relu, "input": lambda x: x},
        {"input in another form": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), "a": torch.relu},
    ],
    ids=["input", "permuted"],
)
def test_outputs_that_are_an_input(functions: dict[str, Callable[[Tensor], Tensor]], tmp_path: Path) -> None:
    check(Each(functions), torch.randn(2, 1, 4, 6, 6), folder=tmp_path)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.sigmoid(x)
        return y, y


def test_one_tensor_as_two_outputs(tmp_path: Path) -> None:
    check(Twice(), torch.randn(2, 1, 4, 6, 6), folder=tmp_path)


class IntegersToFloats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5


def test_integer_operand_of_a_float_operator(tmp_path: Path) -> None:
    try:
        check(IntegersToFloats(), torch.arange(12).view(2, 1, 6), folder=tmp_path)
    except UnsupportedError:
        return  # left to litert-torch, which is as good


class ComputedBias(nn.Module):
    """Layers of which a bias is the result of something."""

    def __init__(self, layer: Callable[[Tensor, Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.layer = layer
        self.weight, self.bias = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, self.weight, self.bias * 2)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (ComputedBias(F.conv2d, 5, 4, 1, 1), (1, 4, 6, 6)),
        (ComputedBias(F.linear, 5, 6), (1, 4, 6)),
        (nn.Conv2d(4, 5, 3), (4, 6, 6)),
        (nn.MaxPool2d(2), (4, 6, 6)),
        (nn.AvgPool2d(2), (4, 6, 6)),
        (nn.AdaptiveAvgPool2d(1), (4, 6, 6)),
        (nn.Linear(6, 5), (6,)),
    ],
    ids=lambda value: f"{value} of" if isinstance(value, nn.Module) else str(value),
)
def test_rare_forms_are_right_or_refused(network: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> None:
    try:
        check(network, torch.randn(2, *shape), folder=tmp_path)
    except UnsupportedError:
        return


# What it does not know, and what it does not write


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.total = nn.Conv2d(3, 4, 1), nn.Sequential(nn.ReLU(), Inner())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.total(self.conv(x))
        return y


def test_unknown_operator_is_named_with_its_module() -> None:
    captured = capture.capture(Outer(), (torch.randn(1, 3, 5, 5),))
    with pytest.raises(UnsupportedError, match=r"aten\.cumsum\.default in total\.1"):
        Lowering(captured.graph).run(captured.input_names, captured.output_names)


@pytest.mark.parametrize(
    "network",
    [
        nn.MaxPool2d(3, 6, ceil_mode=True),
        nn.MaxPool2d(2, dilation=2),
        nn.AvgPool2d(4, 2, padding=1, ceil_mode=True),
        nn.AvgPool2d(5, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.Hardtanh(-1, 1),
    ],
    ids=str,
)
def test_forms_of_operators_that_it_cannot_write_are_refused(network: nn.Module) -> None:
    captured = capture.capture(nn.Sequential(nn.Conv2d(3, 4, 1), network), (torch.randn(1, 3, 7, 7),))
    with pytest.raises(UnsupportedError):
        Lowering(captured.graph).run(captured.input_names, captured.output_names)


def catalogue_graph(name: str, folder: Path, size: int = 64) -> Graph:
    torch.manual_seed(0)
    captured = capture.capture(find_factory(name).call().eval(), (torch.randn(1, 3, size, size),))
    return formats.read(lowered(captured, folder))


def test_mobilenet_needs_no_transpose_and_no_lone_activation(tmp_path: Path) -> None:
    kinds = Counter(n.kind for n in catalogue_graph("mobilenet_v2", tmp_path).nodes)
    # 17 bottlenecks: 16 that expand; 10 shortcuts. Four strided depthwise layers and the stem are padded by hand.
    assert (kinds["CONV_2D"], kinds["DEPTHWISE_CONV_2D"], kinds["ADD"]) == (1 + 16 + 17 + 1, 17, 10)
    assert set(kinds) == {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "PAD", "MEAN", "FULLY_CONNECTED"}


def test_shufflenet_needs_no_transpose_and_no_padded_copy(tmp_path: Path) -> None:
    graph = catalogue_graph("shufflenet_v2", tmp_path, 224)
    assert not {"TRANSPOSE", "RESHAPE", "MIRROR_PAD"} & {n.kind for n in graph.nodes}
    assert all(n.module is not None for n in graph.nodes)


def test_operators_are_named_by_their_modules(tmp_path: Path) -> None:
    graph = catalogue_graph("shufflenet_v2", tmp_path)
    layers = {name for name, m in find_factory("shufflenet_v2").call().named_modules() if isinstance(m, nn.Conv2d)}
    found = {n.module for n in graph.nodes if n.kind in ("CONV_2D", "DEPTHWISE_CONV_2D")}
    assert found == layers
