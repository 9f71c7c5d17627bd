"""The networks of models/ are those of their papers: every published number, and the rules that the papers state.

Parameters are held exactly and multiply-adds to two decimals of a million, both by arithmetic that agrees with
torchvision's and megvii's published weights. What a paper prints is held too, rounded or cut as it may be; where it
cannot be (DISAGREEMENTS), the arithmetic is.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from edgeport.models import (  # type: ignore[import-not-found]
    micronet,
    mobilenet_v1,
    mobilenet_v2,
    shufflenet_v1,
    shufflenet_v2,
)
from torch import Tensor, nn

from edgeport.records import Preprocessing

from . import counting
from .networks import exported, targets, with_statistics

MEGVII = Preprocessing(colors="BGR", scale=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

Arguments = dict[str, Any]


@cache
def _network(build: Callable[..., nn.Module], *arguments: tuple[str, Any]) -> nn.Module:
    return counting.meta(build, **dict(arguments))


def network(build: Callable[..., nn.Module], **arguments: Any) -> nn.Module:
    return _network(build, *arguments.items())


# Counts


class Row(NamedTuple):
    """mmac: millions of multiply-adds of convolutions and linear layers, for MicroNet also those of Shift-Max.

    madds, weights: millions, as a paper prints them, if it does.
    """

    build: Callable[..., nn.Module]
    arguments: Arguments
    parameters: int
    mmac: float
    madds: int | None = None
    weights: float | None = None
    size: int = 224

    def __str__(self) -> str:
        arguments = "-".join(str(v) for v in self.arguments.values())
        return f"{self.build.__module__.rpartition('.')[2]}-{arguments}-{self.size}"


SHUFFLENET_V1 = [
    # Table 1
    Row(shufflenet_v1.build, {"groups": 1, "width": 1.0}, 1_530_936, 143.08, 143),
    Row(shufflenet_v1.build, {"groups": 2, "width": 1.0}, 1_732_848, 140.84, 140),
    Row(shufflenet_v1.build, {"groups": 3, "width": 1.0}, 1_864_728, 137.46, 137),
    Row(shufflenet_v1.build, {"groups": 4, "width": 1.0}, 1_967_344, 134.34, 133),
    Row(shufflenet_v1.build, {"groups": 8, "width": 1.0}, 2_433_768, 138.37, 137),
    # The official variants, and what ShuffleNetV2's Table 8 prints of them
    Row(shufflenet_v1.build, {"groups": 3, "width": 0.5}, 717_324, 37.59, 38),
    Row(shufflenet_v1.build, {"groups": 3, "width": 1.5}, 3_441_168, 292.44, 292),
    Row(shufflenet_v1.build, {"groups": 3, "width": 2.0}, 5_449_776, 524.05, 524),
    Row(shufflenet_v1.build, {"groups": 8, "width": 0.5}, 1_010_448, 40.47),
    Row(shufflenet_v1.build, {"groups": 8, "width": 1.5}, 4_268_952, 290.19),
    Row(shufflenet_v1.build, {"groups": 8, "width": 2.0}, 6_521_232, 521.94),
]
SHUFFLENET_V2 = [
    # Table 5
    Row(shufflenet_v2.build, {"variant": "official", "width": 0.5}, 1_365_792, 40.48, 41, 1.4),
    Row(shufflenet_v2.build, {"variant": "official", "width": 1.0}, 2_278_760, 145.81, 146, 2.3),
    Row(shufflenet_v2.build, {"variant": "official", "width": 1.5}, 3_506_720, 298.97, 299, 3.5),
    Row(shufflenet_v2.build, {"variant": "official", "width": 2.0}, 7_402_600, 590.78, 591, 7.4),
    # torchvision's own pages: 0.040, 0.145, 0.296 and 0.583 GMACs
    Row(shufflenet_v2.build, {"width": 0.5}, 1_366_792, 40.48, 40),
    Row(shufflenet_v2.build, {"width": 1.0}, 2_278_604, 144.91, 145),
    Row(shufflenet_v2.build, {"width": 1.5}, 3_503_624, 295.76, 296),
    Row(shufflenet_v2.build, {"width": 2.0}, 7_393_996, 583.25, 583),
]
MOBILENET_V1 = [
    # Tables 6 and 7, and 8 for the resolutions
    Row(mobilenet_v1.build, {"width": 1.0}, 4_231_976, 568.74, 569, 4.2),
    Row(mobilenet_v1.build, {"width": 0.75}, 2_585_560, 325.40, 325, 2.6),
    Row(mobilenet_v1.build, {"width": 0.5}, 1_331_592, 149.50, 149, 1.3),
    Row(mobilenet_v1.build, {"width": 0.25}, 470_072, 41.03, 41, 0.5),
    Row(mobilenet_v1.build, {"width": 1.0}, 4_231_976, 418.12, 418, 4.2, size=192),
    Row(mobilenet_v1.build, {"width": 1.0}, 4_231_976, 290.68, 290, 4.2, size=160),
    Row(mobilenet_v1.build, {"width": 1.0}, 4_231_976, 186.40, 186, 4.2, size=128),
    Row(mobilenet_v1.build, {"width": 1.0, "padding": "tf"}, 4_231_976, 568.74, 569, 4.2),
]
MOBILENET_V2 = [
    Row(mobilenet_v2.build, {"width": 1.4}, 6_108_776, 582.20, 585, 6.9),
    Row(mobilenet_v2.build, {"width": 1.3}, 5_386_792, 509.37),
    Row(mobilenet_v2.build, {"width": 1.0}, 3_504_872, 300.77, 300),
    Row(mobilenet_v2.build, {"width": 0.75}, 2_636_424, 209.07),
    Row(mobilenet_v2.build, {"width": 0.5}, 1_968_680, 97.13),
    Row(mobilenet_v2.build, {"width": 0.35}, 1_677_128, 59.29),
]
MICRONET = [
    # What the paper prints is with the products of Shift-Max: without them M0 to M3 make 3.45, 5.31, 10.34 and 18.24.
    Row(micronet.build, {"variant": "M0"}, 1_019_590, 4.05, 4, 1.0),
    Row(micronet.build, {"variant": "M1"}, 1_777_587, 6.12, 6, 1.8),
    Row(micronet.build, {"variant": "M2"}, 2_393_876, 12.74, 12, 2.4),
    Row(micronet.build, {"variant": "M3"}, 2_622_960, 20.81, 21, 2.6),
]
ROWS = [*SHUFFLENET_V1, *SHUFFLENET_V2, *MOBILENET_V1, *MOBILENET_V2, *MICRONET]

# (row, what is printed) -> why the arithmetic is held instead.
DISAGREEMENTS = {
    ("shufflenet_v1-4-1.0-224", "madds"): "133 printed; Table 1's own channels make 134.34",
    ("shufflenet_v1-8-1.0-224", "madds"): "137 printed; Table 1's channels make 138.37, and megvii's README says 138",
    ("mobilenet_v2-1.4-224", "madds"): "585 printed; torchvision's and TensorFlow's 1.4 both make 582.20",
    ("mobilenet_v2-1.4-224", "weights"): "6.9 printed; nobody's network has that many, torchvision's has 6,108,776",
}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_counts_are_exact(row: Row) -> None:
    built = network(row.build, **row.arguments)
    assert counting.parameters(built) == row.parameters
    assert f"{counting.madds(built, row.size, shift_max=True) / 1e6:.2f}" == f"{row.mmac:.2f}"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_counts_are_the_printed_ones(row: Row) -> None:
    # Printed numbers are rounded up (40.48 -> 41), down (290.68 -> 290) or to the nearest.
    agrees = {
        "madds": row.madds is None or abs(row.mmac - row.madds) < 1,
        "weights": row.weights is None or abs(row.parameters / 1e6 - row.weights) < 0.1,
    }
    for what, agreed in agrees.items():
        assert agreed is ((str(row), what) not in DISAGREEMENTS)


def test_every_disagreement_is_of_a_row() -> None:
    assert {name for name, _ in DISAGREEMENTS} <= {str(row) for row in ROWS}


@pytest.mark.parametrize(("variant", "mmac"), [("M0", 3.45), ("M1", 5.31), ("M2", 10.34), ("M3", 18.24)])
def test_micronet_without_the_products_of_shift_max(variant: str, mmac: float) -> None:
    assert f"{counting.madds(network(micronet.build, variant=variant)) / 1e6:.2f}" == f"{mmac:.2f}"


def test_shares_of_mobilenet_v1_by_layer_type() -> None:
    """Table 2. Its 1.19% for Conv 3x3 is held as 1.91: two digits are swapped, as the printed column sums to 99.29."""
    counts = counting.by_type(network(mobilenet_v1.build, width=1.0))
    madds, weights = (sum(column) for column in zip(*counts.values(), strict=True))
    shares = {kind: (f"{100 * m / madds:.2f}", f"{100 * w / weights:.2f}") for kind, (m, w) in counts.items()}
    assert shares == {
        "Conv 1x1": ("94.86", "74.59"),
        "Conv DW 3x3": ("3.06", "1.06"),
        "Conv 3x3": ("1.91", "0.02"),
        "FC": ("0.18", "24.33"),
    }


def test_narrowest_shufflenet_v1_makes_the_papers_13m() -> None:
    """Its stem is unpublished; 12 channels fit."""
    assert counting.madds(network(shufflenet_v1.build, width=0.25)) // 10**6 == 13


@pytest.mark.parametrize("groups", shufflenet_v1.CHANNELS)
@pytest.mark.parametrize("width", shufflenet_v1.STEM_CHANNELS)
def test_every_width_and_groups_of_shufflenet_v1_can_be_built(groups: int, width: float) -> None:
    network(shufflenet_v1.build, groups=groups, width=width)


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (shufflenet_v1.build, {"groups": 5}),
        (shufflenet_v1.build, {"width": 0.75}),
        (shufflenet_v2.build, {"width": 0.75}),
        (shufflenet_v2.build, {"variant": "megvii"}),
        (mobilenet_v1.build, {"width": 0}),
        (mobilenet_v1.build, {"padding": "same"}),
        (mobilenet_v2.build, {"width": -1.0}),
        (micronet.build, {"variant": "M4"}),
    ],
)
def test_what_no_paper_has_is_refused(build: Callable[..., nn.Module], arguments: Arguments) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r}; "):
        build(**arguments)


# Operators of a unit, in order

CONV, NORM, RELU, CAT = "aten.conv2d.default", "aten.batch_norm.default", "aten.relu.default", "aten.cat.default"
RELU_, RELU6_ = "aten.relu_.default", "aten.hardtanh_.default"
SHUFFLE = ["aten.view.default", "aten.transpose.int", "aten.reshape.default"]
SPLIT = ["aten.chunk.default", "<built-in function getitem>", "<built-in function getitem>"]


def operators(unit: nn.Module, channels: int) -> list[str]:
    return targets(exported(unit, torch.zeros(1, channels, 8, 8)))


def convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (m for m in module.modules() if isinstance(m, nn.Conv2d))


# ShuffleNet v1


def test_unit_of_shufflenet_v1() -> None:
    """Fig. 2 (b): one shuffle, after the first group convolution; nothing rectified after the depthwise."""
    unit = shufflenet_v1.ShuffleUnit(24, 24, stride=1, groups=3, first_groups=3)
    main = [CONV, NORM, RELU_, CONV, NORM, *SHUFFLE, CONV, NORM]
    assert operators(unit, 24) == [*main, "aten.add.Tensor", RELU]
    assert [c.groups for c in convolutions(unit)] == [3, 6, 3]


def test_unit_of_stride_2_of_shufflenet_v1() -> None:
    """Fig. 2 (c): 3x3 average pool of stride 2 on the shortcut, concat instead of addition."""
    unit = shufflenet_v1.ShuffleUnit(24, 240, stride=2, groups=3, first_groups=1)
    main = [CONV, NORM, RELU_, CONV, NORM, *SHUFFLE, CONV, NORM]
    assert operators(unit, 24) == [*main, "aten.avg_pool2d.default", RELU, CAT]
    pool = unit.branch_proj
    assert isinstance(pool, nn.AvgPool2d)
    assert (pool.kernel_size, pool.stride, pool.padding) == (3, 2, 1)
    # A quarter of 240, not of the 216 that the main branch makes, which gives 127M multiply-adds instead of 137M.
    assert [c.out_channels for c in convolutions(unit)] == [60, 60, 216]


def test_nothing_is_shuffled_with_one_group() -> None:
    unit = shufflenet_v1.ShuffleUnit(24, 24, stride=1, groups=1, first_groups=1)
    assert operators(unit, 24) == [CONV, NORM, RELU_, CONV, NORM, CONV, NORM, "aten.add.Tensor", RELU]


@pytest.mark.parametrize("row", SHUFFLENET_V1, ids=str)
def test_stages_of_shufflenet_v1(row: Row) -> None:
    built = network(row.build, **row.arguments)
    assert isinstance(built, shufflenet_v1.ShuffleNetV1)
    groups, units = row.arguments["groups"], list(built.features)
    second = round({1: 144, 2: 200, 3: 240, 4: 272, 8: 384}[groups] * row.arguments["width"])
    inp = built.first_conv[0].out_channels
    for i, unit in enumerate(units):
        out = second * (1 if i < 4 else 2 if i < 12 else 4)
        assert isinstance(unit, shufflenet_v1.ShuffleUnit)
        first, depthwise, last = convolutions(unit)
        assert unit.stride == depthwise.stride[0] == (2 if i in (0, 4, 12) else 1)
        assert first.out_channels == depthwise.groups == out // 4
        assert last.out_channels == (out - inp if unit.stride == 2 else out)
        # The first pointwise layer of stage 2 is the only one that is not grouped.
        assert (first.groups, last.groups) == (1 if i == 0 else groups, groups)
        inp = out


@pytest.mark.parametrize("row", SHUFFLENET_V1, ids=str)
def test_shuffle_of_shufflenet_v1_mixes_the_groups(row: Row) -> None:
    """Each group of the second convolution reads of all groups of the first, or, with fewer channels, of one each."""
    groups = row.arguments["groups"]
    inner = round({1: 144, 2: 200, 3: 240, 4: 272, 8: 384}[groups] * row.arguments["width"]) // 4
    shuffled = shufflenet_v1.channel_shuffle(numbered(inner), groups).flatten()
    assert sorted(shuffled.tolist()) == list(range(inner))
    for part in shuffled.chunk(groups):
        assert len(set((part // (inner // groups)).tolist())) == min(groups, inner // groups)


def test_shuffle_of_shufflenet_v1_undoes_the_papers() -> None:
    x = numbered(12)
    papers = x.view(1, 3, 4, 1, 1).transpose(1, 2).reshape(1, 12, 1, 1)
    assert torch.equal(shufflenet_v1.channel_shuffle(papers, 3), x)


def test_shuffle_after_the_depthwise_is_the_papers_before_it() -> None:
    """The same with the weights of the depthwise in the shuffled order: megvii's place costs nothing."""
    torch.manual_seed(0)
    x = torch.randn(1, 12, 5, 5)
    after = nn.Conv2d(12, 12, 3, groups=12, bias=False)
    before = nn.Conv2d(12, 12, 3, groups=12, bias=False)
    order = shufflenet_v1.channel_shuffle(numbered(12), 3).flatten().long()
    before.weight.data = after.weight.data[order]
    wanted = shufflenet_v1.channel_shuffle(after(x), 3)
    torch.testing.assert_close(before(shufflenet_v1.channel_shuffle(x, 3)), wanted)


