"""Int8 forms of small networks in files of both formats: what is chosen, what for, and that it is said."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_line import Edgeport, network
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from edgeport import formats, graph
from edgeport.export import capture, joins, pieces, quantization, quantize_onnx, quantize_tflite, ranges
from edgeport.export import onnx as to_onnx
from edgeport.export.job import Job
from edgeport.export.lowering import Lowering
from edgeport.export.quantization import FloatFile, Sample
from edgeport.export.ranges import Range
from edgeport.records import Quantized

FORMATS = ("onnx", "tflite")
both = pytest.mark.parametrize("form", FORMATS)
Array = NDArray[Any]


def opened(form: str, net: nn.Module, *inputs: Tensor, **job: Any) -> tuple[Any, list[tuple[Array, ...]]]:
    """A float file of the network, and the samples; inputs: (samples, *shape)."""
    captured = capture.capture(net.eval(), tuple(x[0].clone() for x in inputs), graph.REQUIRED)
    given = Job(
        tempfile.mkdtemp(),
        ("int8",),
        job.pop("target", "x86"),
        False,
        captured.input_names,
        captured.output_names,
        **job,
    )
    given.store([], [output.labels for output in pieces.of_outputs(captured.plain)])
    last = [x.movedim(2, -1) if form == "tflite" and x.dim() == 5 else x for x in inputs]
    samples = list(zip(*(x.contiguous().numpy() for x in last), strict=True))
    if form == "tflite":
        (given.folder / "fp32.tflite").write_bytes(
            Lowering(captured.graph).run(captured.input_names, captured.output_names)
        )
        return quantize_tflite.TfliteFile(given), samples
    model = to_onnx._exported(capture.program(captured.graph, captured.inputs), given, lambda _: None)
    return quantize_onnx.OnnxFile(model, given.folder / "int8.onnx", given), samples


def ran(file: FloatFile, samples: Sequence[Sample], method: str = "auto", most: int = 0) -> Quantized:
    return quantization.run(file, samples, msgspec.structs.replace(file._job, method=method, max_layers_float=most))  # type: ignore[attr-defined]


def sqnr_db(expected: Array, found: Array) -> float:
    """Over all elements."""
    whole = np.zeros(expected.shape, np.int16)
    return quantization.worst_db([whole], [[expected]], [[found]])


def floats(file: FloatFile, samples: Sequence[Sample]) -> Array:
    """All answers of the float file as it is."""
    return np.concatenate([np.concatenate([t[n].ravel() for n in file.output_names]) for t in file.tensors(samples)])


def by_channel(answers: Array, file: Any, channels: int) -> Array:
    """(channels, everything else) of the images that a network answers with."""
    if file.channel_axis == -1:
        return answers.reshape(-1, channels).T
    return answers.reshape(len(answers) // channels // 36, channels, 36).swapaxes(0, 1).reshape(channels, -1)


def ints(file: Any, samples: Sequence[Sample]) -> Array:
    """All answers of the int8 file that was written last."""
    return joined(file.outputs(written(file), samples))


def joined(answers: Sequence[Sequence[Array]]) -> Array:
    """One after another, flat."""
    return np.concatenate([output.ravel() for outputs in answers for output in outputs])


def written(file: Any) -> Path:
    folder: Path = file._job.folder
    return next(path for path in folder.glob("int8.*"))


def close(found: Array, expected: Array) -> bool:
    return bool(np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max())


# Other ranges for what ONNX Runtime's quantizer has made


class Shapes(nn.Module):
    """An answer that a ReLU reads, a layer used twice, an operator that keeps its input's range, a softmax."""

    def __init__(self, resizes: bool = True) -> None:
        super().__init__()
        self.resizes = resizes
        self.first, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.twice, self.scores = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.first(x)
        y = F.relu6(self.depthwise(first.relu()))
        y = F.interpolate(y, scale_factor=2.0) if self.resizes else y
        scores = self.scores(self.twice(self.twice(y)).mean((2, 3)))
        return torch.softmax(scores, 1), scores, first


