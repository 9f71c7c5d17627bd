"""What random networks are made of: blocks on images and on sequences, and heads; make(seed) puts a network together.

Blocks of PLAIN are of operators that edgeport lowers to TFLite itself; those of OTHER take litert-torch, which needs
seconds, and are in a quarter of the networks.
"""

import math
from collections.abc import Callable, Sequence

import torch
from random_networks import Builder, Network, UnfitError
from torch import Tensor, nn
from torch.nn import functional

Block = Callable[[Builder], object]
Head = Callable[[Builder, str], str]
KINDS = {"images": 74, "images, other operators": 12, "sequences": 4, "tokens": 10}
ACTIVATIONS = (nn.ReLU, nn.ReLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU, nn.Tanh)
MORE_ACTIVATIONS = (nn.GELU, nn.ELU, nn.Softplus, nn.Mish)
MOST_OUTPUTS = 4


def make(seed: int) -> Network:
    """The network of this number, always the same, in evaluation mode."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        kinds, shares = list(KINDS), list(KINDS.values())
        b = Builder(seed, "")
        b.kind = b.random.choices(kinds, shares)[0]
        return _tokens(b) if b.kind == "tokens" else _sequences(b) if b.kind == "sequences" else _images(b)


def _images(b: Builder) -> Network:
    channels, height = b.integer(1, 8), 2 * b.integer(4, 9)
    width = height if b.chance(0.8) else b.integer(8, 17)
    b.input((1, channels, height, width))
    if b.chance(0.1):
        b.input((1, b.integer(1, 6), height, width))
    if not b.attempt(convolution):
        b.attempt(lambda b: activation(b, "x0"))
    blocks = PLAIN if b.kind == "images" else (*PLAIN, *OTHER, *OTHER)
    if b.kind != "images":
        _grow(b, OTHER, 1)
    _grow(b, blocks, b.integer(2, 6))
    return _finished(b, IMAGE_HEADS)


def _sequences(b: Builder) -> Network:
    b.input((1, b.integer(4, 16), 4 * b.integer(1, 6)))
    _grow(b, SEQUENCE, b.integer(3, 6))
    return _finished(b, SEQUENCE_HEADS)


def _tokens(b: Builder) -> Network:
    length, words, width = b.integer(4, 16), b.integer(8, 40), 4 * b.integer(2, 6)
    ids = b.input((1, length), high=words)
    mask = b.input((1, length), mask=True) if b.chance(0.6) else None
    x = b.add(f"Embedding({words}, {width})", table := nn.Embedding(words, width), ids, layers=[table])
    if b.chance(0.5):
        x = _with_positions(b, x)
    for _ in range(b.integer(1, 2)):
        b.attempt(lambda b: transformer(b, mask))
        _grow(b, (*SEQUENCE, *SEQUENCE_OTHER), 1)
    _grow(b, SEQUENCE_OTHER, b.integer(0, 1))
    if mask is not None and b.chance(0.5):
        b.attempt(lambda b: masked_mean(b, mask))
    return _finished(b, SEQUENCE_HEADS)


def _grow(b: Builder, blocks: Sequence[Block], count: int) -> None:
    done = 0
    for _ in range(10 * count):
        done += b.attempt(b.random.choice(list(blocks)))
        if done == count:
            return


def _finished(b: Builder, heads: Sequence[Head]) -> Network:
    """Everything that is made is read: what is left over gets heads; some of them are joined."""
    left = b.unread()
    for name in b.random.sample(left, len(left))[MOST_OUTPUTS:]:
        left.remove(name)
    outputs = []
    for name in left:
        outputs.append(_headed(b, name, heads))
    if len(outputs) > 1 and b.chance(0.35):
        joined: list[str] = []
        if b.attempt(lambda b: joined.append(_joined(b, outputs))):
            outputs = joined
    inner = [step.name for step in b.steps if step.name not in outputs and b.values[step.name].is_floating_point()]
    if inner and b.chance(0.25):  # one that is read as well
        outputs.append(b.random.choice(inner))
    return b.network(outputs)


def _headed(b: Builder, name: str, heads: Sequence[Head]) -> str:
    made: list[str] = []
    for _ in range(5):
        head = b.random.choice(list(heads))
        if b.attempt(lambda b, head=head: made.append(head(b, name))):  # type: ignore[misc]
            break
    return made[0] if made else name


def _joined(b: Builder, names: Sequence[str]) -> str:
    return b.add("cat of flattened", lambda *parts: torch.cat([p.flatten(1) for p in parts], 1), *names)


# What blocks read


def image(b: Builder, least: int = 1) -> str:
    """A result or input of four dimensions, the latest ones more often than not."""
    names = [n for n, v in b.values.items() if v.dim() == 5 and min(v.shape[3:]) >= least and v.is_floating_point()]
    return _late(b, names)


def sequence(b: Builder) -> str:
    return _late(b, [n for n, v in b.values.items() if v.dim() == 4 and v.is_floating_point()])


def _late(b: Builder, names: Sequence[str]) -> str:
    if not names:
        raise UnfitError("nothing of the kind")
    unread = [n for n in b.unread() if n in names]
    if unread and b.chance(0.5):
        return unread[-1]
    return names[-1 - min(int(b.random.expovariate(0.7)), len(names) - 1)]


def alike(b: Builder, name: str, axes: Sequence[int], different: bool = True) -> list[str]:
    """Others of the same sizes along these axes (of one sample)."""
    shape = b.shape(name)
    found = [n for n in b.values if len(b.shape(n)) == len(shape) and (n != name or not different)]
    return [n for n in found if all(b.shape(n)[a] == shape[a] for a in axes) and b.values[n].is_floating_point()]


def width(b: Builder) -> int:
    return int(b.random.choice([4, 5, 6, 8, 8, 10, 12, 16, 16, 20, 24]))


# Layers


def activation(b: Builder, x: str | None = None, more: bool = False) -> str:
    kinds = (*ACTIVATIONS, *MORE_ACTIVATIONS) if more else ACTIVATIONS
    layer = nn.LeakyReLU(0.1) if b.chance(0.07) else b.random.choice(kinds)()
    return b.add(str(layer), layer, x or image(b), layers=[layer])


def conv(b: Builder, x: str, out: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = True) -> str:
    return b.layer(nn.Conv2d(b.shape(x)[1], out, kernel, stride, kernel // 2, groups=groups, bias=bias), x)


def normalised(b: Builder, x: str | None = None) -> str:
    """Batch normalisation with the statistics of data, and factors of its own."""
    x = x or image(b)
    data = b.values[x].flatten(0, 1).transpose(0, 1).flatten(1)
    norm = nn.BatchNorm2d(len(data))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(data.mean(1))
        norm.running_var.copy_(data.var(1) + 0.01)
        norm.weight.uniform_(0.4, 1.6)
        norm.bias.uniform_(-0.7, 0.7)
    return b.add(str(norm), norm, x, layers=[norm])


def maybe(b: Builder, x: str, share: float = 0.6) -> str:
    """Perhaps normalised, perhaps with an activation."""
    x = normalised(b, x) if b.chance(0.4) else x
    return activation(b, x) if b.chance(share) else x


def convolution(b: Builder) -> str:
    x = image(b)
    channels, out = b.shape(x)[1], width(b)
    groups = b.divisor(math.gcd(channels, out)) if b.chance(0.3) else 1
    kernel: object = (b.integer(1, 3), b.integer(1, 5)) if b.chance(0.2) else b.integer(1, 4)
    stride, dilation = (2, 1) if b.chance(0.25) else (1, b.integer(1, 2))
    padding: object = "same" if stride == 1 and b.chance(0.5) else b.integer(0, 2)
    layer = nn.Conv2d(channels, out, kernel, stride, padding, dilation, groups, b.chance(0.7))  # type: ignore[arg-type]
    return maybe(b, b.layer(layer, x))


def depthwise(b: Builder) -> str:
    x, kernel = image(b, 3), b.integer(1, 2) * 2 + 1
    channels = b.shape(x)[1]
    out = channels * int(b.random.choice([1, 1, 1, 2]))
    layer = nn.Conv2d(channels, out, kernel, b.integer(1, 2), kernel // 2, groups=channels, bias=b.chance(0.5))
    return maybe(b, conv(b, maybe(b, b.layer(layer, x)), width(b), 1))


def inverted_residual(b: Builder) -> str:
    x = image(b, 3)
    channels = b.shape(x)[1]
    y = maybe(b, conv(b, x, 2 * channels, 1), 0.9)
    y = maybe(b, conv(b, y, 2 * channels, groups=2 * channels), 0.9)
    y = conv(b, y, channels, 1, bias=b.chance(0.5))
    return b.add("add", torch.add, *b.random.sample([x, y], 2))


PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "a * sigmoid(b)": lambda a, b: a * torch.sigmoid(b),
    "relu(a) + b": lambda a, b: torch.relu(a) + b,
    "relu(a + b)": lambda a, b: torch.relu(a + b),
    "relu(a) - relu(b)": lambda a, b: torch.relu(a) - torch.relu(b),
    "a + 0.1 * b": lambda a, b: a + 0.1 * b,
    "a / (abs(b) + 1)": lambda a, b: a / (b.abs() + 1),
}


def pair(b: Builder) -> str:
    """Two results of one shape in one, each of them with negative values or without."""
    x = image(b)
    others = alike(b, x, (0, 1, 2, 3))
    y = b.random.choice(others) if others and b.chance(0.6) else maybe(b, conv(b, x, b.shape(x)[1]))
    text = b.random.choice([*PAIRS, "add", "add", "relu(a) + b"])
    return b.add(text, PAIRS[text], *b.random.sample([x, y], 2))


def residual(b: Builder) -> str:
    x = image(b, 2)
    y = conv(b, maybe(b, conv(b, x, width(b)), 0.9), b.shape(x)[1])
    y = b.add("add", torch.add, x, normalised(b, y) if b.chance(0.4) else y)
    return activation(b, y) if b.chance(0.6) else y


def tower(b: Builder) -> str:
    """Residual blocks without normalisation, so that their values grow; each block's activation is read twice."""
    x = image(b, 2)
    x = conv(b, x, 8, 1) if b.shape(x)[1] > 16 else x
    for _ in range(b.integer(3, 5)):
        y = b.add("relu", torch.relu, x)
        y = b.add("relu", torch.relu, conv(b, y, 8))
        x = b.add("add", torch.add, x, conv(b, y, b.shape(x)[1]))
    return x