def numbered(channels: int) -> Tensor:
    return torch.arange(channels, dtype=torch.float32).view(1, -1, 1, 1)


# ShuffleNetV2


def test_units_of_shufflenet_v2() -> None:
    """Fig. 3: no group convolutions but depthwise ones, split instead of a shortcut, concat, then shuffle."""
    main = [CONV, NORM, RELU_, CONV, NORM, CONV, NORM, RELU_]
    short = [CONV, NORM, CONV, NORM, RELU_]
    split = shufflenet_v2.InvertedResidual(16, 16, stride=1)
    opening = shufflenet_v2.InvertedResidual(16, 32, stride=2)
    assert operators(split, 16) == [*SPLIT, *main, CAT, *SHUFFLE]
    assert operators(opening, 16) == [*short, *main, CAT, *SHUFFLE]
    assert [c.out_channels for c in convolutions(opening)] == [16, 16, 16, 16, 16]


def test_official_units_of_shufflenet_v2() -> None:
    """They shuffle as they split; the shortcut of one that opens a stage keeps its channels, 24 of 116."""
    main = [CONV, NORM, RELU_, CONV, NORM, CONV, NORM, RELU_]
    short = [CONV, NORM, CONV, NORM, RELU_]
    split = shufflenet_v2.OfficialUnit(16, 16, stride=1)
    opening = shufflenet_v2.OfficialUnit(24, 116, stride=2)
    assert operators(split, 16) == [*SHUFFLE, *SPLIT, *main, CAT]
    assert operators(opening, 24) == [*short, *main, CAT]
    assert [c.out_channels for c in convolutions(opening.branch_proj)] == [24, 24]
    assert [c.out_channels for c in convolutions(opening.branch_main)] == [58, 58, 92]