class EqualConstants(nn.Module):
    """Biases that are the same numbers, and so one constant in an ONNX file: of a norm, a sum and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6)
        for layer in (self.first, self.second):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(self.norm(x)))
        return x + y


def test_equal_biases_of_several_kinds_of_layers_are_quantised() -> None:
    file, samples = opened("onnx", EqualConstants(), torch.randn(8, 1, 4, 6))
    path = file.quantize(wanted(file, samples, 1.0), [])
    expected, found = (joined(file.outputs(made, samples)) for made in (file._source, path))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


class Shuffling(nn.Module):
    """Groups of channels turned, as tensors of five axes between ones of four; padding by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        groups = y.view(1, 2, 4, *y.shape[2:])
        turned = torch.cat((groups[:, 1:], groups[:, :1]), 1).reshape(y.shape)
        made: Tensor = self.last(F.pad(turned, (1, 0), value=0.5))
        return made


def test_tflite_requantises_nothing_that_is_only_moved() -> None:
    file, samples = opened("tflite", Shuffling(), torch.randn(8, 1, 3, 6, 6))
    made = formats.read(file.quantize(wanted(file, samples, 1.0), []))
    assert sum(node.kind == "QUANTIZE" for node in made.nodes) == 1  # the input


def wanted(file: FloatFile, samples: Sequence[Sample], factor: float) -> dict[str, Range]:
    spreads = ranges.spreads(lambda: file.tensors(samples))
    found = {name: (factor * spread.low, factor * spread.high) for name, spread in spreads.items()}
    return joins.plan(file.graph, found, joins.Rules(file.output_names, file.limits())).ranges


def constants(path: Path) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("target", ["x86", "arm"])
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("corrected", [False, True])
def test_other_ranges_make_the_file_that_the_quantizer_makes(target: str, optimize: bool, corrected: bool) -> None:
    torch.manual_seed(0)
    file, samples = opened("onnx", Shapes(), torch.randn(4, 1, 3, 12, 12), target=target, optimize=optimize)
    file.quantize(wanted(file, samples, 1.0), [])
    before = constants(written(file))
    if corrected:
        file.set_constant("twice.bias", file.constant("twice.bias") + 0.25)
    found = wanted(file, samples, 0.5)
    patched = constants(file.quantize(found, []))
    file._template = None
    whole = constants(file.quantize(found, []))
    assert patched.keys() == whole.keys() == before.keys()
    for name, value in whole.items():
        assert np.array_equal(patched[name], value), name
    for name in ("x", "output_1", "output_2", "/twice/conv"):
        low, high = found[name]
        assert patched[f"{name}_scale"] == pytest.approx((max(high, 0) - min(low, 0)) / 255, rel=1e-5), name
        assert before[f"{name}_scale"] != patched[f"{name}_scale"]


def test_a_bias_that_other_ranges_make_too_large_to_count_is_kept() -> None:
    torch.manual_seed(0)
    dead = nn.Conv2d(4, 4, 1)
    with torch.no_grad():
        dead.weight[0] *= 1e-9  # as of a channel whose normalisation is folded
        assert dead.bias is not None
        dead.bias[0] = 3.0
    net = nn.Sequential(nn.Conv2d(3, 4, 1), dead)
    file, samples = opened("onnx", net, torch.randn(4, 1, 3, 6, 6))
    expected = floats(file, samples).reshape(4, 4, -1)[:, 0]
    for factor in (1.0, 0.01, 1.0):
        file.quantize({**wanted(file, samples, factor), "output": (-4.0, 4.0)}, [])
        found = ints(file, samples).reshape(4, 4, -1)[:, 0]
        assert np.abs(found - expected).max() < 0.05


@both
def test_an_answer_keeps_its_negative_values_though_a_relu_reads_it(form: str) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, Shapes(resizes=form == "onnx"), torch.randn(12, 1, 3, 12, 12))
    done = ran(file, samples)
    assert sqnr_db(floats(file, samples), ints(file, samples)) > 25
    assert done.held_back == 3


