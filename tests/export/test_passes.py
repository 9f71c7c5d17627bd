"""The graph passes rewrite exactly: a network answers after each as it did before."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from edgeport import graph
from edgeport.export import capture
from edgeport.graph import fold_batch_norm, make_functional, move_channels_last, remove_unused_state

from .networks import exported, few, relative_error, targets, with_statistics

NORM = "aten.batch_norm.default"
EXACT = 1e-5


def check_pass(module: ModuleType, network: nn.Module, *inputs: Tensor, changes: int) -> list[str]:
    """Runs one pass on the network's graph: its answers stay, `changes` nodes change. The operators that are left."""
    network.eval()
    expected = network(*(x.clone() for x in inputs))
    gm = exported(network, *(x.clone() for x in inputs))
    assert module.run(gm) == changes
    gm.graph.lint()
    gm.recompile()
    assert relative_error(gm(*(x.clone() for x in inputs)), expected) < EXACT
    return targets(gm)


def test_passes_run_in_their_order() -> None:
    found = graph.passes()
    names = [p.__name__.rpartition(".")[2] for p in found]
    assert set(names) >= {"fold_batch_norm", "make_functional", "move_channels_last", "remove_unused_state"}
    assert [p.ORDER for p in found] == sorted(p.ORDER for p in found)
    # What folding leaves behind can only be removed after it.
    assert names.index("fold_batch_norm") < names.index("remove_unused_state")


def test_passes_serve_the_formats_that_they_name() -> None:
    gm = exported(with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))), torch.randn(1, 3, 5, 5))
    done = graph.run_passes(gm, graph.FORMATS)
    rewriting = [
        "float_bounds",
        "fold_constants",
        "fold_batch_norm",
        "make_functional",
        "convolve_average_pools",
        "merge_groups",
        "route_channels",
    ]
    rewriting += ["pad_channels", "pad_pieces"]
    assert [p.name for p in done] == [*rewriting, "remove_unused_state"]
    folded = next(p for p in done if p.name == "fold_batch_norm")
    assert folded.changes == folded.operators_before - folded.operators_after == 1
    assert [p.name for p in graph.run_passes(gm, ("tflite",))] == ["unfold_cells", "widen_pooling"]
    assert [p.name for p in graph.run_passes(gm, ("litert-torch",))] == ["move_channels_last"]
    for_int8 = [p.name for p in graph.run_passes(gm, graph.INT8_ONNX_X86)]
    assert for_int8 == ["merge_all_groups", "pad_narrow_channels"]


def test_passes_can_be_chosen() -> None:
    gm = exported(with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))), torch.randn(1, 3, 5, 5))
    assert [p.name for p in graph.run_passes(gm, graph.FORMATS, only=["make_functional"])] == ["make_functional"]
    assert NORM in targets(gm)


# fold_batch_norm

LAYERS: dict[str, tuple[Callable[..., nn.Module], type[nn.Module], tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d, nn.BatchNorm1d, (2, 4, 9)),
    "conv2d": (nn.Conv2d, nn.BatchNorm2d, (2, 4, 7, 6)),
    "conv3d": (nn.Conv3d, nn.BatchNorm3d, (2, 4, 5, 4, 5)),
    "conv_transpose2d": (nn.ConvTranspose2d, nn.BatchNorm2d, (2, 4, 5, 6)),
}


@few
@given(
    kind=st.sampled_from(sorted(LAYERS)),
    bias=st.booleans(),
    affine=st.booleans(),
    groups=st.sampled_from([1, 2, 4]),
    stride=st.integers(1, 2),
    eps=st.sampled_from([1e-5, 1e-3]),
    seed=st.integers(0, 99),
)
def test_batch_norm_folds_into_any_convolution(
    kind: str, bias: bool, affine: bool, groups: int, stride: int, eps: float, seed: int
) -> None:
    layer, norm, shape = LAYERS[kind]
    torch.manual_seed(seed)
    groups = 1 if kind == "conv_transpose2d" else groups
    conv = layer(4, 8, 3, stride=stride, padding=1, groups=groups, bias=bias)
    network = with_statistics(nn.Sequential(conv, norm(8, eps=eps, affine=affine)), seed)
    left = check_pass(fold_batch_norm, network, torch.randn(shape), changes=1)
    assert NORM not in left


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_batch_norm_folds_into_a_convolution_of_named_padding(padding: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 4, padding=padding), nn.BatchNorm2d(5))
    assert NORM not in check_pass(fold_batch_norm, with_statistics(network), torch.randn(1, 3, 9, 9), changes=1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_folds_into_a_linear_layer(bias: bool, affine: bool) -> None:
    network = nn.Sequential(nn.Linear(6, 5, bias=bias), nn.BatchNorm1d(5, affine=affine))
    assert NORM not in check_pass(fold_batch_norm, with_statistics(network), torch.randn(3, 6), changes=1)


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(4, 8, 3, groups=2), nn.ConvTranspose2d(4, 8, 3, groups=4, bias=False)],
    ids=["groups of 2", "depthwise"],
)
def test_grouped_transposed_convolution_answers_the_same(layer: nn.Module) -> None:
    check_pass(
        fold_batch_norm, with_statistics(nn.Sequential(layer, nn.BatchNorm2d(8))), torch.randn(1, 4, 5, 5), changes=0
    )


