"""Small random networks, made of the operators that edgeport lowers to TFLite itself."""

import math
from collections.abc import Callable, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

Draw = st.DrawFn
Shape = tuple[int, ...]
MOST_ELEMENTS = 4000


class Step(nn.Module):
    """One block. Its text tells in a failing example what it does."""

    def __init__(self, text: str, function: Callable[[Tensor], Tensor], *layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.text, self.function = text, function
        for i, layer in enumerate(layers):
            setattr(self, f"layer{i}", layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def __repr__(self) -> str:
        return self.text


class Chain(nn.Module):
    """Steps one after another. Returns the last result, and those after the steps numbered in `also`."""

    def __init__(self, shape: Shape, steps: Sequence[Step], also: Sequence[int]) -> None:
        super().__init__()
        self.shape, self.steps, self.also = shape, nn.ModuleList(steps), also

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        results = []
        for step in self.steps:
            x = step(x)
            results.append(x)
        return (x, *(results[i] for i in self.also))

    def __repr__(self) -> str:
        return f"{self.shape}: {', '.join(map(repr, self.steps))}; also returns {self.also}"


def pick(draw: Draw, *choices: object) -> object:
    return draw(st.sampled_from(choices))


def integer(draw: Draw, low: int, high: int) -> int:
    return draw(st.integers(low, max(low, high)))


def divisor(draw: Draw, number: int) -> int:
    return draw(st.sampled_from([d for d in range(1, number + 1) if number % d == 0]))


def layer_step(layer: nn.Module) -> Step:
    return Step(str(layer), layer, layer)


def parameter(shape: Shape) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


# Images: (N, C, H, W)


def convolution(draw: Draw, shape: Shape) -> Step:
    _, channels, *size = shape
    groups = divisor(draw, channels)
    kernel = tuple(integer(draw, 1, min(4, n)) for n in size)
    dilation = tuple(integer(draw, 1, 2 if (k - 1) * 2 < n else 1) for k, n in zip(kernel, size, strict=True))
    stride = tuple(integer(draw, 1, 3) for _ in size)
    padding: object = tuple(integer(draw, 0, 2) for _ in size)
    if draw(st.booleans()):
        padding = pick(draw, "valid", "same") if stride == (1, 1) else "valid"
    out = groups * integer(draw, 1, max(1, 8 // groups))
    bias = draw(st.booleans())
    return layer_step(nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, bias))  # type: ignore[arg-type]


def depthwise(draw: Draw, shape: Shape) -> Step:
    channels, kernel = shape[1], integer(draw, 1, min(3, *shape[2:]))
    stride, padding = integer(draw, 1, 2), integer(draw, 0, kernel // 2)
    out = channels * integer(draw, 1, 2)
    return layer_step(nn.Conv2d(channels, out, kernel, stride, padding, groups=channels))


def normalised(draw: Draw, shape: Shape) -> Step:
    norm = nn.BatchNorm2d(shape[1])
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return layer_step(norm)


def pooling(draw: Draw, shape: Shape) -> Step:
    kernel = tuple(integer(draw, 1, min(3, n)) for n in shape[2:])
    stride = tuple(integer(draw, 1, 3) for _ in kernel)
    padding = tuple(integer(draw, 0, k // 2) for k in kernel)
    if draw(st.booleans()):
        return layer_step(nn.MaxPool2d(kernel, stride, padding))
    return layer_step(nn.AvgPool2d(kernel, stride, padding))  # type: ignore[arg-type]


def adaptive(draw: Draw, shape: Shape) -> Step:
    return layer_step(nn.AdaptiveAvgPool2d((divisor(draw, shape[2]), divisor(draw, shape[3]))))


def shuffle(draw: Draw, shape: Shape) -> Step:
    n, c, h, w = shape
    groups = divisor(draw, c)
    return Step(
        f"shuffle({groups})", lambda x: x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
    )


def squeeze_excite(draw: Draw, shape: Shape) -> Step:
    channels, inner = shape[1], integer(draw, 1, 3)
    gate = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels), nn.Hardsigmoid())
    if draw(st.booleans()):
        return Step("SE by linear", lambda x: x * gate(x.mean((2, 3)))[:, :, None, None], gate)
    conv = nn.Conv2d(channels, channels, 1)
    return Step("SE by conv", lambda x: x * torch.sigmoid(conv(F.adaptive_avg_pool2d(x, 1))), conv)


def split_and_join(draw: Draw, shape: Shape) -> Step:
    """Parts along an axis, some of them processed, joined in another order."""
    axis = integer(draw, 0, len(shape) - 1)
    parts = integer(draw, 1, min(3, shape[axis]))
    order = draw(st.permutations(range(parts)))
    unequal = shape[axis] > parts and draw(st.booleans())
    sizes = [shape[axis] - parts + 1, *[1] * (parts - 1)]

    def run(x: Tensor) -> Tensor:
        pieces = torch.split(x, sizes, axis) if unequal else x.chunk(parts, axis)
        kept = [pieces[i] for i in order if i < len(pieces)]
        return torch.cat([torch.relu(kept[0]), *kept[1:]], axis)

    return Step(f"split({sizes if unequal else parts}, {axis}) and cat {order}", run)


# Tensors of any rank


def activation(draw: Draw, shape: Shape) -> Step:
    layers = (nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.SiLU(), nn.Tanh())
    return layer_step(draw(st.sampled_from((*layers, nn.LeakyReLU(0.1)))))


def softmax(draw: Draw, shape: Shape) -> Step:
    return layer_step(nn.Softmax(integer(draw, 0, len(shape) - 1)))


def permutation(draw: Draw, shape: Shape) -> Step:
    if draw(st.booleans()):
        order = draw(st.permutations(range(len(shape))))
        return Step(f"permute{order}", lambda x: x.permute(order))
    first, second = integer(draw, 0, len(shape) - 1), integer(draw, 0, len(shape) - 1)
    return Step(f"transpose({first}, {second})", lambda x: x.transpose(first, second))


def flattening(draw: Draw, shape: Shape) -> Step:
    start = integer(draw, 0, len(shape) - 1)
    end = integer(draw, start, len(shape) - 1)
    return Step(f"flatten({start}, {end})", lambda x: x.flatten(start, end))


def viewing(draw: Draw, shape: Shape) -> Step:
    """Another shape of the same number of elements, of rank 2 to 5."""
    left, sizes = math.prod(shape), []
    for _ in range(integer(draw, 1, 4)):
        sizes.append(divisor(draw, left))
        left //= sizes[-1]
    sizes.append(left)
    return Step(f"reshape{tuple(sizes)}", lambda x: x.reshape(sizes))


def axes_of_one(draw: Draw, shape: Shape) -> Step:
    axis = integer(draw, 0, len(shape))
    if axis < len(shape) and shape[axis] == 1 and len(shape) > 2:
        return Step(f"squeeze({axis})", lambda x: x.squeeze(axis))
    if len(shape) < 5:
        return Step(f"unsqueeze({axis})", lambda x: x.unsqueeze(axis))
    return permutation(draw, shape)


def slicing(draw: Draw, shape: Shape) -> Step:
    axis = integer(draw, 0, len(shape) - 1)
    start = integer(draw, -shape[axis], shape[axis] - 1)
    end = integer(draw, start % shape[axis] + 1, shape[axis] + 1)
    index = (*[slice(None)] * axis, slice(start, end))
    return Step(f"[{start}:{end}] along axis {axis}", lambda x: x[index])


def selecting(draw: Draw, shape: Shape) -> Step:
    axis = integer(draw, 0, len(shape) - 1)
    index = integer(draw, -shape[axis], shape[axis] - 1)
    return Step(f"select({axis}, {index})", lambda x: x.select(axis, index))


def padding(draw: Draw, shape: Shape) -> Step:
    amounts = [integer(draw, 0, 2) for _ in range(2 * integer(draw, 1, min(2, len(shape))))]
    fill = draw(st.sampled_from([0.0, 1.5]))
    return Step(f"pad({amounts}, {fill})", lambda x: F.pad(x, amounts, value=fill))


def averaging(draw: Draw, shape: Shape) -> Step:
    axes = sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=max(1, len(shape) - 2))))
    keep = draw(st.booleans()) or len(shape) - len(axes) < 2
    return Step(f"mean({axes}, keepdim={keep})", lambda x: x.mean(axes, keepdim=keep))


BINARIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b.abs() + 1),
    "rsub": lambda a, b: b - a,
}