# Equal ranges of channels before depthwise convolutions


class Unequal(nn.Module):
    """Channels of very unequal ranges before a depthwise convolution; factors of a power of two make them so."""

    def __init__(
        self, between: Callable[[Tensor], Tensor] = torch.relu, bias: bool = True, width: int = 1, shown: str = ""
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1, bias=bias)
        self.depthwise = nn.Conv2d(8, 8 * width, 3, padding=1, groups=8)
        self.project = nn.Conv2d(8 * width, 4, 1)
        self.between, self.shown = between, shown
        factors = 2.0 ** -torch.arange(8.0)
        with torch.no_grad():
            for parameter in self.expand.parameters():
                parameter.mul_(factors.view(-1, *[1] * (parameter.dim() - 1)))
            self.depthwise.weight.div_(factors.repeat_interleave(width).view(-1, 1, 1, 1))

    def forward(self, x: Tensor) -> Any:
        made = self.expand(x)
        y = self.between(made)
        z = self.project(self.depthwise(y))
        if self.shown == "before":
            return z, made
        if self.shown == "between":
            return z, y
        return z + y.mean() if self.shown == "read" else z


EQUAL = "equal depthwise ranges"
noisy = torch.Generator().manual_seed(1)
IMAGES = torch.randn(24, 1, 3, 10, 10, generator=noisy)


def equalized(file: Any, samples: Sequence[Sample]) -> bool:
    """Whether any constant is scaled when it is tried."""
    search = quantization._Search(file, samples, file._job)
    search.choose_method(["min-max"])
    return any(True for _ in quantization._equalize(search, Path()))


@both
@pytest.mark.parametrize("between", [torch.relu, lambda x: x], ids=["relu", "nothing"])
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_channels_before_a_depthwise_convolution_get_equal_ranges(
    form: str, between: Callable[[Tensor], Tensor], width: int, bias: bool
) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, Unequal(between, bias, width), IMAGES)
    before = floats(file, samples)
    plain = ran(file, samples, "min-max")
    without = sqnr_db(before, ints(file, samples))
    assert (plain.changes, plain.method) == ((), "min-max")
    done = ran(file, samples)
    assert EQUAL in done.changes
    torch.manual_seed(0)
    file, samples = opened(form, Unequal(between, bias, width), IMAGES)
    before = floats(file, samples)
    search = quantization._Search(file, samples, file._job)
    search.choose_method(["min-max"])
    search.try_change(EQUAL, quantization._equalize)
    assert search.changes == [EQUAL]
    assert search.tried[EQUAL] > search.tried["min-max"] + 3
    assert close(floats(file, samples), before)
    search._quantized()
    assert sqnr_db(before, ints(file, samples)) > without + 3


@both
@pytest.mark.parametrize(
    ("net", "scaled"),
    [
        (Unequal, True),
        (lambda: Unequal(F.relu6), False),
        (lambda: Unequal(torch.sigmoid), False),
        (lambda: Unequal(shown="between"), False),
        (lambda: Unequal(shown="before"), False),
        (lambda: Unequal(shown="read"), False),
    ],
    ids=["hidden", "ReLU6", "sigmoid", "an answer", "an answer before ReLU", "two readers"],
)
def test_only_what_nobody_else_sees_is_scaled(form: str, net: Callable[[], nn.Module], scaled: bool) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, net(), IMAGES)
    assert equalized(file, samples) == scaled


class Shared(nn.Module):
    """Two branches of the same layers' weights: one scaled for its depthwise convolution would change the other."""

    def __init__(self, which: str) -> None:
        super().__init__()
        self.branch, self.which = Unequal(), which
        self.other = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        b = self.branch
        if self.which == "expand":
            return b(x) + self.other(b.expand(-x).relu()).mean()  # type: ignore[no-any-return]
        return b(x) + b.depthwise(torch.cat([x, x, x[:, :2]], 1)).mean()  # type: ignore[no-any-return]