class ComputedParameters(nn.Module):
    """Parameters that are scaled before they are used, as in networks whose gamma is kept around zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.bias = nn.Linear(6, 5, bias=False), nn.Parameter(torch.randn(5))
        self.gamma, self.beta = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))
        self.mean, self.var = nn.Buffer(torch.randn(5)), nn.Buffer(torch.rand(5) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.layer.weight, self.bias * 0.1)
        y = F.batch_norm(y, self.mean, self.var, 1 + self.gamma, self.beta)
        z = F.batch_norm(self.layer(x), self.mean, self.var, 1 + self.gamma, self.beta)
        return F.batch_norm(F.linear(x, self.layer.weight, self.bias * 0.1), self.mean, self.var) + y + z


def test_batch_norm_of_computed_parameters_stays() -> None:
    check_pass(fold_batch_norm, ComputedParameters(), torch.randn(3, 6), changes=0)


class SharedConvolution(nn.Module):
    """One convolution used twice, each time with a normalisation of its own."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.conv(torch.relu(self.first(self.conv(x)))))
        return y


@pytest.mark.parametrize("bias", [True, False])
def test_folding_a_shared_convolution_twice_keeps_both_results(bias: bool) -> None:
    network = with_statistics(SharedConvolution(bias))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    left = check_pass(fold_batch_norm, network, torch.randn(1, 4, 6, 6), changes=2)
    assert NORM not in left
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items()), "the user's own network changed"


class ReadTwice(nn.Module):
    """A convolution whose result is also used as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.bn(y) + y  # type: ignore[no-any-return]


def test_batch_norm_stays_where_the_convolution_is_read_twice() -> None:
    left = check_pass(fold_batch_norm, with_statistics(ReadTwice()), torch.randn(1, 3, 5, 5), changes=0)
    assert NORM in left


def test_batch_norm_without_a_layer_before_it_stays() -> None:
    network = with_statistics(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))
    assert NORM in check_pass(fold_batch_norm, network, torch.randn(1, 3, 5, 5), changes=0)


def test_batch_norm_that_uses_the_batch_itself_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    assert NORM in check_pass(fold_batch_norm, network, torch.randn(4, 3, 5, 5), changes=0)


class TokenNorm(nn.Module):
    """BatchNorm1d over the tokens (axis 1) of a linear layer's three-dimensional result, not over its features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear, self.bn = nn.Linear(4, features), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.linear(x))
        return y


@pytest.mark.parametrize("features", [6, 5])
def test_batch_norm_over_the_tokens_of_a_linear_layer_stays(features: int) -> None:
    check_pass(fold_batch_norm, with_statistics(TokenNorm(features)), torch.randn(2, 6, 4), changes=0)


def test_batch_norm_of_an_unbatched_convolution_stays() -> None:
    network = with_statistics(nn.Sequential(nn.Conv1d(3, 5, 1), nn.BatchNorm1d(5)))
    check_pass(fold_batch_norm, network, torch.randn(3, 5), changes=0)


# make_functional


