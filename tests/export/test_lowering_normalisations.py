"""Normalisations and their operators, as edgeport lowers them to TFLite, compute what PyTorch computes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .test_lowering import Each, check

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalised by channels": lambda x: F.normalize(x, dim=1),
    "normalised by rows": lambda x: F.normalize(x, dim=-1),
    "normalised by absolute values": lambda x: F.normalize(x, p=1.0, dim=1),
    "normalised zeros": lambda x: F.normalize(torch.relu(x - 100), dim=1),
    "norm of all": lambda x: torch.linalg.vector_norm(x).reshape(1, 1),
    "norm by two axes": lambda x: torch.linalg.vector_norm(x, dim=(1, 3)),
    "sum": lambda x: x.sum(dim=1),
    "sum that keeps its axis": lambda x: x.sum(dim=2, keepdim=True),
    "clamp": lambda x: x.clamp(-0.5, 0.25),
    "lower limit": lambda x: x.clamp(min=-0.5),
    "upper limit": lambda x: x.clamp(max=0.25),
    "expanded, the output": lambda x: x.mean(1, keepdim=True).expand_as(x),
    "expanded twice": lambda x: x.mean(1, keepdim=True).expand_as(x) + x.mean(2, keepdim=True).expand_as(x),
    "divided by itself, expanded": lambda x: x / x.abs().sum(dim=(2, 3), keepdim=True).clamp_min(1e-3).expand_as(x),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel shuffle to one channel": lambda x: F.pixel_shuffle(x[:, :4], 2),
    "conversion of floats to floats": lambda x: x.to(torch.float32),
    "instance normalisation": F.instance_norm,
    "layer normalisation of rows": lambda x: F.layer_norm(x, (5,)),
    "layer normalisation of images": lambda x: F.layer_norm(x, (8, 6, 5)),
}


def test_each_function_computes_what_pytorch_computes(tmp_path: Path) -> None:
    check(Each(FUNCTIONS), torch.randn(2, 1, 8, 6, 5), folder=tmp_path, names=tuple(FUNCTIONS))


def weighted(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("norm", [nn.LayerNorm((8, 6, 5)), nn.LayerNorm(5), nn.InstanceNorm2d(8, affine=True)], ids=str)
def test_weights_of_a_normalisation_stand_at_their_elements(norm: nn.Module, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), weighted(norm))
    check(network, torch.randn(2, 1, 8, 6, 5), folder=tmp_path)