@both
@pytest.mark.parametrize("which", ["expand", "depthwise"])
def test_weights_that_two_layers_share_stay(form: str, which: str) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, Shared(which), IMAGES)
    before = floats(file, samples)
    ran(file, samples)
    assert sqnr_db(before, floats(file, samples)) > 20  # corrected biases differ a little
    assert not equalized(file, samples)


@both
def test_dead_channels_and_dead_layers_are_scaled_by_no_nonsense(form: str) -> None:
    torch.manual_seed(0)
    net = Unequal()
    with torch.no_grad():
        net.expand.weight.zero_()
        assert net.expand.bias is not None
        net.expand.bias.fill_(-1)
    file, samples = opened(form, net, IMAGES)
    done = ran(file, samples)
    assert np.isfinite(floats(file, samples)).all()
    assert all(np.isfinite(layer.sqnr_db) for layer in done.layers)


@both
def test_depthwise_layers_in_a_row_are_scaled_one_by_one(form: str) -> None:
    torch.manual_seed(0)
    net = Unequal()
    net.depthwise = nn.Sequential(  # type: ignore[assignment]
        net.depthwise, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1, groups=8)
    )
    file, samples = opened(form, net, IMAGES)
    before = floats(file, samples)
    search = quantization._Search(file, samples, file._job)
    search.choose_method(["min-max"])
    changed = [name for name, value in quantization._equalize(search, Path()) if file.set_constant(name, value) is None]
    assert len(changed) == 9
    assert close(floats(file, samples), before)


# Corrected biases


def biased(bias: bool = True) -> nn.Sequential:
    """Weights of a step of 1 / 127 that all lie 0.4 of it above what int8 can say, on inputs that are positive."""
    conv = nn.Conv2d(16, 8, 1, bias=bias)
    with torch.no_grad():
        conv.weight.fill_(10.4 / 127)
        conv.weight[:, 0] = 1.0
    return nn.Sequential(nn.Identity(), conv)


POSITIVE = torch.rand(24, 1, 16, 6, 6, generator=noisy) + 1


def mean_error(file: Any, samples: Sequence[Sample]) -> float:
    return float(np.abs(by_channel(ints(file, samples) - floats(file, samples), file, 8).mean(1)).max())


@both
def test_corrected_biases_take_the_mean_error_away(form: str) -> None:
    file, samples = opened(form, biased(), POSITIVE)
    ran(file, samples, "min-max")
    before = mean_error(file, samples)
    file, samples = opened(form, biased(), POSITIVE)
    expected = floats(file, samples)
    done = ran(file, samples)
    assert "corrected biases" in done.changes
    after = np.abs(by_channel(ints(file, samples) - expected, file, 8).mean(1)).max()
    assert before > 0.03
    assert after < before / 5
    assert done.tried["corrected biases"] > done.tried["min-max"] + 3