class InPlace(nn.Module):
    """What an in-place operator does to the result of a convolution."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.change = nn.Conv2d(3, 4, 1), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.conv(x))


@pytest.mark.parametrize(
    ("change", "functional"),
    [
        (lambda y: y.relu_(), "aten.relu.default"),
        (lambda y: F.hardtanh_(y, 0.0, 6.0), "aten.hardtanh.default"),
        (lambda y: y.add_(1.0), "aten.add.Tensor"),
        (lambda y: y.mul_(2.0).relu_(), "aten.relu.default"),
        (lambda y: F.leaky_relu_(y, 0.2), "aten.leaky_relu.default"),
    ],
    ids=["relu", "hardtanh", "add", "chain", "leaky_relu"],
)
def test_in_place_operators_on_memory_of_their_own_are_replaced(
    change: Callable[[Tensor], Tensor], functional: str
) -> None:
    x = torch.randn(1, 3, 5, 5)
    expected = exported(InPlace(change), x)
    left = check_pass(make_functional, InPlace(change), x, changes=len(targets(expected)) - 1)
    assert functional in left
    assert not any(name.split(".")[1].endswith("_") for name in left)


def functional(network: nn.Module, x: Tensor) -> GraphModule:
    """The captured network after the pass, whatever that changed."""
    gm = exported(network, x)
    make_functional.run(gm)
    gm.recompile()
    return gm


def keeps_reading(y: Tensor) -> Tensor:
    z = y.relu_()
    return y + z


def through_a_view(y: Tensor) -> Tensor:
    y.view(1, 4, -1).relu_()
    return y


def half_of_it(y: Tensor) -> Tensor:
    y[:, :2].relu_()
    return y


def with_a_view_taken_before(y: Tensor) -> Tensor:
    flat = y.flatten(1)
    y.relu_()
    return flat


@pytest.mark.parametrize("change", [keeps_reading, through_a_view, half_of_it, with_a_view_taken_before])
def test_in_place_operators_that_somebody_sees_keep_their_result(change: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(1, 3, 5, 5)
    network = InPlace(change).eval()
    expected = network(x)
    gm = functional(network, x)
    assert relative_error(gm(x), expected) < EXACT
    assert expected.min() >= 0 or change is half_of_it, "the example does not tell in-place from functional"


def half_overwritten(y: Tensor) -> Tensor:
    first, _ = y.chunk(2, dim=1)
    first.relu_()
    return y


def test_what_pytorch_allows_only_without_gradients_is_captured() -> None:
    x = torch.randn(1, 3, 5, 5)
    network = InPlace(half_overwritten).eval()
    captured = capture.capture(network, (x,))
    capture.program(captured.graph, captured.inputs)
    with torch.no_grad():
        assert relative_error(captured.graph(x)[0], network(x)) < EXACT


class OnItsInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.relu_()
        return x + y


def test_in_place_operator_on_the_input_keeps_its_result() -> None:
    x = torch.randn(1, 3, 5, 5)
    captured = capture.capture(OnItsInput(), (x.clone(),))
    assert relative_error(captured.graph(x.clone())[0], 2 * x.relu()) < EXACT


def after_dropout(y: Tensor) -> Tensor:
    z = F.dropout(y, training=False).relu_()
    return y + z


def test_in_place_operator_after_an_inactive_dropout_keeps_its_result() -> None:
    x = torch.randn(1, 3, 5, 5)
    network = InPlace(after_dropout).eval()
    expected = network(x)
    gm = functional(network, x)
    assert relative_error(gm(x), expected) < EXACT


IN_PLACE_ON_VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout of a view": lambda y: F.dropout(torch.flatten(y, 1), training=False, inplace=True) * 2,
    "sum of a slice": lambda y: y[:, :2].add_(1),
    "after others have read": lambda y: y.mean() + y.view(-1).relu_(),
}
SEEN_BY_OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "the whole": lambda y: y[:, :2].add_(1).mean() + y,
    "another view": lambda y: y.view(-1).relu_().mean() + y.permute(0, 2, 3, 1),
    "what others wrote before": lambda y: y[:, :2].add_(y[:, 2:]).mul_(2).mean() + y,
}


@pytest.mark.parametrize("change", IN_PLACE_ON_VIEWS.values(), ids=IN_PLACE_ON_VIEWS)
def test_in_place_operators_on_views_that_nobody_else_reads_become_functional(
    change: Callable[[Tensor], Tensor],
) -> None:
    x = torch.randn(1, 3, 5, 5)
    network = InPlace(change).eval()
    gm = functional(network, x)
    assert not any("_." in target.removeprefix("aten.") for target in targets(gm))
    assert relative_error(gm(x), network(x)) < EXACT


@pytest.mark.parametrize("change", SEEN_BY_OTHERS.values(), ids=SEEN_BY_OTHERS)
def test_in_place_operators_that_others_see_keep_their_results(change: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(1, 3, 5, 5)
    network = InPlace(change).eval()
    gm = functional(network, x)
    assert any("_." in target.removeprefix("aten.") for target in targets(gm))
    assert relative_error(gm(x), network(x)) < EXACT


class WiderOperand(nn.Module):
    """y *= mask gives float32, y * mask would give float64."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("mask", torch.rand(1, 4, 1, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        y *= self.mask
        return y