def test_official_units_pass_even_channels_and_process_odd_ones() -> None:
    unit = shufflenet_v2.OfficialUnit(8, 8, stride=1)
    unit.branch_main = nn.Sequential()
    assert unit(numbered(8)).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_torchvisions_units_pass_the_first_half_and_interleave() -> None:
    unit = shufflenet_v2.InvertedResidual(8, 8, stride=1)
    unit.branch2 = nn.Sequential()
    assert unit(numbered(8)).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


# MobileNets


def test_layers_of_mobilenet_v1() -> None:
    """Fig. 3: both convolutions of a depthwise separable one are normalised and rectified."""
    layers = mobilenet_v1.depthwise_separable(8, 16, 2, "torch")
    assert operators(layers, 8) == [CONV, NORM, RELU_, CONV, NORM, RELU_]
    depthwise, pointwise = convolutions(layers)
    assert (depthwise.groups, depthwise.stride, pointwise.kernel_size) == (8, (2, 2), (1, 1))


@pytest.mark.parametrize("size", [4, 5, 7, 8])
def test_same_padding_puts_the_odd_pixel_after(size: int) -> None:
    """tf.nn.conv2d of ones with a kernel of powers of ten, SAME, stride 2: what falls outside is missing."""
    conv = mobilenet_v1.SamePaddedConv2d(1, 1, (1, 3), (1, 2), bias=False)
    conv.weight.data = torch.tensor([100.0, 10.0, 1.0]).view(1, 1, 1, 3)
    rows = {4: [111, 110], 8: [111, 111, 111, 110], 5: [11, 111, 110], 7: [11, 111, 111, 110]}
    assert conv(torch.ones(1, 1, 1, size)).flatten().tolist() == rows[size]