class Tokens(nn.Module):
    """Linear layers on tokens, whose channels are the last axis in both formats."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(biased(), nn.Flatten(2))
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layers(x).transpose(1, 2))  # type: ignore[no-any-return]


@both
@pytest.mark.parametrize(
    "net",
    [
        Tokens(),
        nn.Sequential(nn.Conv2d(16, 8, 3, groups=4), nn.Conv2d(8, 4, 1, groups=4), nn.Conv2d(4, 12, 3, groups=4)),
        nn.Sequential(nn.Flatten(), nn.Linear(576, 8, bias=False), nn.Linear(8, 3)),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(16, 8, 3), nn.Conv1d(8, 8, 3, groups=8), nn.Conv1d(8, 16, 1, groups=8)),
        nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.ConvTranspose2d(16, 4, 2, 2), nn.Conv2d(4, 4, 1)),
    ],
    ids=["tokens", "groups", "no bias", "1-d", "no layers", "transposed"],
)
def test_layers_of_all_kinds_are_searched(form: str, net: nn.Module) -> None:
    torch.manual_seed(0)
    try:
        file, samples = opened(form, net, POSITIVE)
    except Exception as e:
        if form == "tflite" and type(e).__name__ == "UnsupportedError":
            pytest.skip(str(e))
        raise
    before = floats(file, samples)
    done = ran(file, samples, most=1)
    assert set(done.tried) >= {"min-max", "percentile", "mse"}
    assert sqnr_db(before, ints(file, samples)) > 20


@both
def test_a_mean_error_goes_through_a_layer_as_its_weights_take_it(form: str) -> None:
    """A constant added to each channel of the input comes out as what _through says; None where it cannot tell."""
    torch.manual_seed(0)
    nets = {
        "conv": nn.Conv2d(16, 6, 3),
        "depthwise": nn.Conv2d(16, 16, 3, groups=16),
        "two of each": nn.Conv2d(16, 32, 3, groups=16),
        "groups": nn.Conv2d(16, 8, 3, groups=4),
        "linear": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    }
    shift = np.linspace(-1, 1, 16, dtype=np.float32)
    for name, net in nets.items():
        file, _ = opened(form, nn.Sequential(net), POSITIVE[:1])
        layer = file.layers()[-1]
        found = quantization._through(file, layer, shift)
        with torch.no_grad():
            x = POSITIVE[0]
            moved = net(x + torch.from_numpy(shift).view(1, -1, 1, 1)) - net(x)
        if name == "groups":
            assert found is None
            continue
        assert found is not None
        assert np.allclose(found, moved.reshape(moved.shape[1], -1).mean(1), atol=1e-4), name


@both
def test_a_bias_that_two_layers_share_is_not_corrected_for_each(form: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        biased(bias=False), nn.Sigmoid(), nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 3, bias=False)
    )
    file, samples = opened(form, net, POSITIVE)
    search = quantization._Search(file, samples, file._job)
    search.choose_method(["min-max"])
    names = [name for name, _ in quantization._correct_biases(search, search._quantized())]
    assert len(names) == len(set(names))
    assert not names  # of TFLite's layers, all zeros are one constant


def test_a_change_that_gains_nothing_is_taken_back() -> None:
    torch.manual_seed(0)
    for form in FORMATS:
        file, samples = opened(form, Unequal(), IMAGES)
        before = {name: file.constant(name).copy() for la in file.layers() for name in (la.weight, la.bias)}
        search = quantization._Search(file, samples, file._job)
        search.choose_method(["min-max"])

        def spoil(search: Any, path: Path) -> Any:
            for layer in search.file.layers():
                for factor in (2, 3):  # twice: the first value is what is put back
                    yield layer.weight, search.file.constant(layer.weight) * np.float32(factor)

        search.try_change("spoilt", spoil)
        assert search.changes == []
        assert search.tried["spoilt"] < search.tried["min-max"]
        for name, value in before.items():
            assert np.array_equal(file.constant(name), value)


# Layers left in float


class Wide(nn.Module):
    """The middle layer has huge weights for a channel that is always zero, and no steps left for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.loses, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)
        with torch.no_grad():
            self.first.weight[0] = 0
            self.first.bias[0] = -1  # type: ignore[index]
            self.loses.weight[:, 0] = 30

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.loses(torch.relu(self.first(x))))  # type: ignore[no-any-return]


def run_in_float(path: Path) -> list[str]:
    """Names of layers whose weights are floats in an int8 file, as the runtime runs it."""
    if path.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 3
        options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        path = path.with_name("optimized.onnx")
    found = formats.read(path)
    makers = found.producers()
    kinds = ("Conv", "FusedConv", "Gemm", "MatMul", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    layers = [node for node in found.nodes if node.kind in kinds]
    return [node.name for node in layers if not _is_quantized(node.inputs[1], found.tensors, makers)]


def _is_quantized(name: str, tensors: Mapping[str, Any], makers: Mapping[str, Any]) -> bool:
    return name in makers or tensors[name].dtype == "int8"  # ONNX's weights come out of a DequantizeLinear


@both
def test_the_layer_that_loses_most_is_left_in_float(form: str) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, Wide(), IMAGES)
    expected = floats(file, samples[:: quantization.HELD_BACK])
    ran(file, samples, "min-max")
    assert run_in_float(written(file)) == []
    torch.manual_seed(0)
    file, samples = opened(form, Wide(), IMAGES)
    done = ran(file, samples, "min-max", most=1)
    (left,) = done.float_layers
    assert left.module == "loses"
    assert run_in_float(written(file)) == [left.name]
    held = samples[:: quantization.HELD_BACK]
    with_it = sqnr_db(expected, ints(file, held))
    assert with_it == pytest.approx(done.tried["min-max"] + left.gain_db, abs=2)  # the ranges are now of all samples
    search = quantization._Search(file, samples, file._job)
    search.choose_method(["min-max"])
    assert search._judge(left.name) - search._judge() == pytest.approx(left.gain_db, abs=1e-6)
    assert left.gain_db > 3
    assert left.madds == 8 * 8 * 8 * 8


