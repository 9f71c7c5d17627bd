"""Helpers on networks: statistics worth folding, capturing one pass at a time, comparing outputs."""

import torch
from hypothesis import settings
from torch import Tensor, nn
from torch.fx import GraphModule

# No deadline: a busy machine is no failure. Derandomised, so that a change breaks the run that made it, not a later
# one.
few = settings(deadline=None, derandomize=True, max_examples=15, database=None)


def with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, every batch normalisation with the statistics and factors of a trained one."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                module.weight.data.normal_(generator=generator)
                module.bias.data.normal_(generator=generator)
    return network.eval()


def exported(network: nn.Module, *inputs: Tensor) -> GraphModule:
    """The network's graph before any pass."""
    graph = torch.export.export(network.eval(), inputs).module(check_guards=False)
    assert isinstance(graph, GraphModule)
    return graph


def targets(graph: GraphModule) -> list[str]:
    """Names of the operators, in order: aten.conv2d.default."""
    return [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest value expected."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    with torch.no_grad():
        return float((found - expected).abs().max() / expected.abs().max())