def with_constant(draw: Draw, shape: Shape) -> Step:
    """An element-wise operator with a parameter that is broadcast, of lower rank or not."""
    name = draw(st.sampled_from(["add", "mul", "rsub", "sub"]))
    leading = integer(draw, 0, len(shape) - 1)
    sizes = tuple(n if draw(st.booleans()) else 1 for n in shape[leading:])
    other = parameter(sizes)
    return Step(f"{name} parameter{sizes}", lambda x: BINARIES[name](x, other), other)


def with_number(draw: Draw, shape: Shape) -> Step:
    name, number = draw(st.sampled_from(["add", "sub", "mul", "div"])), integer(draw, 2, 3)
    return Step(f"{name} {number}", lambda x: getattr(x, name)(number))


def with_itself(draw: Draw, shape: Shape) -> Step:
    """A shortcut around something: the tensor is read twice, once in another form of the same or a broadcast shape."""
    name = draw(st.sampled_from(sorted(BINARIES)))
    around: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": torch.relu,
        "relu of its clone": lambda x: torch.relu(x.clone()),
        "relu of an inactive dropout": lambda x: torch.relu(F.dropout(x, training=False)),
        "its mean": lambda x: x.mean(-1, keepdim=True),
        "itself permuted twice": lambda x: torch.relu(x.transpose(0, -1)).transpose(0, -1),
        "itself reshaped twice": lambda x: torch.sigmoid(x.flatten()).view(shape),
    }
    how = draw(st.sampled_from(sorted(around)))
    return Step(f"{name} {how}", lambda x: BINARIES[name](x, around[how](x)))