@both
def test_layers_that_gain_nothing_do_not_stay_in_float(form: str) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, biased(), POSITIVE)
    done = ran(file, samples, most=5)
    names = [layer.name for layer in done.float_layers]
    assert len(set(names)) == len(names) <= 1
    assert run_in_float(written(file)) == names
    assert all(layer.gain_db >= quantization.GAIN_DB for layer in done.float_layers)


# Ranges


@both
def test_a_rare_outlier_in_calibration_does_not_set_the_range(form: str) -> None:
    torch.manual_seed(0)
    images = torch.randn(24, 1, 3, 32, 32)
    images[5, 0, 0, 0, 0] = 2e3  # among the samples that ranges come from, not among those that judge
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    file, samples = opened(form, net, images)
    done = ran(file, samples)
    assert done.method in ("percentile", "mse")
    assert done.tried[done.method] > done.tried["min-max"] + 10
    held = samples[:: quantization.HELD_BACK]
    assert sqnr_db(floats(file, held), ints(file, held)) > done.tried["min-max"] + 10


@both
def test_a_method_that_is_asked_for_is_taken_and_nothing_else_tried(form: str) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, Unequal(), IMAGES)
    before = {la.weight: file.constant(la.weight).copy() for la in file.layers()}
    done = ran(file, samples, "mse")
    assert (done.method, list(done.tried), done.changes) == ("mse", ["mse"], ())
    assert all(np.array_equal(file.constant(name), value) for name, value in before.items())


@both
@pytest.mark.parametrize("count", [1, 7])
def test_of_few_samples_none_are_held_back_and_no_choice_is_made(form: str, count: int) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, Unequal(), IMAGES[:count])
    done = ran(file, samples)
    assert (done.method, done.held_back, done.tried, done.changes) == ("min-max", 0, {}, ())
    assert len(done.layers) == 3


@both
def test_noise_by_layer_is_that_of_each_layers_output(form: str) -> None:
    torch.manual_seed(0)
    file, samples = opened(form, nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)), IMAGES)
    done = ran(file, samples)
    held = samples[:: quantization.HELD_BACK]
    assert done.held_back == len(held) == 6
    layers = {layer.name: layer.output for layer in file.layers()}
    wanted = {n: np.stack([t[n] for t in file.tensors(held)]).astype(np.float64) for n in layers.values()}
    found = {n: np.stack([t[n] for t in file.quantized_tensors(written(file), held)]) for n in layers.values()}
    assert [layer.name for layer in done.layers] == list(layers)
    for layer in done.layers:
        signal, noise = wanted[layers[layer.name]], found[layers[layer.name]] - wanted[layers[layer.name]]
        assert layer.sqnr_db == pytest.approx(10 * np.log10((signal**2).sum() / (noise**2).sum()), abs=1e-3)
    assert done.layers[-1].sqnr_db == pytest.approx(
        sqnr_db(floats(file, held), ints(file, held)),
        abs=0.5,  # by kernels, not by emulation
    )


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_numbers_that_are_none_are_no_signal_and_infinite_noise(spoilt: float) -> None:
    good, bad = np.ones(4, np.float32), np.array([1, 1, 1, spoilt], np.float32)
    assert sqnr_db(good, bad) == sqnr_db(bad, good) == -120
    assert sqnr_db(good, good) == 120


