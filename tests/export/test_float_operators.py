"""What int8 leaves in float, in files of both formats: their answers keep their signal, piece by piece."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeport.export import as_written, capture, quantization
from edgeport.export import onnx as to_onnx
from edgeport.export.converters import Onnx
from edgeport.export.job import Job

from .test_quantization import both, opened, ran


class Shares(nn.Module):
    """Small shares: of a sigmoid in percent, of a tanh, and of a softmax over many places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.last(F.relu(self.first(x)))
        return torch.sigmoid(y - 5).flatten(2) * 100, torch.tanh(y * 0.05), y.flatten(2).softmax(2)


class Normalising(nn.Module):
    """Norms over channels, groups and several axes, of a map; and an embedding of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.first(x))
        y = y * torch.rsqrt(y.pow(2).mean(1, keepdim=True) + 1e-6)
        y = (y - y.mean((1, 2, 3), keepdim=True)) / (y.var((1, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        return y, F.normalize(self.last(y.mean((2, 3))))


class Masking(nn.Module):
    """Attention whose scores are masked by one of the numbers that people mask with."""

    def __init__(self, masked: float) -> None:
        super().__init__()
        self.rows, self.last = nn.Linear(16, 48), nn.Linear(16, 4)
        mask = torch.zeros(6, 6).masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), masked)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.rows(x).chunk(3, -1)
        y: Tensor = self.last(torch.softmax(q @ k.transpose(1, 2) * 0.25 + self.mask, -1) @ v)
        return y


def worst_db(form: str, net: nn.Module, *shape: int) -> float:
    """Of the pieces of the int8 file's answers, on samples that its ranges are not from."""
    torch.manual_seed(1)
    file, samples = opened(form, net, torch.randn(16, *shape))
    ran(file, samples[:12], "min-max")
    held = samples[12:]
    expected = [[tensors[name] for name in file.output_names] for tensors in file.tensors(held)]
    found = file.outputs(next(file._job.folder.glob("int8.*")), held)
    return quantization.worst_db(file.labels, expected, found)


@both
def test_small_shares_keep_their_signal(form: str) -> None:
    torch.manual_seed(0)
    assert worst_db(form, Shares(), 1, 3, 16, 16) > 30


def test_norms_keep_their_signal_in_onnx() -> None:
    torch.manual_seed(0)
    assert worst_db("onnx", Normalising(), 1, 3, 16, 16) > 30


@pytest.mark.parametrize("masked", [-np.inf, float(np.finfo(np.float32).min), -1e4, -100.0])
def test_masked_scores_keep_their_signal_in_onnx(masked: float) -> None:
    torch.manual_seed(0)
    assert worst_db("onnx", Masking(masked), 1, 6, 16) > 25


class Overshooting(nn.Module):
    """A norm over several axes, which ONNX Runtime's quantizer cannot take, and a cubic resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.LayerNorm([8, 8, 8])

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(F.relu(self.norm(self.first(x))), scale_factor=2.0, mode="bicubic")


def test_norms_over_several_axes_and_cubic_resizing_are_quantised_around_in_onnx() -> None:
    torch.manual_seed(0)
    assert worst_db("onnx", Overshooting(), 1, 3, 16, 16) > 30


def test_graphs_as_they_were_written_have_what_converters_need_alone() -> None:
    captured = capture.capture(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), (torch.randn(1, 3, 8, 8),))
    names = [str(node.target) for node in as_written.graph_of(captured).graph.nodes]
    assert any("batch_norm" in name for name in names)
    assert not any("batch_norm" in str(node.target) for node in captured.graph.graph.nodes)
    assert Onnx(capture.program(captured.graph, captured.inputs), captured)._written_program().graph_signature


class Positions(nn.Module):
    """A table looked up by ids that are known beforehand, before one that is looked up by the input."""

    ids: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.places, self.words = nn.Embedding(2, 8), nn.Embedding(16, 8), nn.Embedding(20, 8)
        self.register_buffer("ids", torch.arange(16).expand((1, -1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.words(x) + self.places(self.ids[:, : x.shape[1]]) + self.kinds(torch.zeros_like(x))
        return y


def test_what_is_computed_once_takes_no_name_of_another_operator() -> None:
    captured = capture.capture(Positions().eval(), (torch.zeros(1, 6, dtype=torch.int64),))
    job = Job("", ("fp32",), "x86", False, captured.input_names, captured.output_names)
    model = to_onnx._exported(capture.program(captured.graph, captured.inputs), job, lambda _: None)
    assert [value.name for value in model.graph.output] == ["output"]