def linear(draw: Draw, shape: Shape) -> Step:
    return layer_step(nn.Linear(shape[-1], integer(draw, 1, 6), bias=draw(st.booleans())))


IMAGE = (convolution, depthwise, normalised, pooling, adaptive, shuffle, squeeze_excite)
ANY = (
    *(activation, softmax, permutation, flattening, viewing, axes_of_one, slicing, selecting, padding, averaging),
    *(with_constant, with_number, with_itself, linear, split_and_join),
)


@st.composite
def networks(draw: Draw, most_steps: int = 7) -> Chain:
    """A network in evaluation mode, with the shape of its input: images more often than not."""
    torch.manual_seed(draw(st.integers(0, 9)))
    shape: Shape = tuple(integer(draw, 1, high) for high in (2, 8, 9, 9))
    if draw(st.integers(0, 3)) == 0:
        shape = shape[: draw(st.sampled_from([2, 3]))]
    steps: list[Step] = []
    x = torch.randn(shape)
    for _ in range(integer(draw, 1, most_steps)):
        choices = (*IMAGE, *IMAGE, *ANY) if x.dim() == 4 else ANY
        make = draw(st.sampled_from(choices))
        step = make(draw, tuple(x.shape)).eval()
        with torch.no_grad():
            try:
                y = step(x.clone())
            except RuntimeError:  # a kernel larger than the image: no network that anybody has
                continue
        if y.dim() > 5 or y.dim() < 2 or not 0 < y.numel() <= MOST_ELEMENTS:
            continue
        steps.append(step)
        x = y
    if not steps:
        steps.append(layer_step(nn.ReLU()))
    also = draw(st.lists(st.integers(0, len(steps) - 1), max_size=1))
    return Chain(shape, steps, also).eval()