class Kinds(nn.Module):
    """Answers with the number of the largest score too, and takes numbers that are no floats."""

    def __init__(self, floats: bool) -> None:
        super().__init__()
        self.conv, self.floats = nn.Conv2d(3, 8, 3), floats

    def forward(self, x: Tensor) -> Any:
        scores = self.conv(x).mean((2, 3))
        return (scores.argmax(1), scores) if self.floats else scores.argmax(1)


@pytest.mark.parametrize("with_floats", [True, False])
def test_answers_that_are_no_floats_are_not_judged_by(with_floats: bool) -> None:
    torch.manual_seed(0)
    file, samples = opened("onnx", Kinds(with_floats), IMAGES)
    done = ran(file, samples, most=1)
    assert bool(done.tried) == with_floats
    assert written(file).is_file()


# The command line


def exported(here: Edgeport, folder: Path, *options: object) -> dict[str, Any]:
    here("export", *options, "--precisions=int8", "-o", folder)
    made: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return made


@pytest.mark.parametrize(
    "options",
    [
        (network("two_inputs"), "--input-shape", "1,3,16,16", "--input-shape", "1,3,16,16"),
        (network("embedding"), "--target=arm"),
        (network("embedding"), "--int8-io", "--max-layers-float=1"),
        (network("small"), "--no-optimize"),
        (network("small"), "--target=arm", "--calibration-method=percentile"),
    ],
    ids=["two inputs", "three outputs on arm", "integer inputs and outputs", "not optimised", "percentile on arm"],
)
def test_every_kind_of_export_says_how_its_int8_came_to_be(
    options: Sequence[str], tmp_path: Path, here: Edgeport
) -> None:
    manifest = exported(here, tmp_path, *options)
    assert [a["format"] for a in manifest["artifacts"]] == ["onnx", "tflite"]
    for artifact in manifest["artifacts"]:
        done = artifact["quantized"]
        assert done["layers"]
        assert done["held_back"] >= 2
        assert done["method"] in done["tried"]
        assert artifact["verification"]["sqnr_db"] > 15
        assert len(done["float_layers"]) <= 1


def test_explain_says_what_int8_costs(tmp_path: Path, here: Edgeport) -> None:
    options = ("--max-layers-float=1", "--precisions=int8", "--formats=tflite", "--explain", "-o", tmp_path)
    said = here("export", network("embedding"), *options).out
    done = json.loads((tmp_path / "manifest.json").read_text())["artifacts"][0]["quantized"]
    for what, ratio in done["tried"].items():
        start = f" {what}, on {done['held_back']} samples"
        row = next(line for line in said.splitlines() if line.startswith(start))
        assert f"{ratio:.1f}" in row
        assert row.rstrip().endswith("yes") == (what == done["method"] or what in done["changes"])
    table = said.partition("the noisiest")[2]
    for layer in done["layers"]:
        assert any({layer["module"], f"{layer['sqnr_db']:.1f}"} <= set(line.split()) for line in table.splitlines())
    assert ("layers left in float" in said) == bool(done["float_layers"])


def test_explain_says_that_samples_were_too_few(tmp_path: Path, here: Edgeport) -> None:
    np.savez(tmp_path / "few.npz", x=np.random.default_rng(0).standard_normal((3, 1, 3, 16, 16)).astype(np.float32))
    options = ("--calibration-data", tmp_path / "few.npz", "--precisions=int8", "--formats=onnx", "--explain")
    said = here("export", network("small"), *options, "-o", tmp_path / "made").out
    assert "min-max; too few samples to hold some back" in said
    assert "samples held back " not in said


@pytest.mark.parametrize(
    "asked", [("--calibration-method=entropie", "percentile"), ("--max-layers-float=-1", "greater than or equal to 0")]
)
def test_wrong_options_are_answered_with_what_there_is(asked: tuple[str, str], here: Edgeport) -> None:
    option, choice = asked
    assert choice in here("export", network("small"), option, code=2).err
