"""Passes that suit kernels: zeros, larger images and convolutions in place of others change no answer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from edgeport.graph import (
    convolve_average_pools,
    fold_batch_norm,
    merge_all_groups,
    merge_groups,
    pad_channels,
    pad_narrow_channels,
    pad_pieces,
    widen_pooling,
)

from .networks import exported, few, relative_error, targets, with_statistics

EXACT = 1e-5


def rewritten(module: object, network: nn.Module, x: Tensor, changes: int) -> list[torch.fx.Node]:
    """The operators after the pass: the answer stays, `changes` changed."""
    gm = exported(with_statistics(network), x)
    fold_batch_norm.run(gm)
    assert module.run(gm) == changes  # type: ignore[attr-defined]
    gm.graph.lint()
    gm.recompile()
    assert relative_error(gm(x), network(x)) < EXACT
    shapes = [tuple(n.meta["val"].shape) for n in gm.graph.nodes if n.op == "call_function"]
    made = torch.fx.Interpreter(gm)
    made.run(x)
    real = [tuple(made.env[n].shape) for n in gm.graph.nodes if n in made.env and n.op == "call_function"]
    assert not real or real == shapes
    return [n for n in gm.graph.nodes if n.op == "call_function"]


class Bottleneck(nn.Module):
    def __init__(self, channels: int, act: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(5, channels, 1), nn.BatchNorm2d(channels), act)
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.project = nn.Conv2d(channels, 4, 1)
        self.also = nn.Linear(channels, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        z = self.pool(self.depthwise(y))
        z = z + y if self.residual else z
        return self.project(z) + self.also(z.mean((2, 3))).sum()  # type: ignore[no-any-return]


@few
@given(
    channels=st.sampled_from([28, 58, 60, 116]),
    act=st.sampled_from([nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Sigmoid()]),
    residual=st.booleans(),
)
def test_inner_channels_become_a_multiple_of_sixteen(channels: int, act: nn.Module, residual: bool) -> None:
    nodes = rewritten(pad_channels, Bottleneck(channels, act, residual), torch.randn(2, 5, 6, 7), changes=1)
    depthwise = next(n for n in nodes if n.target == torch.ops.aten.conv2d.default and n.args[-1] != 1)
    assert depthwise.meta["val"].shape[1] == channels + -channels % 16


@pytest.mark.parametrize(("channels", "padded"), [(58, 64), (116, 128), (60, 64), (24, 32), (48, 48), (20, 20)])
def test_depthwise_convolutions_get_channels_of_zeros(channels: int, padded: int) -> None:
    network = nn.Sequential(
        *(nn.Conv2d(5, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()),
        *(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.BatchNorm2d(channels), nn.Hardswish()),
        *(nn.Conv2d(channels, 6, 1),),
    )
    nodes = rewritten(pad_channels, network, torch.randn(1, 5, 8, 8), changes=int(padded != channels))
    depthwise = next(n for n in nodes if n.target == torch.ops.aten.conv2d.default and n.args[-1] == padded)
    assert depthwise.meta["val"].shape[1] == padded


class Shown(nn.Module):
    """A depthwise convolution whose channels are the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(5, 58, 1), nn.Conv2d(58, 58, 3, groups=58)

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise(self.expand(x).relu())  # type: ignore[no-any-return]


def test_channels_that_others_see_stay() -> None:
    rewritten(pad_channels, Shown(), torch.randn(1, 5, 8, 8), changes=0)