def test_in_place_operator_keeps_the_type_of_what_it_overwrites() -> None:
    x = torch.randn(1, 3, 5, 5)
    gm = functional(WiderOperand(), x)
    assert gm(x).dtype == torch.float32


@pytest.mark.parametrize(
    "change", [lambda y: y.gt_(0), lambda y: y.logical_not_(), lambda y: y.gt_(0).mul_(2)], ids=["gt", "not", "chain"]
)
def test_an_in_place_comparison_stays_a_float(change: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(1, 3, 5, 5)
    network = InPlace(change).eval()
    expected = network(x)
    gm = functional(network, x)
    found = gm(x)
    assert found.dtype == expected.dtype == torch.float32
    assert torch.equal(found, expected)


# remove_unused_state, move_channels_last and all of them together


def test_no_batch_norm_tensors_are_left() -> None:
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 2)))
    x = torch.randn(1, 3, 5, 5)
    gm = exported(network, x)
    fold_batch_norm.run(gm)
    assert any("running_mean" in name for name in gm.state_dict())
    removed = remove_unused_state.run(gm)
    gm.recompile()
    assert removed > 0
    assert relative_error(gm(x), network(x)) < EXACT
    assert sum(t.numel() for t in gm.state_dict().values()) == (4 * 3 + 4) + (2 * 100 + 2)


def test_operators_that_no_output_needs_are_removed() -> None:
    class Wasteful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            y: Tensor = self.used(x)
            return y

    gm = exported(Wasteful(), torch.randn(1, 3, 5, 5))
    assert remove_unused_state.run(gm) == 1 + 2 + 2  # the operator, its two get_attr nodes, its two tensors
    assert sorted(gm.state_dict()) == ["used.bias", "used.weight"]


class Mixed(nn.Module):
    """Inputs and outputs of which only some are images."""

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return image * scale, image.mean((2, 3))


def test_images_become_channels_last_and_nothing_else_does() -> None:
    image, scale = torch.randn(1, 3, 4, 5), torch.randn(5)
    captured = capture.capture(Mixed(), (image, scale)).graph
    gm = GraphModule(captured, captured.graph)  # without the checks of the shapes that are about to change
    assert move_channels_last.run(gm) == 2
    gm.graph.lint()
    gm.recompile()
    scaled, means = gm(image.permute(0, 2, 3, 1), scale)
    expected = Mixed()(image, scale)
    assert relative_error(scaled, expected[0].permute(0, 2, 3, 1)) < EXACT
    assert relative_error(means, expected[1]) < EXACT


class Unit(nn.Module):
    """A bit of everything that passes touch."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.right = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6(inplace=True), nn.Dropout())
        self.shared = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        both = self.shared(torch.cat((self.left(x), self.right(x)), 1))
        both += self.shared(both.clone())
        return {"features": both, "scores": both.mean((2, 3))}


def test_capture_is_the_network() -> None:
    network, x = with_statistics(Unit()), torch.randn(1, 4, 6, 6)
    captured = capture.capture(network, (x,))
    expected = network(x)
    assert captured.output_names == ("features", "scores")
    assert captured.input_names == ("x",)
    for found, name in zip(captured.graph(x), captured.output_names, strict=True):
        assert relative_error(found, expected[name]) < EXACT
    assert captured.parameters == sum(p.numel() for p in network.parameters())
    assert targets(captured.graph).count(NORM) == 1  # the one after no convolution


def test_captures_of_one_network_are_identical_and_of_others_are_not() -> None:
    x = torch.randn(1, 4, 6, 6)
    network = with_statistics(Unit())
    identity = capture.capture(network, (x,)).identity()
    assert capture.capture(network, (torch.randn(1, 4, 6, 6),)).identity() == identity
    assert capture.capture(network, (torch.randn(1, 4, 8, 6),)).identity() != identity
    assert isinstance(network, Unit)
    network.shared.weight.data[0] += 1
    assert capture.capture(network, (x,)).identity() != identity


class Bounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-0.5, 1) + x.clamp(None, 2)


def test_bounds_of_two_types_are_written_as_one() -> None:
    gm = exported(Bounded(), torch.randn(2, 3))
    graph.run_passes(gm, graph.FORMATS, only=["float_bounds"])
    bounds = [node.args[1:] for node in gm.graph.nodes if node.target == torch.ops.aten.clamp.default]
    assert [[type(bound) for bound in pair] for pair in bounds] == [[float, float], [type(None), float]]
