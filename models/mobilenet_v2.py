"""MobileNetV2 (Sandler et al., CVPR 2018, arXiv 1801.04381), Table 2, with torchvision's parameter names."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from edgeport.records import Preprocessing, Variant

PAPER = "MobileNetV2, arXiv 1801.04381"
INPUT_SHAPE = (3, 224, 224)
PREPROCESSING = Preprocessing()
VARIANTS = tuple(Variant({"width": width}) for width in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4))

# Table 2: expansion t, channels c, repeats n, stride of the first s.
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHANNELS, LAST_CHANNELS = 32, 1280


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of the divisor that is not more than 10% below: the rounding of the official code."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def conv_bn_relu6(inp: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inp, out, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """The bottleneck of Table 1: expand by t, depthwise 3x3, linear projection; shortcut when shapes agree."""

    def __init__(self, inp: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inp * expansion
        self.shortcut = stride == 1 and inp == out
        expand = [conv_bn_relu6(inp, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            conv_bn_relu6(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """Input (N, 3, H, W), H and W at least 32; output (N, num_classes) logits."""

    def __init__(self, width: float, num_classes: int) -> None:
        super().__init__()
        inp = make_divisible(STEM_CHANNELS * width)
        # Section 3.4 of the paper's experiments: below 1, the multiplier is not applied to the last convolution.
        last = make_divisible(LAST_CHANNELS * max(1.0, width))
        blocks: list[nn.Module] = [conv_bn_relu6(3, inp, 3, stride=2)]
        for expansion, channels, repeats, first_stride in ROWS:
            out = make_divisible(channels * width)
            for i in range(repeats):
                blocks.append(InvertedResidual(inp, out, first_stride if i == 0 else 1, expansion))
                inp = out
        blocks.append(conv_bn_relu6(inp, last, 1))
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # keeps the signal's size from layer to layer (He et al., 2015)
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).mean((2, 3))
        return self.classifier(x)  # type: ignore[no-any-return]


def build(width: float = 1.0, num_classes: int = 1000) -> nn.Module:
    """width: any positive number; the paper has 0.35 to 1.4."""
    if not width > 0:
        raise ValueError(f"width is {width}; it must be positive")
    return MobileNetV2(width, num_classes)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]]:
    """The width is the published one that makes these channels, else the one that makes them without rounding."""
    channels, classes = shapes["features.17.conv.2.weight"][0], shapes["classifier.1.weight"][0]
    full = ROWS[-1][1]
    published = {make_divisible(full * v.arguments["width"]): v.arguments["width"] for v in VARIANTS}
    return "torchvision's MobileNetV2", {"width": published.get(channels, channels / full), "num_classes": classes}
