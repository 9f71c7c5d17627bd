"""MobileNet (Howard et al., 2017, arXiv 1704.04861), Table 1, with its width multiplier.

The resolution multiplier is the size of the input, as in the paper: --input-shape 1,3,192,192.
Table 1 prints stride 2 for the last depthwise convolution as well; its sizes (7x7 in and out) and its 569M MAdds say 1.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from edgeport.records import Preprocessing, Variant

PAPER = "MobileNet, arXiv 1704.04861"
INPUT_SHAPE = (3, 224, 224)
PREPROCESSING = Preprocessing()
VARIANTS = (
    *(Variant({"width": width}) for width in (0.25, 0.5, 0.75, 1.0)),
    *(Variant({"width": 1.0}, (3, size, size)) for size in (128, 160, 192)),
    Variant({"width": 1.0, "padding": "tf"}),
)

# Table 1: channels and stride of each depthwise separable convolution.
ROWS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
STEM_CHANNELS, FEWEST_CHANNELS = 32, 8

Padding = Literal["torch", "tf"]


class SamePaddedConv2d(nn.Conv2d):
    """TensorFlow's SAME: as much padding as makes ceil(size / stride) outputs, the odd pixel after."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name that nn.Conv2d gives it
        height, width = (
            same_pads(size, kernel, stride)
            for size, kernel, stride in zip(input.shape[2:], self.kernel_size, self.stride, strict=True)
        )
        return super().forward(nn.functional.pad(input, (*width, *height)))


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv_bn_relu(inp: int, out: int, kernel: int, stride: int, padding: Padding, groups: int = 1) -> nn.Sequential:
    """With stride 1 both paddings are the same, and the plain layer does it."""
    layer, pad = (SamePaddedConv2d, 0) if padding == "tf" and stride > 1 else (nn.Conv2d, kernel // 2)
    conv = layer(inp, out, kernel, stride, pad, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def depthwise_separable(inp: int, out: int, stride: int, padding: Padding) -> nn.Sequential:
    """Fig. 3, right: depthwise 3x3, then pointwise, each normalised and rectified."""
    depthwise = conv_bn_relu(inp, inp, 3, stride, padding, groups=inp)
    return nn.Sequential(depthwise, conv_bn_relu(inp, out, 1, 1, padding))


class MobileNetV1(nn.Module):
    """Input (N, 3, H, W), H and W at least 32; output (N, num_classes) logits."""

    def __init__(self, width: float, num_classes: int, padding: Padding) -> None:
        super().__init__()
        inp = max(FEWEST_CHANNELS, int(STEM_CHANNELS * width))
        blocks = [conv_bn_relu(3, inp, 3, 2, padding)]
        for channels, stride in ROWS:
            out = max(FEWEST_CHANNELS, int(channels * width))
            blocks.append(depthwise_separable(inp, out, stride, padding))
            inp = out
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inp, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # keeps the signal's size from layer to layer (He et al., 2015)
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))
        return self.classifier(x)  # type: ignore[no-any-return]


def build(width: float = 1.0, num_classes: int = 1000, padding: Padding = "torch") -> nn.Module:
    """width: any positive number; the paper has 0.25, 0.5, 0.75 and 1.0.

    padding: "torch" pads both sides alike; "tf" is TensorFlow's SAME, for weights trained there, whose layers of stride
    2 would else see the picture moved by one pixel.
    """
    if not width > 0:
        raise ValueError(f"width is {width}; it must be positive")
    if padding not in ("torch", "tf"):
        raise ValueError(f"padding is {padding!r}; there are 'torch' and 'tf'")
    return MobileNetV1(width, num_classes, padding)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    """By the linear layer. The padding leaves no trace in weights."""
    classes, channels = shapes["classifier.weight"]
    return "edgeport's MobileNet v1", {"width": channels / ROWS[-1][0], "num_classes": classes}