def test_only_layers_of_stride_2_pad_otherwise_in_tensorflow() -> None:
    built = network(mobilenet_v1.build, width=1.0, padding="tf")
    for conv in convolutions(built):
        assert isinstance(conv, mobilenet_v1.SamePaddedConv2d) is (conv.stride == (2, 2))
    assert [x.path for x in counting.layers(built)] == [
        x.path for x in counting.layers(network(mobilenet_v1.build, width=1.0))
    ]


def test_bottleneck_of_mobilenet_v2_is_linear() -> None:
    unit = mobilenet_v2.InvertedResidual(8, 8, stride=1, expansion=6)
    expand_and_filter = [CONV, NORM, RELU6_] * 2
    assert operators(unit, 8) == [*expand_and_filter, CONV, NORM, "aten.add.Tensor"]


@pytest.mark.parametrize(("width", "channels"), [(0.35, 1280), (0.5, 1280), (0.75, 1280), (1.0, 1280), (1.4, 1792)])
def test_last_convolution_of_mobilenet_v2_is_not_scaled_below_1(width: float, channels: int) -> None:
    assert list(convolutions(network(mobilenet_v2.build, width=width)))[-1].out_channels == channels


# MicroNet


def shift_max(channels: int, groups: int, initial: tuple[tuple[float, ...], ...], *, rotate: bool) -> Any:
    torch.manual_seed(0)
    return micronet.DynamicShiftMax(channels, groups, squeezed=4, initial=initial, rotate=rotate)