class Pieces(nn.Module):
    """Two convolutions whose channels are cut and joined, and read by others that way."""

    def __init__(self, sizes: list[int], shown: bool = False) -> None:
        super().__init__()
        channels = sum(sizes)
        self.sizes, self.shown = sizes, shown
        self.first, self.second = nn.Conv2d(5, channels, 1), nn.Conv2d(5, channels, 3, padding=1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.joined, self.cut = nn.Conv2d(channels, 7, 1), nn.Conv2d(channels - sizes[0], 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        first = torch.split(self.first(x).sigmoid(), self.sizes, 1)
        second = torch.split(self.second(x), self.sizes, 1)
        alternating = [(first, second)[i % 2][i] for i in range(len(self.sizes))]
        y = self.depthwise(torch.cat(alternating, 1))
        rest = torch.cat([(second, first)[i % 2][i] for i in range(len(self.sizes))], 1)
        return (self.joined(y), self.cut(rest[:, self.sizes[0] :]), *([first[0]] if self.shown else []))


def cut_sizes(nodes: list[torch.fx.Node]) -> list[list[int]]:
    return [n.args[1] for n in nodes if n.target == torch.ops.aten.split_with_sizes.default]  # type: ignore[misc]


@few
@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_pieces_may_have_any_sizes(sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    network, x = Pieces(sizes).eval(), torch.randn(2, 5, 6, 7)
    gm = exported(network, x)
    changes = pad_pieces.run(gm)
    gm.graph.lint()
    gm.recompile()
    assert all(relative_error(a, b) < EXACT for a, b in zip(gm(x), network(x), strict=True))
    rounded = [size + -size % 4 for size in sizes]
    pays = sum(sizes) % 4 or (sum(sizes) - sizes[0]) % 4
    if pays and sum(rounded) <= sum(sizes) * 9 / 8 and sum(rounded[1:]) <= sum(sizes[1:]) * 9 / 8:
        assert changes
    if not pays:
        assert not changes


def test_pieces_of_shufflenet_become_multiples_of_four() -> None:
    nodes = rewritten_pieces(Pieces([29, 14, 15]))
    assert cut_sizes(nodes) == [[32, 16, 16], [32, 16, 16]]


def test_pieces_that_others_see_stay() -> None:
    nodes = rewritten_pieces(Pieces([29, 14, 15], shown=True))
    assert cut_sizes(nodes) == [[29, 14, 15], [29, 14, 15]]


class Around(nn.Module):
    """A convolution whose 58 channels others use in a way of their own."""

    def __init__(self, use: str, dims: int = 2, bias: bool = True) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv1d
        self.first, self.part = conv(3, 58, 1, bias=bias), conv(29, 6, 1)
        self.whole, self.depthwise = conv(58, 6, 1, bias=bias), conv(58, 58, 3, padding=1, groups=58, bias=bias)
        self.kernels, self.constant = nn.Linear(3, 58 * 9), nn.Parameter(torch.randn(2, 29, 5, 5))
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        half = y[:, :29]
        made: Tensor
        if self.use == "negative ends":
            made = self.part(y[:, :-29]) + self.part(y[:, -29:]) + self.whole(y[:, -1000:])
        elif self.use == "with itself":
            made = self.whole(torch.cat([half, half], 1)) + self.part(y[:, 29:])
        elif self.use == "with a constant":
            made = self.whole(torch.cat([half, self.constant], 1)) + self.part(y[:, 29:])
        elif self.use == "along another axis":
            top, rest = torch.split(y, [2, 3], 2)
            made = torch.cat([self.whole(rest), self.whole(top)], 2)
            made = made + self.whole(torch.split(self.first(x), [5], 2)[0])
        elif self.use == "a slice along another axis":
            made = self.whole(self.depthwise(y)[:, :, :-1])
        elif self.use == "computed weights":
            made = self.whole(F.conv2d(y, self.kernels(x.mean((2, 3)))[0].view(58, 1, 3, 3), padding=1, groups=58))
        else:
            made = self.part(torch.cat([half[:, 10:], y[:, 39:49]], 1)) + self.whole(self.depthwise(y))
        return made


@pytest.mark.parametrize(
    ("use", "dims", "bias", "padded"),
    [
        ("negative ends", 2, True, True),
        ("negative ends", 1, False, True),
        ("with itself", 2, False, True),
        ("with a constant", 2, True, False),
        ("along another axis", 2, True, False),
        ("a slice along another axis", 2, False, False),
        ("computed weights", 2, True, False),
        ("pieces", 2, False, None),
        ("pieces", 1, True, None),
    ],
)
def test_channels_are_padded_where_all_who_use_them_can(use: str, dims: int, bias: bool, padded: bool | None) -> None:
    for module in (pad_pieces, pad_channels, pad_narrow_channels):
        network, x = Around(use, dims, bias).eval(), torch.randn(2, 3, *[5] * dims)
        gm = exported(network, x)
        changes = module.run(gm)
        gm.graph.lint()
        gm.recompile()
        assert relative_error(gm(x), network(x)) < EXACT
        if module is pad_pieces and padded is not None:
            assert bool(changes) == padded


def rewritten_pieces(network: nn.Module) -> list[torch.fx.Node]:
    x = torch.randn(1, 5, 8, 8)
    gm = exported(network.eval(), x)
    pad_pieces.run(gm)
    gm.recompile()
    assert all(relative_error(a, b) < EXACT for a, b in zip(gm(x), network(x), strict=True))
    return list(gm.graph.nodes)


def stem(size: int = 3, stride: int = 2, padding: int = 1, kernel: int = 3, act: bool = True) -> nn.Sequential:
    relu = [nn.ReLU()] if act else []
    return nn.Sequential(nn.Conv2d(3, 8, size, stride, padding), *relu, nn.MaxPool2d(kernel, 2, kernel // 2))


@few
@given(
    size=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    kernel=st.sampled_from([3, 5]),
    act=st.booleans(),
    height=st.integers(12, 40),
    width=st.integers(12, 40),
)
def test_pools_are_widened_exactly(
    size: int, stride: int, padding: int, kernel: int, act: bool, height: int, width: int
) -> None:
    network, x = stem(size, stride, padding, kernel, act).eval(), torch.randn(2, 3, height, width)
    gm = exported(network, x)
    widen_pooling.run(gm)
    gm.graph.lint()
    gm.recompile()
    assert relative_error(gm(x), network(x)) < EXACT


def test_the_stem_of_shufflenet_needs_no_padded_copy() -> None:
    nodes = rewritten(widen_pooling, stem(), torch.randn(1, 3, 64, 64), changes=1)
    assert str(nodes[0].target) == "aten.constant_pad_nd.default"
    assert nodes[1].meta["val"].shape[2:] == (33, 33)  # one more than without
    assert nodes[-1].meta["val"].shape[2:] == (16, 16)


def test_a_pool_whose_input_others_read_is_left_alone() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.pool(y).sum() + y.mean()  # type: ignore[no-any-return]

    gm = exported(Both(), torch.randn(1, 3, 16, 16))
    before = targets(gm)
    assert widen_pooling.run(gm) == 0
    assert targets(gm) == before


@few
@given(
    groups=st.sampled_from([2, 3, 4, 6]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    bias=st.booleans(),
    width=st.integers(1, 2),
)
def test_small_groups_become_one(groups: int, kernel: int, stride: int, bias: bool, width: int) -> None:
    conv = nn.Conv2d(12, 12 * width, kernel, stride, kernel // 2, groups=groups, bias=bias)
    nodes = rewritten(merge_groups, nn.Sequential(conv, nn.BatchNorm2d(12 * width)), torch.randn(2, 12, 7, 6), 1)
    assert nodes[0].args[-1] == 1


@pytest.mark.parametrize(("channels", "groups"), [(96, 3), (48, 48)])
def test_large_groups_and_depthwise_convolutions_stay(channels: int, groups: int) -> None:
    rewritten(
        merge_groups, nn.Sequential(nn.Conv2d(channels, channels, 1, groups=groups)), torch.randn(1, channels, 4, 4), 0
    )


@pytest.mark.parametrize(("groups", "merged"), [(2, 1), (8, 1), (12, 0)])
def test_int8_on_x86_has_one_group_of_up_to_eight(groups: int, merged: int) -> None:
    conv = nn.Conv2d(24 * groups, 48 * groups, 3, padding=1, groups=groups)
    nodes = rewritten(merge_all_groups, nn.Sequential(conv), torch.randn(1, 24 * groups, 5, 5), merged)
    assert nodes[0].args[-1] == (1 if merged else groups)


@pytest.mark.parametrize(("channels", "padded"), [(8, 16), (15, 16), (16, 16), (4, 4)])
def test_int8_on_x86_has_depthwise_convolutions_of_sixteen_channels(channels: int, padded: int) -> None:
    network = nn.Sequential(
        *(nn.Conv2d(5, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1, groups=channels)),
        *(nn.ReLU(), nn.Conv2d(channels, 6, 1)),
    )
    nodes = rewritten(pad_narrow_channels, network, torch.randn(1, 5, 8, 8), changes=int(padded != channels))
    assert max(n.meta["val"].shape[1] for n in nodes) == max(padded, 6)


@few
@given(
    kernel=st.sampled_from([2, 3, (3, 2)]),
    stride=st.sampled_from([None, 1, 2]),
    padding=st.integers(0, 1),
    counts=st.booleans(),
    ceil=st.booleans(),
)
def test_average_pools_become_convolutions(
    kernel: int | tuple[int, int], stride: int | None, padding: int, counts: bool, ceil: bool
) -> None:
    pool = nn.AvgPool2d(kernel, stride, padding, ceil, counts)
    can = not ceil and (counts or padding == 0)
    rewritten(convolve_average_pools, nn.Sequential(pool), torch.randn(2, 5, 9, 8), changes=int(can))


def test_a_pool_of_the_whole_image_stays() -> None:
    rewritten(convolve_average_pools, nn.Sequential(nn.AvgPool2d(4)), torch.randn(1, 5, 4, 4), changes=0)