def join(b: Builder) -> str:
    """Two to four results of one size, signed and unsigned, one perhaps twice, joined along channels; then read."""
    x = image(b)
    others = alike(b, x, (0, 2, 3), different=False)
    parts = [x, *(b.random.choice(others) for _ in range(b.integer(1, 3)))]
    if len(set(parts)) == 1:
        parts[-1] = conv(b, x, width(b))
    if b.chance(0.5):
        i = b.integer(0, len(parts) - 1)
        parts[i] = activation(b, parts[i])
    y = b.add("cat", lambda *p: torch.cat(p, 1), *b.random.sample(parts, len(parts)))
    return maybe(b, conv(b, y, width(b), 1)) if b.chance(0.6) else y


def dense(b: Builder) -> str:
    x = image(b, 2)
    for _ in range(b.integer(2, 3)):
        y = maybe(b, conv(b, x, b.integer(3, 6)), 0.8)
        x = b.add("cat", lambda *p: torch.cat(p, 1), x, y)
    return x


def shuffle_unit(b: Builder) -> str:
    """Half of the channels passes, half is processed; the channels of both are mixed."""
    x = image(b, 2)
    c = b.shape(x)[1]
    if c % 2 or c < 4:
        x, c = conv(b, x, 12), 12
    left = b.add("chunk 0 of 2", lambda x: x.chunk(2, 1)[0], x)
    right = b.add("chunk 1 of 2", lambda x: x.chunk(2, 1)[1], x)
    right = maybe(b, conv(b, maybe(b, conv(b, right, c // 2)), c // 2, groups=c // 2))
    y = b.add("cat", lambda *p: torch.cat(p, 1), *b.random.sample([left, right], 2))
    return shuffled(b, y) if b.chance(0.7) else y


def shuffled(b: Builder, x: str | None = None) -> str:
    x = x or image(b)
    n, c, h, w = b.shape(x)
    groups = b.divisor(c)
    return b.add(
        f"shuffle of {groups} groups",
        lambda x: x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w),
        x,
    )


def parts_apart(b: Builder) -> str:
    """Parts of unlike size, one processed, one read twice, in another order."""
    x = image(b)
    c = b.shape(x)[1]
    first = b.integer(1, c - 1)
    one = b.add(f"[:, :{first}]", lambda x: x[:, :first], x)
    two = b.add(f"[:, {first}:]", lambda x: x[:, first:], x)
    three = activation(b, conv(b, one, width(b), 1))
    return b.add("cat", lambda *p: torch.cat(p, 1), *b.random.sample([one, two, three, one], b.integer(3, 4)))


def pooled(b: Builder) -> str:
    x, kernel = image(b, 3), b.integer(2, 3)
    stride, padding, ceil = b.integer(1, 2), b.integer(0, kernel // 2), b.chance(0.2)
    kinds = (nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil), nn.AvgPool2d(kernel, stride, padding))
    layer = b.random.choice(kinds)
    return b.add(_text(layer), layer, x, layers=[layer])


def adaptive(b: Builder) -> str:
    x = image(b, 4)
    _, _, h, w = b.shape(x)
    layer = nn.AdaptiveAvgPool2d((b.divisor(h), b.divisor(w)))
    return b.add(_text(layer), layer, x, layers=[layer])


def pyramid_pooling(b: Builder) -> str:
    """Max pools one after the other, all joined (SPPF)."""
    x, parts = image(b, 5), []
    parts.append(x)
    for _ in range(2):
        parts.append(b.add("max_pool(5)", lambda x: functional.max_pool2d(x, 5, 1, 2), parts[-1]))
    return conv(b, b.add("cat", lambda *p: torch.cat(p, 1), *parts), width(b), 1)


def squeeze_excite(b: Builder) -> str:
    x = image(b, 2)
    c = b.shape(x)[1]
    if b.chance(0.5):
        gate = b.add("mean((2, 3), keepdim)", lambda x: x.mean((2, 3), keepdim=True), x)
        gate = b.layer(nn.Conv2d(4, c, 1), activation(b, b.layer(nn.Conv2d(c, 4, 1), gate)))
    else:
        gate = b.layer(nn.Linear(c, c), b.add("mean((2, 3))", lambda x: x.mean((2, 3)), x))
        gate = b.add("[:, :, None, None]", lambda x: x[:, :, None, None], gate)
    layer = b.random.choice([nn.Sigmoid, nn.Hardsigmoid])()
    return b.add("mul", torch.mul, x, b.add(str(layer), layer, gate, layers=[layer]))


def shared_layer(b: Builder) -> str:
    """One convolution on two results; of one shape or not."""
    x = image(b, 2)
    others = alike(b, x, (0, 1))
    y = b.random.choice(others) if others else activation(b, x)
    layer = nn.Conv2d(b.shape(x)[1], width(b), 3, padding=1)
    first = b.layer(layer, x)
    second = b.add(f"the same {_text(layer)}", layer, y, layers=[layer])
    if b.shape(first) == b.shape(second) and b.chance(0.7):
        return b.add("add", torch.add, maybe(b, first), second)
    return second


def padded(b: Builder) -> str:
    x, amounts = image(b), [b.integer(0, 2) for _ in range(4)]
    fill = b.random.choice([0.0, 0.0, 0.5, -1.0])
    y = b.add(f"pad({amounts}, {fill})", lambda x: functional.pad(x, amounts, value=fill), x)
    return conv(b, y, width(b)) if b.chance(0.5) else y


def cropped(b: Builder) -> str:
    x = image(b, 5)
    top, left = b.integer(0, 2), b.integer(0, 2)
    return b.add(f"[:, :, {top}:, {left}:-1]", lambda x: x[:, :, top:, left:-1], x)


def blocks_of_pixels(b: Builder) -> str:
    """Space to depth, by reshapes and a permutation."""
    x = image(b, 4)
    n, c, h, w = b.shape(x)
    if h % 2 or w % 2:
        raise UnfitError("an odd size")
    y = b.add(
        "space to depth(2)",
        lambda x: x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2),
        x,
    )
    return maybe(b, conv(b, y, width(b), 1))


def weighed(b: Builder) -> str:
    """Weights by softmax over channels or places."""
    x = image(b)
    axis = int(b.random.choice([1, 3]))
    return b.add(f"x * softmax(x, {axis})", lambda x: x * (2 * x).softmax(axis), x)


def scaled(b: Builder) -> str:
    """A factor and an offset a channel, as numbers or as parameters."""
    x = image(b)
    if b.chance(0.5):
        factor, offset = b.random.choice([0.1, 0.5, 3.0, 10.0]), b.random.choice([0.0, 0.5, -2.0])
        return b.add(f"x * {factor} + {offset}", lambda x: x * factor + offset, x)
    factors, offsets = Factors(b.shape(x)[1], 1), Factors(b.shape(x)[1], 0)
    return b.add("x * factors + offsets", lambda x: x * factors() + offsets(), x, layers=[factors, offsets])


class Factors(nn.Module):
    """A parameter a channel of images, around the middle."""

    def __init__(self, channels: int, middle: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(middle + 0.5 * torch.randn(channels, 1, 1))

    def forward(self) -> Tensor:
        return self.weight


def lines_mixed(b: Builder) -> str:
    """A linear layer along places of the image, as MLP-Mixer has it."""
    x = image(b)
    n, c, h, w = b.shape(x)
    y = b.add("flatten(2)", lambda x: x.flatten(2), x)
    y = b.layer(nn.Linear(h * w, h * w), y)
    y = b.add(f"view({c}, {h}, {w})", lambda x: x.view(n, c, h, w), y)
    return b.add("add", torch.add, x, y)


def across(b: Builder) -> str:
    """A product of means along rows and along columns (coordinate attention)."""
    x = image(b, 3)
    c = b.shape(x)[1]
    rows = conv(b, b.add("mean(3, keepdim)", lambda x: x.mean(3, keepdim=True), x), c, 1)
    columns = conv(b, b.add("mean(2, keepdim)", lambda x: x.mean(2, keepdim=True), x), c, 1)
    return b.add("x * sigmoid(r) * sigmoid(c)", lambda x, r, c: x * r.sigmoid() * c.sigmoid(), x, rows, columns)


PLAIN: tuple[Block, ...] = (
    *(convolution, convolution, depthwise, inverted_residual, pair, pair, residual, tower, join, join, join, dense),
    *(shuffle_unit, shuffled, parts_apart, pooled, pooled, adaptive, pyramid_pooling, squeeze_excite, shared_layer),
    *(padded, cropped, blocks_of_pixels, weighed, scaled, lines_mixed, across, activation, normalised),
)


# Of other operators


def transposed(b: Builder) -> str:
    x = image(b)
    kernel, stride, padding, more = b.random.choice([(2, 2, 0, 0), (4, 2, 1, 0), (3, 2, 1, 1), (3, 1, 1, 0)])
    c, out = b.shape(x)[1], int(b.random.choice([4, 6, 8]))
    groups = b.divisor(math.gcd(c, out)) if b.chance(0.2) else 1
    layer = nn.ConvTranspose2d(c, out, kernel, stride, padding, more, groups, bias=b.chance(0.7))
    return maybe(b, b.layer(layer, x))


def resized(b: Builder) -> str:
    x = image(b, 2)
    _, _, h, w = b.shape(x)
    how = b.random.choice(["nearest", "nearest", "bilinear", "bilinear, corners"])
    mode, corners = how.partition(",")[0], True if "corners" in how else None
    if b.chance(0.6):
        y = b.add(f"interpolate(2x, {how})", lambda x: functional.interpolate(x, None, 2, mode, corners), x)
    else:
        size = (h + b.integer(1, h), w + b.integer(1, w)) if b.chance(0.7) else (max(h // 2, 1), max(w // 2, 1))
        y = b.add(f"interpolate({size}, {how})", lambda x: functional.interpolate(x, size, None, mode, corners), x)
    others = alike(b, y, (0, 2, 3))
    if others and b.chance(0.7):
        y = b.add("cat", lambda *p: torch.cat(p, 1), y, b.random.choice(others))
    return conv(b, y, width(b)) if b.chance(0.6) else y


def normalised_otherwise(b: Builder) -> str:
    x = image(b, 2)
    c = b.shape(x)[1]
    norms = [nn.GroupNorm(b.divisor(c), c), nn.InstanceNorm2d(c, affine=True), nn.GroupNorm(1, c)]
    norm = with_factors(b.random.choice(norms))
    if b.chance(0.3):
        return b.add("normalize(dim=1)", lambda x: functional.normalize(x, dim=1), x)
    if b.chance(0.3):
        layer = with_factors(nn.LayerNorm(c))
        text = f"{layer} of channels"
        return b.add(text, lambda x: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), x, layers=[layer])
    return b.add(str(norm), norm, x, layers=[norm])


def with_factors(norm: nn.Module) -> nn.Module:
    """The normalisation with factors and offsets as training leaves them."""
    with torch.no_grad():
        for name, low, high in (("weight", 0.4, 1.6), ("bias", -0.7, 0.7)):
            parameter = getattr(norm, name)
            parameter.uniform_(low, high)
    return norm


def attention_of_places(b: Builder) -> str:
    x = image(b)
    n, c, h, w = b.shape(x)
    if h * w > 64:
        x = b.add("avg_pool(4)", lambda x: functional.avg_pool2d(x, 4), x)
        n, c, h, w = b.shape(x)
    y = conv(b, x, 3 * c, 1)

    def attend(qkv: Tensor) -> Tensor:
        q, k, v = qkv.flatten(2).chunk(3, 1)
        mixed: Tensor = (q.transpose(1, 2) @ k * c**-0.5).softmax(-1) @ v.transpose(1, 2)
        return mixed.transpose(1, 2).view(n, c, h, w)

    return b.add("add", torch.add, x, b.add("attention", attend, y))


def activation_otherwise(b: Builder) -> str:
    x = image(b)
    if b.chance(0.3):
        layer = nn.PReLU(b.shape(x)[1])
        return b.add(str(layer), layer, x, layers=[layer])
    return activation(b, x, more=True)


OTHER_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp(-0.5, 1)": lambda x: x.clamp(-0.5, 1),
    "clamp(min=0.1)": lambda x: x.clamp(min=0.1),
    "pow(2)": lambda x: x.pow(2),
    "sum(1, keepdim)": lambda x: x.sum(1, keepdim=True),
    "amax(1, keepdim)": lambda x: x.amax(1, keepdim=True),
    "[:, :, ::2, 1::2]": lambda x: x[:, :, ::2, 1::2],
    "roll(1, 3)": lambda x: x.roll(1, 3),
    "flip(3)": lambda x: x.flip(3),
    "where(x > 0, x, 0.1 * x)": lambda x: torch.where(x > 0, x, 0.1 * x),
    "pad(reflect)": lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"),
    "pad(replicate)": lambda x: functional.pad(x, (1, 0, 2, 1), mode="replicate"),
    "stack with relu, mean": lambda x: torch.stack((x, torch.relu(x)), 1).mean(1),
    "repeat(1, 2, 1, 1)": lambda x: x.repeat(1, 2, 1, 1),
    "std of places": lambda x: x / (x.var((2, 3), keepdim=True) + 0.1).sqrt(),
}


def function_otherwise(b: Builder) -> str:
    x, text = image(b, 2), b.random.choice(list(OTHER_FUNCTIONS))
    y = b.add(text, OTHER_FUNCTIONS[text], x)
    return conv(b, y, width(b), 1) if b.chance(0.5) else y


def shuffled_pixels(b: Builder) -> str:
    x = image(b)
    return b.add("pixel_shuffle(2)", lambda x: functional.pixel_shuffle(x, 2), conv(b, x, 4 * b.integer(1, 4)))


def conditioned(b: Builder) -> str:
    """Channels scaled by what is embedded of an integer input."""
    x = image(b)
    c, classes = b.shape(x)[1], b.integer(4, 10)
    which = b.input((1,), high=classes)
    table = nn.Embedding(classes, c)
    code = b.add(str(table), table, which, layers=[table])
    return b.add("x * (1 + code)", lambda x, e: x * (1 + 0.5 * e[:, :, None, None]), x, code)


def masked_image(b: Builder) -> str:
    """Columns that are masked out by an integer input."""
    x = image(b)
    mask = b.input((1, b.shape(x)[3]), mask=True)
    if b.chance(0.5):
        return b.add("x * mask", lambda x, m: x * m[:, None, None, :].to(x.dtype), x, mask)
    fill = b.random.choice([0.0, -1.0])
    return b.add(f"masked_fill({fill})", lambda x, m: x.masked_fill(m[:, None, None, :] == 0, fill), x, mask)


OTHER: tuple[Block, ...] = (
    *(transposed, transposed, resized, resized, normalised_otherwise, normalised_otherwise, attention_of_places),
    *(activation_otherwise, function_otherwise, function_otherwise, shuffled_pixels, conditioned, masked_image),
)


# Sequences: (1, tokens, features)


def mixed_features(b: Builder) -> str:
    x = sequence(b)
    y = b.layer(nn.Linear(b.shape(x)[-1], 4 * b.integer(1, 6), bias=b.chance(0.8)), x)
    return activation(b, y) if b.chance(0.6) else y


def feed_forward(b: Builder) -> str:
    x = sequence(b)
    d = b.shape(x)[-1]
    y = activation(b, b.layer(nn.Linear(d, 2 * d), x))
    return b.add("add", torch.add, x, b.layer(nn.Linear(2 * d, d), y))


def gated(b: Builder) -> str:
    x = sequence(b)
    y = b.layer(nn.Linear(b.shape(x)[-1], 16), x)
    return b.add("glu", lambda x: x.chunk(2, -1)[0] * torch.sigmoid(x.chunk(2, -1)[1]), y)


def mixed_tokens(b: Builder) -> str:
    x = sequence(b)
    y = b.add("transpose(1, 2)", lambda x: x.transpose(1, 2), x)
    y = activation(b, b.layer(nn.Linear(b.shape(x)[1], b.shape(x)[1]), y))
    return b.add("x + y.transpose(1, 2)", lambda x, y: x + y.transpose(1, 2), x, y)


def sequence_pair(b: Builder) -> str:
    x = sequence(b)
    others = alike(b, x, (0, 1, 2)) or [activation(b, x)]
    text = b.random.choice(list(PAIRS))
    return b.add(text, PAIRS[text], x, b.random.choice(others))


def sequence_join(b: Builder) -> str:
    x = sequence(b)
    y = b.random.choice(alike(b, x, (0, 1)) or [activation(b, x)])
    z = b.add("cat", lambda *p: torch.cat(p, -1), *b.random.sample([x, y], 2))
    return b.layer(nn.Linear(b.shape(z)[-1], 12), z) if b.chance(0.5) else z


SEQUENCE: tuple[Block, ...] = (
    *(mixed_features, mixed_features, feed_forward, gated, mixed_tokens, sequence_pair, sequence_join),
)


def _with_positions(b: Builder, x: str) -> str:
    length, features = b.shape(x)[1:]
    positions, places = nn.Embedding(length, features), torch.arange(length)[None]
    return b.add(f"x + {positions}(arange)", lambda x: x + 0.5 * positions(places), x, layers=[positions])


def transformer(b: Builder, mask: str | None = None) -> str:
    """Attention of one to three heads, masked in one of several ways, and a feed-forward part; normalised before."""
    x = sequence(b)
    t, d = b.shape(x)[1:]
    heads = b.random.choice([h for h in (1, 2, 3) if d % h == 0])
    norm = with_factors(nn.LayerNorm(d))
    qkv = b.layer(nn.Linear(d, 3 * d), b.add(str(norm), norm, x, layers=[norm]))
    ways = ("sdpa", "none", "causal -inf") if mask is None else ("fill -inf", "add -1e4", "where", "sdpa mask")
    how = b.random.choice(ways)

    def attend(qkv: Tensor, *masks: Tensor) -> Tensor:
        q, k, v = (part.view(1, t, heads, d // heads).transpose(1, 2) for part in qkv.chunk(3, -1))
        keep = masks[0][:, None, None, :] > 0 if masks else None
        return _attention(how, q, k, v, keep).transpose(1, 2).reshape(1, t, d)

    sources = [qkv] if mask is None or how == "none" else [qkv, mask]
    y = b.layer(nn.Linear(d, d), b.add(f"attention of {heads} heads, {how}", attend, *sources))
    return b.add("add", torch.add, x, y)


def _attention(how: str, q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None) -> Tensor:
    t = q.shape[-2]
    if how.startswith("sdpa"):
        return functional.scaled_dot_product_attention(q, k, v, keep)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if how == "causal -inf":
        scores = scores + torch.full((t, t), -math.inf).triu(1)
    elif keep is not None and how == "fill -inf":
        scores = scores.masked_fill(~keep, -math.inf)
    elif keep is not None and how == "add -1e4":
        scores = scores + (1 - keep.to(scores.dtype)) * -1e4
    elif keep is not None and how == "where":
        scores = torch.where(keep, scores, torch.full_like(scores, -1e9))
    mixed: Tensor = scores.softmax(-1) @ v
    return mixed


def masked_mean(b: Builder, mask: str) -> str:
    def mean(x: Tensor, mask: Tensor) -> Tensor:
        kept = mask[..., None].to(x.dtype)
        return (x * kept).sum(1) / kept.sum(1)

    return b.layer(nn.Linear(b.shape(x := sequence(b))[-1], 8), b.add("masked mean", mean, x, mask))


def layer_normalised(b: Builder) -> str:
    x = sequence(b)
    d = b.shape(x)[-1]
    if b.chance(0.4):
        return b.add("rms norm", lambda x: x * (x.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt(), x)
    norm = with_factors(nn.LayerNorm(d))
    return b.add(str(norm), norm, x, layers=[norm])


def convolved(b: Builder) -> str:
    x = sequence(b)
    layer = nn.Conv1d(b.shape(x)[-1], 8, 3, padding=1)
    return activation(b, b.layer(layer, b.add("transpose(1, 2)", lambda x: x.transpose(1, 2), x)))


def bilinear(b: Builder) -> str:
    """The similarity of each two tokens."""
    return b.add("x @ x.T", lambda x: x @ x.transpose(1, 2) / math.sqrt(x.shape[-1]), sequence(b))


SEQUENCE_OTHER: tuple[Block, ...] = (transformer, transformer, layer_normalised, layer_normalised, convolved, bilinear)


# Heads


def as_it_is(b: Builder, x: str) -> str:
    return x


def classes(b: Builder, x: str) -> str:
    """A linear layer on the means, and perhaps an activation or probabilities."""
    if len(b.shape(x)) == 2:
        pooled = x
    else:
        axes = tuple(range(2, len(b.shape(x)))) if len(b.shape(x)) == 4 else (1,)
        pooled = b.add(f"mean({axes})", lambda x: x.mean(axes), x)
    y = b.layer(nn.Linear(b.shape(pooled)[-1], b.integer(3, 12)), pooled, size=b.random.choice([1.0, 4.0, 0.1, 30.0]))
    last = b.random.choice([None, None, nn.ReLU(), nn.Sigmoid(), nn.Softmax(-1), nn.Tanh(), nn.ReLU6()])
    return y if last is None else b.add(str(last), last, y, layers=[last])


def flat_classes(b: Builder, x: str) -> str:
    y = b.add("flatten(1)", lambda x: x.flatten(1), x)
    if b.shape(y)[1] > 600:
        raise UnfitError("a long vector")
    return b.layer(nn.Linear(b.shape(y)[1], b.integer(3, 12)), y)


def dense_map(b: Builder, x: str) -> str:
    y = conv(b, x, b.integer(1, 6), 1)
    last = b.random.choice([None, nn.Sigmoid(), nn.Softmax(1), nn.ReLU()])
    return y if last is None else b.add(str(last), last, y, layers=[last])


def detector(b: Builder, x: str) -> str:
    """Boxes in pixels joined with scores from 0 to 1, place by place."""
    boxes = conv(b, x, 4, 1)
    scores = b.layer(nn.Conv2d(b.shape(x)[1], b.integer(1, 4), 1), x, size=2.0)
    boxes = b.add("boxes * 100 + 320", lambda y: y.flatten(2) * 100 + 320, boxes)
    scores = b.add("sigmoid(scores - 2)", lambda y: torch.sigmoid(y.flatten(2) - 2), scores)
    if b.chance(0.3):
        return b.add("cat, transposed", lambda *p: torch.cat(p, 1).transpose(1, 2), boxes, scores)
    return b.add("cat", lambda *p: torch.cat(p, 1), boxes, scores)


def each_token(b: Builder, x: str) -> str:
    y = b.layer(nn.Linear(b.shape(x)[-1], b.integer(2, 8)), x)
    return b.add("softmax(-1)", lambda x: x.softmax(-1), y) if b.chance(0.4) else y


def embedding(b: Builder, x: str) -> str:
    return b.add("normalize", lambda x: functional.normalize(x, dim=-1), classes(b, x))


def plain_norm(b: Builder, x: str) -> str:
    """A vector of length 1, of operators that need no maximum."""
    y = classes(b, x)
    return b.add("x * rsqrt(mean(x * x) + 1e-3)", lambda x: x * ((x * x).mean(-1, keepdim=True) + 1e-3).rsqrt(), y)


IMAGE_HEADS: tuple[Head, ...] = (
    *(as_it_is, classes, classes, classes, flat_classes, dense_map, dense_map, detector, plain_norm),
)
SEQUENCE_HEADS: tuple[Head, ...] = (as_it_is, classes, classes, each_token, each_token)


def _text(layer: nn.Module) -> str:
    return str(layer).replace("\n", " ")