@pytest.mark.parametrize("initial", [((1.0, 0.0),), ((1.0, 0.0), (0.5, 0.5))], ids=["K=1", "K=2"])
def test_dynamic_shift_max_is_the_papers_formula(initial: tuple[tuple[float, ...], ...]) -> None:
    """y_i = max_k sum_j a^k_ij(x) x_{(i + j C/G) mod C}, term by term."""
    channels, groups = 12, 3
    layer = shift_max(channels, groups, initial, rotate=False)
    x = torch.randn(2, channels, 3, 3)
    a = layer.coefficients(x)
    wanted = torch.stack(
        [
            torch.stack(
                [
                    sum(a[k][j][:, i] * x[:, (i + j * channels // groups) % channels] for j in range(micronet.J))
                    for k in range(len(initial))
                ]
            ).amax(0)
            for i in range(channels)
        ],
        dim=1,
    )
    torch.testing.assert_close(layer(x), wanted)


def test_coefficients_start_at_their_initial_values_and_move_by_2() -> None:
    """(h - 0.5) * 4 plus the initial value, h the hard sigmoid: 0.5 where the last layer makes 0."""
    initial = ((1.0, 0.0), (0.5, 0.5))
    layer = shift_max(8, 2, initial, rotate=True)
    for bias, moved in ((0.0, 0.0), (3.0, 2.0), (-3.0, -2.0), (50.0, 2.0), (1.5, 1.0)):
        nn.init.zeros_(layer.linear2.weight)
        nn.init.constant_(layer.linear2.bias, bias)
        for k, values in enumerate(layer.coefficients(torch.randn(1, 8, 2, 2))):
            for j, value in enumerate(values):
                torch.testing.assert_close(value, torch.full((1, 8, 1, 1), initial[k][j] + moved))


def test_shift_by_groups_and_the_official_turn_inside_them() -> None:
    x = numbered(12)  # three groups of four
    papers, official = (shift_max(12, 3, ((1.0, 0.0),), rotate=r).shifted(x).flatten().tolist() for r in (False, True))
    assert papers == [4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3]
    assert official == [5, 6, 7, 4, 9, 10, 11, 8, 1, 2, 3, 0]


def test_two_shuffles_of_the_official_code_are_one() -> None:
    """By g groups, then by pairs: by g/2 groups."""
    x = numbered(48)
    for groups in (2, 4, 8, 12, 16):
        twice = micronet.GroupShuffle(24)(micronet.GroupShuffle(groups)(x))
        assert torch.equal(twice, micronet.GroupShuffle(groups // 2)(x))


@pytest.mark.parametrize("variant", micronet.SETTINGS)
def test_every_convolution_of_micronet_is_factorised(variant: str) -> None:
    """A pointwise one is grouped, a depthwise one is k x 1 and then 1 x k."""
    settings, built = micronet.SETTINGS[variant], network(micronet.build, variant=variant)
    assert isinstance(built, micronet.MicroNet)
    for row, block in zip(settings.rows, built.features, strict=True):
        found = list(convolutions(block))
        pointwise = [c.groups for c in found if c.kernel_size == (1, 1)]
        assert pointwise == [groups for groups in (row.g1, row.g3) if groups]
        separable = [c for c in found if c.kernel_size != (1, 1)]
        assert [c.kernel_size for c in separable] == ([(row.k, 1), (1, row.k)] if row.g3 else [])
        assert [c.stride for c in separable] == ([(row.s, 1), (1, row.s)] if row.g3 else [])
        assert all(c.groups == c.in_channels for c in separable)


@pytest.mark.parametrize("variant", micronet.SETTINGS)
def test_shift_max_of_micronet(variant: str) -> None:
    """K of each activation and its groups; ReLU6 where an inner one has none; at least 4 channels squeezed to."""
    settings, built = micronet.SETTINGS[variant], network(micronet.build, variant=variant)
    assert isinstance(built, micronet.MicroNet)
    for i, (row, block) in enumerate(zip(settings.rows, built.features, strict=True)):
        y1, y2, y3 = settings.activations if i else settings.first
        hidden = list(convolutions(block))[-1].in_channels if row.g3 else row.c
        groups = [row.g2, hidden // row.g2, row.g4] if row.g1 else [0, row.g2, row.g4]
        wanted = list(zip((y1 if row.g1 else 0, y2, y3), groups, strict=True)) if row.g3 else [(y3, row.g2)]
        layers = [m for m in block if isinstance(m, micronet.DynamicShiftMax)]
        assert [(m.K, m.groups) for m in layers] == [(k, g) for k, g in wanted if k]
        assert all(m.rotate and m.linear1.out_features >= 4 for m in layers)
        inner = (y1, y2) if row.g1 else (y2,)
        assert sum(isinstance(m, nn.ReLU6) for m in block) == (inner.count(0) if row.g3 else 0)


def test_shortcuts_of_micronet() -> None:
    """Where the stride is 1 and the channels match."""
    networks: list[Any] = [network(micronet.build, variant=v) for v in micronet.SETTINGS]
    blocks = [[i for i, block in enumerate(built.features) if block.shortcut] for built in networks]
    assert blocks == [[], [], [4], [2, 4, 7, 9]]


# Names of parameters, by which published weights are recognised

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def keys(prefix: str, convs: str, norms: str) -> set[str]:
    """Of a Sequential: its convolutions' and its normalisations' places."""
    weights = {f"{prefix}.{i}.weight" for i in convs.split()}
    return weights | {f"{prefix}.{i}.{name}" for i in norms.split() for name in BATCH_NORM}


def test_names_of_torchvisions_shufflenet_v2() -> None:
    wanted = keys("conv1", "0", "1") | keys("conv5", "0", "1") | {"fc.weight", "fc.bias"}
    for stage, units in ((2, 4), (3, 8), (4, 4)):
        wanted |= keys(f"stage{stage}.0.branch1", "0 2", "1 3")
        for i in range(units):
            wanted |= keys(f"stage{stage}.{i}.branch2", "0 3 5", "1 4 6")
    assert set(network(shufflenet_v2.build, width=1.0).state_dict()) == wanted


def test_names_of_megviis_shufflenet_v2() -> None:
    wanted = keys("first_conv", "0", "1") | keys("conv_last", "0", "1") | {"classifier.0.weight"}
    for i in range(16):
        wanted |= keys(f"features.{i}.branch_main", "0 3 5", "1 4 6")
    for i in (0, 4, 12):
        wanted |= keys(f"features.{i}.branch_proj", "0 2", "1 3")
    assert set(network(shufflenet_v2.build, variant="official", width=1.0).state_dict()) == wanted


def test_names_of_megviis_shufflenet_v1() -> None:
    wanted = keys("first_conv", "0", "1") | {"classifier.0.weight"}
    for i in range(16):
        wanted |= keys(f"features.{i}.branch_main_1", "0 3", "1 4") | keys(f"features.{i}.branch_main_2", "0", "1")
    assert set(network(shufflenet_v1.build, groups=3, width=1.0).state_dict()) == wanted


def test_names_of_torchvisions_mobilenet_v2() -> None:
    wanted = keys("features.0", "0", "1") | keys("features.18", "0", "1") | {"classifier.1.weight", "classifier.1.bias"}
    wanted |= keys("features.1.conv", "0.0 1", "0.1 2")
    for i in range(2, 18):
        wanted |= keys(f"features.{i}.conv", "0.0 1.0 2", "0.1 1.1 3")
    found = set(network(mobilenet_v2.build, width=1.0).state_dict())
    assert len(found) == 314
    assert found == wanted


def test_preprocessing_is_that_of_the_weights() -> None:
    assert shufflenet_v1.PREPROCESSING == MEGVII
    assert shufflenet_v2.OfficialShuffleNetV2.PREPROCESSING == MEGVII
    for module in (shufflenet_v2, mobilenet_v1, mobilenet_v2, micronet):
        assert Preprocessing() == module.PREPROCESSING


# They compute


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (shufflenet_v1.build, {"groups": 8, "width": 0.5}),
        (shufflenet_v2.build, {"variant": "official", "width": 0.5}),
        (mobilenet_v1.build, {"width": 0.25, "padding": "tf"}),
        (micronet.build, {"variant": "M0"}),
        (micronet.build, {"variant": "M3", "rotate": False}),
    ],
    ids=lambda value: value.__module__.rpartition(".")[2] if callable(value) else str(value),
)
def test_outputs_depend_on_inputs(build: Callable[..., nn.Module], arguments: Arguments) -> None:
    torch.manual_seed(0)
    built = with_statistics(build(num_classes=10, **arguments))
    with torch.no_grad():
        first, second = built(torch.randn(2, 3, 64, 64))
    assert first.shape == (10,)
    assert torch.isfinite(first).all()
    assert not torch.allclose(first, second)
